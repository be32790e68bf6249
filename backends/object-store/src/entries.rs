//! The schemes that programs open these caches by.

use futures_util::future::BoxFuture;
use plyfold_core::{CacheEntry, CacheProvider, CacheRequest, Error, OptionFault, Result};

use crate::cache::ObjectStoreCache;
use crate::config::{Config, SHORTEST_LEASE};

plyfold_core::register!(CacheEntry {
    schemes: &["s3", "s3a"],
    package: env!("CARGO_PKG_NAME"),
    summary: "images that many machines share in S3, or in what speaks as it does",
    syntax: "s3://BUCKET[/PREFIX]",
    options: "lease-seconds=NUMBER, read-only=true|false, scratch=DIR, endpoint=URL, region=NAME, allow-http=true|false, \
              virtual-hosted-style-request=true|false, access-key-id=TEXT, secret-access-key=TEXT",
    open,
});

plyfold_core::register!(CacheEntry {
    schemes: &["gs"],
    package: env!("CARGO_PKG_NAME"),
    summary: "images that many machines share in Google Cloud Storage",
    syntax: "gs://BUCKET[/PREFIX]",
    options: "lease-seconds=NUMBER, read-only=true|false, scratch=DIR, base-url=URL, service-account=FILE",
    open,
});

plyfold_core::register!(CacheEntry {
    schemes: &["az", "abfs", "abfss", "adl", "azure"],
    package: env!("CARGO_PKG_NAME"),
    summary: "images that many machines share in Azure Blob Storage",
    syntax: "az://CONTAINER[/PREFIX]",
    options: "lease-seconds=NUMBER, read-only=true|false, scratch=DIR, account-name=NAME, access-key=TEXT, endpoint=URL, \
              allow-http=true|false",
    open,
});

plyfold_core::register!(CacheEntry {
    schemes: &["file"],
    package: env!("CARGO_PKG_NAME"),
    summary: "images that many machines share in a folder",
    syntax: "file:///FOLDER",
    options: "lease-seconds=NUMBER, read-only=true|false, scratch=DIR",
    open,
});

plyfold_core::register!(CacheEntry {
    schemes: &["memory"],
    package: env!("CARGO_PKG_NAME"),
    summary: "images in the memory of this process",
    syntax: "memory:///[NAME]",
    options: "lease-seconds=NUMBER, read-only=true|false, scratch=DIR",
    open,
});

fn open(request: CacheRequest) -> BoxFuture<'static, Result<Box<dyn CacheProvider>>> {
    Box::pin(async move {
        let CacheRequest { uri, options, makes, .. } = request;
        let config: Config = options.config()?;
        if config.lease_seconds < SHORTEST_LEASE {
            let why = format!("it is at least {SHORTEST_LEASE}");
            return Err(Error::from(OptionFault::Value("lease-seconds".to_owned(), why)));
        }
        let opened = if makes {
            ObjectStoreCache::open(&uri, &config).await?
        } else {
            ObjectStoreCache::open_existing(&uri, &config).await?
        };
        Ok(Box::new(opened) as _)
    })
}
