//! A program with an HTTP client and a TLS configuration of its own beside plyfold's.
//!
//! Its argument is a URL, such as a deployment service has: the answer is the name of an image, whose digest it shows.

use std::error::Error;

use plyfold::{Backends, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("usage: example-with-reqwest URL")?;
    let image = reqwest::Client::new().get(url).send().await?.text().await?;
    // What a program does that speaks TLS by rustls: no provider is named, so there has to be one, and only one.
    let roots = rustls::RootCertStore::empty();
    let _ = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let opened = Backends::linked()?.open(image.trim(), &Options::default()).await?;
    let reference = opened.reference().await?;
    println!("{}", opened.registry.resolve(&reference).await?.digest());
    Ok(())
}
