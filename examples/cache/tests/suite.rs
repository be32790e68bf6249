//! The suite that every cache runs: here is all that this one needs to tell it.

use async_trait::async_trait;
use example_cache::BucketCache;
use plyfold_conformance::{CacheFixture, CacheMedium, CacheUnderTest, cache_suite};
use plyfold_core::{ArtifactKey, CacheProvider, Digest, Result};

cache_suite!(Buckets);

/// Opens buckets.
struct Buckets;

#[async_trait]
impl CacheFixture for Buckets {
    async fn open(&self) -> CacheUnderTest {
        let cache = BucketCache::default();
        CacheUnderTest::new(Box::new(cache.clone()), Medium(cache))
    }

    fn not_judged(&self) -> &'static [&'static str] {
        // Its artifacts are no files, a download that is interrupted begins again, and the bucket is memory here.
        &[
            "a_changed_artifact_is_made_again",
            "partial_downloads_are_counted_and_dropped",
            "what_is_stored_outlasts_the_process",
        ]
    }
}

/// The way behind a bucket's back.
#[derive(Debug)]
struct Medium(BucketCache);

#[async_trait]
impl CacheMedium for Medium {
    async fn reopen(&self) -> Result<Box<dyn CacheProvider>> {
        Ok(Box::new(self.0.clone()))
    }

    fn damage(&self, digest: &Digest, content: &[u8]) {
        self.0.insert_blob(digest.clone(), content);
    }

    async fn damage_artifact(&self, key: &ArtifactKey, content: &[u8]) -> bool {
        self.0.damage_artifact(key, content)
    }

    fn leftovers(&self) -> Vec<String> {
        Vec::new()
    }
}
