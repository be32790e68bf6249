//! Core's own backend and cache in memory: the suite's first subjects.

use async_trait::async_trait;
use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::{CacheProvider, Digest, Result, reference};

use crate::{CacheMedium, CacheStage, CacheSubject, Stage, Staged, Subject};

/// [`MemoryRegistry`] and [`MemoryCache`].
#[derive(Clone, Copy, Debug)]
pub struct Memory;

#[async_trait]
impl Stage for Memory {
    async fn open(&self, images: &[Staged<'_>]) -> Subject {
        let registry = MemoryRegistry::new("conformance");
        for image in images {
            fill(&registry, image);
        }
        let references = images.iter().map(|image| image.reference.clone()).collect();
        Subject::new(Box::new(registry), references, ())
    }

    fn not_judged(&self) -> &'static [&'static str] {
        &[
            "io_error_kept_as_source",
            "multi_image_archive_enumerates_and_selects",
            "not_found_vs_unauthorized_vs_denied_vs_unavailable",
            "rate_limited_carries_delay_in_all_three_shapes",
            "retryable_flag_consistent",
        ]
    }
}

/// Stores a sample as it is, and tags its top document.
pub(crate) fn fill(registry: &MemoryRegistry, image: &Staged<'_>) {
    for blob in &image.sample.blobs {
        let (digest, media_type) = (blob.descriptor.digest(), blob.descriptor.media_type().clone());
        if !blob.is_manifest() {
            registry.insert_blob(&image.reference, digest.clone(), blob.bytes.clone());
        } else if blob.descriptor == image.sample.top {
            registry.insert_manifest(&image.reference, media_type, digest, blob.bytes.clone());
        } else {
            let by_digest = reference::by_digest(&image.reference, digest);
            registry.insert_manifest(&by_digest, media_type, digest, blob.bytes.clone());
        }
    }
}

#[async_trait]
impl CacheStage for Memory {
    async fn open(&self) -> CacheSubject {
        let cache = MemoryCache::new().expect("a temporary directory can be made");
        CacheSubject::new(Box::new(cache.clone()), cache)
    }
}

#[async_trait]
impl CacheMedium for MemoryCache {
    async fn reopen(&self) -> Result<Box<dyn CacheProvider>> {
        Ok(Box::new(self.clone()))
    }

    fn damage(&self, digest: &Digest, content: &[u8]) {
        self.insert_blob(digest.clone(), content.to_vec());
    }

    fn leftovers(&self) -> Vec<String> {
        Vec::new()
    }
}
