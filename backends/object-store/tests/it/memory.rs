//! The suite on objects in memory.

use async_trait::async_trait;
use plyfold_conformance::{CacheFixture, CacheUnderTest};

use crate::medium::Medium;

/// Buckets in memory.
struct Memory;

#[async_trait]
impl CacheFixture for Memory {
    async fn open(&self) -> CacheUnderTest {
        Medium::memory().under_test().await
    }

    fn not_judged(&self) -> &'static [&'static str] {
        // Its artifacts are no files of this machine, and an interrupted download begins again.
        &["a_changed_artifact_is_made_again", "partial_downloads_are_counted_and_dropped"]
    }
}

plyfold_conformance::cache_suite!(Memory);
