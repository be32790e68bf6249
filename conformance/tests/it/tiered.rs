//! Two tiers keep every rule of a cache.

use std::fmt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use plyfold_conformance::{CacheFixture, CacheMedium, CacheUnderTest, cache_suite};
use plyfold_core::memory::MemoryCache;
use plyfold_core::{
    Artifact, ArtifactHandle, ArtifactKey, Blob, BlobRange, CacheProvider, CachedNames, Collect, Collected,
    Descriptor, Digest, Ingest, Lease, NameChange, Page, Reference, Result, Tiered, Usage, Verified, Verify,
};

/// Two tiers in memory. What is done to the content of a cache as a whole is done to both.
#[derive(Clone, Debug)]
struct Tiers(Tiered);

plyfold_core::forward_cache! {
    Tiers, |tiers| tiers.0;
    async stat(digest: &Digest) -> Result<Option<u64>>;
    async is_away(digest: &Digest) -> Result<bool>;
    async open(blob: &Descriptor, range: BlobRange) -> Result<Blob>;
    async ingest(blob: &Descriptor) -> Result<Ingest>;
    async partial(digest: &Digest) -> Result<u64>;
    async find_descriptor(reference: &Reference) -> Result<Option<Descriptor>>;
    async list() -> Result<Vec<(Reference, Descriptor)>>;
    async update(changes: &[NameChange]) -> Result<()>;
    async artifact(key: &ArtifactKey) -> Result<Artifact>;
    async find_artifact(key: &ArtifactKey) -> Result<Option<Box<dyn ArtifactHandle>>>;
    async lease(content: &[Digest]) -> Result<Lease>;
    async single_flight(work: &str) -> Result<Lease>;
    async free() -> Result<Option<u64>>;
    async pins() -> Result<Vec<Reference>>;
    async usage() -> Result<Usage>;
    async list_page(page: &Page) -> Result<CachedNames>;
    async settle() -> ();
    sync layout() -> Option<&Path>;
    sync scratch() -> Option<PathBuf>;
    sync is_read_only() -> bool;
    {
        async fn quarantine(&self, digest: &Digest) -> Result<()> {
            self.0.far().quarantine(digest).await?;
            self.0.quarantine(digest).await
        }

        async fn collect(&self, policy: &Collect) -> Result<Collected> {
            let collected = self.0.near().collect(policy).await?;
            let evicted: Vec<_> = collected.evicted.iter().cloned().map(NameChange::Remove).collect();
            self.0.far().update(&evicted).await?;
            self.0.far().collect(&Collect { budget: None, ..policy.clone() }).await?;
            Ok(collected)
        }

        async fn verify(&self, what: &Verify) -> Result<Verified> {
            self.0.far().verify(what).await?;
            self.0.near().verify(what).await
        }
    }
}

impl fmt::Display for Tiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The media of both.
#[derive(Clone, Debug)]
struct Media {
    near: MemoryCache,
    far: MemoryCache,
}

impl Media {
    fn tiers(&self) -> Box<dyn CacheProvider> {
        Box::new(Tiers(Tiered::new(Box::new(self.near.clone()), Box::new(self.far.clone()))))
    }
}

#[async_trait]
impl CacheMedium for Media {
    async fn reopen(&self) -> Result<Box<dyn CacheProvider>> {
        Ok(self.tiers())
    }

    fn damage(&self, digest: &Digest, content: &[u8]) {
        for tier in [&self.near, &self.far] {
            tier.insert_blob(digest.clone(), content.to_vec());
        }
    }

    async fn damage_artifact(&self, key: &ArtifactKey, content: &[u8]) -> bool {
        for tier in [&self.near, &self.far] {
            let Ok(Some(found)) = tier.find_artifact(key).await else { return false };
            std::fs::write(found.path().expect("a file"), content).expect("it is written");
        }
        true
    }

    fn leftovers(&self) -> Vec<String> {
        Vec::new()
    }
}

struct Fixture;

#[async_trait]
impl CacheFixture for Fixture {
    async fn open(&self) -> CacheUnderTest {
        let made = || MemoryCache::new().expect("a temporary directory can be made");
        let media = Media { near: made(), far: made() };
        CacheUnderTest::new(media.tiers(), media)
    }

    /// Nothing of it outlasts the process.
    fn not_judged(&self) -> &'static [&'static str] {
        &["what_is_stored_outlasts_the_process"]
    }
}

cache_suite!(Fixture);
