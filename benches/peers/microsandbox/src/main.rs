//! Runs microsandbox-image as its own program does.
//!
//! - `layer TAR OUT`: a tar, plain or compressed, to an EROFS image, with the digests of both forms. A pull hashes the blob
//!   while it downloads; here another thread does.
//! - `pull HOST:PORT/REPOSITORY:TAG CACHE [UPPER BYTES]`: an image without TLS into a cache, with the merged image and the
//!   VMDK descriptor of each pull, and an empty ext4 to write to.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use microsandbox_image::erofs::write_erofs;
use microsandbox_image::ext4::{Ext4FormatOptions, format_ext4};
use microsandbox_image::tar::{Compression, ingest_compressed_tar};
use microsandbox_image::tree::ResourceLimits;
use microsandbox_image::{GlobalCache, Platform, PullOptions, Registry};
use sha2::{Digest as _, Sha256};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["layer", tar, out] => layer(Path::new(tar), Path::new(out)).await,
        ["pull", image, cache] => pull(image, Path::new(cache)).await,
        ["pull", image, cache, upper, bytes] => {
            pull(image, Path::new(cache)).await?;
            let options = Ext4FormatOptions { size_bytes: bytes.parse()?, ..Ext4FormatOptions::default() };
            Ok(format_ext4(Path::new(upper), &options)?)
        }
        _ => Err("usage: microsandbox-driver layer TAR OUT | pull IMAGE CACHE [UPPER BYTES]".into()),
    }
}

async fn layer(tar: &Path, out: &Path) -> Result<()> {
    let path = tar.to_owned();
    let blob = tokio::task::spawn_blocking(move || -> io::Result<()> {
        let (mut file, mut hasher, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 256 << 10]);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        std::hint::black_box(hasher.finalize());
        Ok(())
    });
    let mut magic = [0; 6];
    File::open(tar)?.read_exact(&mut magic)?;
    let file = tokio::fs::File::open(tar).await?;
    let spool = out.with_extension("spool");
    let ingested =
        ingest_compressed_tar(file, Compression::detect(&magic), &ResourceLimits::default(), Some(&spool)).await?;
    let out = out.to_owned();
    tokio::task::spawn_blocking(move || write_erofs(&ingested.tree, &out)).await??;
    blob.await??;
    Ok(std::fs::remove_file(spool)?)
}

async fn pull(image: &str, cache: &Path) -> Result<()> {
    let host = image.split('/').next().unwrap_or_default().to_owned();
    let cache = GlobalCache::new_async(cache).await?;
    let registry =
        Registry::builder(Platform::host_linux(), cache).add_insecure_registries(vec![host]).build()?;
    registry.pull(&image.parse()?, &PullOptions::default()).await?;
    Ok(())
}
