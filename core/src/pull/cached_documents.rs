//! The backend of a pull; documents that are in the cache are read from there.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::cache::{CacheProvider, content};
use crate::manifest::{RawManifest, limits};
use crate::registry::ImageRegistry;
use crate::{Blob, BlobRange, Descriptor, ErrorKind, Reference, Result};

/// A registry whose configs are read from the cache if they are there and undamaged. To know the platform of an image
/// without an index, its config has to be read.
#[derive(Clone, Debug)]
pub(super) struct CachedDocuments {
    pub(super) registry: Box<dyn ImageRegistry>,
    pub(super) cache: Box<dyn CacheProvider>,
}

impl CachedDocuments {
    /// The content of a document in the cache, if it is there and undamaged.
    async fn held(&self, blob: &Descriptor) -> Result<Option<Bytes>> {
        if self.cache.stat(blob.digest()).await?.is_none() {
            return Ok(None);
        }
        match content::read(&self.cache, blob, limits::CONFIG).await {
            Ok(content) => Ok(Some(content)),
            // Damaged or missing content is fetched from the registry. An I/O error is returned.
            Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Limit | ErrorKind::NotFound) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

#[async_trait]
impl ImageRegistry for CachedDocuments {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        self.registry.manifest(reference).await
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        if range.is_full()
            && let Some(content) = self.held(blob).await?
        {
            return Blob::from_bytes(blob, range, &content);
        }
        self.registry.blob(reference, blob, range).await
    }
}

impl fmt::Display for CachedDocuments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.registry.fmt(f)
    }
}
