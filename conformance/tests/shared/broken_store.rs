//! Stores with one fault: everything is the store's own but what the fault changes. Part of several test binaries.

use std::fmt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use plyfold_core::cache::CachedNames;
use plyfold_core::{
    Artifact, ArtifactHandle, ArtifactKey, Blob, BlobRange, CacheProvider, Collect, Collected, Descriptor,
    Digest, Ingest, Lease, NameChange, Page, Reference, Result, Usage, Verified, Verify,
};
use plyfold_layout::Store;

/// What a fault changes.
#[async_trait]
pub(crate) trait StoreFault: Copy + fmt::Debug + Send + Sync + 'static {
    async fn open(self, store: &Store, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        store.open(blob, range).await
    }

    async fn ingest(self, store: &Store, blob: &Descriptor) -> Result<Ingest> {
        store.ingest(blob).await
    }

    async fn find_descriptor(self, store: &Store, name: &Reference) -> Result<Option<Descriptor>> {
        store.find_descriptor(name).await
    }

    async fn update(self, store: &Store, changes: &[NameChange]) -> Result<()> {
        store.update(changes).await
    }

    async fn collect(self, store: &Store, policy: &Collect) -> Result<Collected> {
        store.collect(policy).await
    }
}

/// A store with a fault.
#[derive(Clone, Debug)]
pub(crate) struct BrokenStore<F> {
    pub(crate) inner: Store,
    pub(crate) fault: F,
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<F: StoreFault> CacheProvider for BrokenStore<F> {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        self.inner.stat(digest).await
    }

    async fn is_away(&self, digest: &Digest) -> Result<bool> {
        self.inner.is_away(digest).await
    }

    async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.fault.open(&self.inner, blob, range).await
    }

    async fn ingest(&self, blob: &Descriptor) -> Result<Ingest> {
        self.fault.ingest(&self.inner, blob).await
    }

    async fn partial(&self, digest: &Digest) -> Result<u64> {
        self.inner.partial(digest).await
    }

    async fn quarantine(&self, digest: &Digest) -> Result<()> {
        self.inner.quarantine(digest).await
    }

    async fn find_descriptor(&self, name: &Reference) -> Result<Option<Descriptor>> {
        self.fault.find_descriptor(&self.inner, name).await
    }

    async fn list(&self) -> Result<Vec<(Reference, Descriptor)>> {
        self.inner.list().await
    }

    async fn update(&self, changes: &[NameChange]) -> Result<()> {
        self.fault.update(&self.inner, changes).await
    }

    async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
        self.inner.artifact(key).await
    }

    async fn find_artifact(&self, key: &ArtifactKey) -> Result<Option<Box<dyn ArtifactHandle>>> {
        self.inner.find_artifact(key).await
    }

    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        self.inner.lease(content).await
    }

    async fn single_flight(&self, work: &str) -> Result<Lease> {
        self.inner.single_flight(work).await
    }

    async fn free(&self) -> Result<Option<u64>> {
        self.inner.free().await
    }

    async fn pins(&self) -> Result<Vec<Reference>> {
        self.inner.pins().await
    }

    async fn usage(&self) -> Result<Usage> {
        self.inner.usage().await
    }

    async fn collect(&self, policy: &Collect) -> Result<Collected> {
        self.fault.collect(&self.inner, policy).await
    }

    async fn verify(&self, what: &Verify) -> Result<Verified> {
        self.inner.verify(what).await
    }

    async fn list_page(&self, page: &Page) -> Result<CachedNames> {
        self.inner.list_page(page).await
    }

    async fn settle(&self) {
        self.inner.settle().await;
    }

    fn layout(&self) -> Option<&Path> {
        self.inner.layout()
    }

    fn scratch(&self) -> Option<PathBuf> {
        self.inner.scratch()
    }

    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }
}

impl<F: fmt::Debug> fmt::Display for BrokenStore<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mutant {:?}", self.fault)
    }
}
