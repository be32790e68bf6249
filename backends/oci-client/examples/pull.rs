//! Pulls an image from a registry over plain HTTP, by a client of the program.

use oci_client::Client;
use oci_client::client::{ClientConfig, ClientProtocol};
use plyfold_core::memory::MemoryCache;
use plyfold_core::{PullOptions, Result, pull, reference};
use plyfold_oci_client::OciClient;

/// Pulls with the program's client; yields the number of layers.
pub(crate) async fn pull_with(client: Client, image: &str) -> Result<usize> {
    let name = reference::parse(image)?;
    let registry = OciClient::new(client, name.registry());
    let cache = MemoryCache::new()?;
    let pulled = pull(&registry, &name, &cache, &PullOptions::default()).await?;
    Ok(pulled.layers.len())
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let image = std::env::args().nth(1).unwrap_or_else(|| "localhost:5000/library/app:1.2".to_owned());
    let config = ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() };
    let layers = pull_with(Client::try_from(config)?, &image).await?;
    assert!(layers > 0);
    Ok(())
}
