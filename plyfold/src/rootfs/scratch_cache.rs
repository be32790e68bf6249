//! Layers' images of a cache that cannot be written.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use plyfold_core::memory::MemoryCache;
use plyfold_core::{
    Artifact, ArtifactHandle, ArtifactKey, Blob, BlobRange, CacheProvider, CachedNames, Collect, Collected,
    Descriptor, Digest, Error, Ingest, Lease, NameChange, Page, Reference, Result, Usage, Verified, Verify,
};

use super::set::{folder_for, folder_in};

/// A cache whose missing artifacts are made in another folder, each once. They go away with the last clone.
#[derive(Clone, Debug)]
pub(super) struct ScratchCache {
    cache: Box<dyn CacheProvider>,
    made: MemoryCache,
}

impl ScratchCache {
    /// The folder lies where the set of `out` will wait, so that what is made in it can be linked from there.
    pub(super) fn beside(cache: Box<dyn CacheProvider>, out: &Path) -> Result<Self> {
        let out = std::path::absolute(out).map_err(|e| Error::io("finding the output directory", e))?;
        Ok(Self { cache, made: MemoryCache::within(folder_for(&out)?) })
    }

    /// The folder is a new one in `parent`.
    pub(super) fn within(cache: Box<dyn CacheProvider>, parent: &Path) -> Result<Self> {
        Ok(Self { cache, made: MemoryCache::within(folder_in(parent)?) })
    }
}

plyfold_core::forward_cache! {
    ScratchCache, |around| around.cache;
    async stat(digest: &Digest) -> Result<Option<u64>>;
    async is_away(digest: &Digest) -> Result<bool>;
    async open(blob: &Descriptor, range: BlobRange) -> Result<Blob>;
    async ingest(blob: &Descriptor) -> Result<Ingest>;
    async partial(digest: &Digest) -> Result<u64>;
    async quarantine(digest: &Digest) -> Result<()>;
    async find_descriptor(name: &Reference) -> Result<Option<Descriptor>>;
    async list() -> Result<Vec<(Reference, Descriptor)>>;
    async update(changes: &[NameChange]) -> Result<()>;
    async lease(content: &[Digest]) -> Result<Lease>;
    async single_flight(work: &str) -> Result<Lease>;
    async free() -> Result<Option<u64>>;
    async pins() -> Result<Vec<Reference>>;
    async usage() -> Result<Usage>;
    async collect(policy: &Collect) -> Result<Collected>;
    async verify(what: &Verify) -> Result<Verified>;
    async list_page(page: &Page) -> Result<CachedNames>;
    async settle() -> ();
    sync layout() -> Option<&Path>;
    {
        async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
            match self.cache.artifact(key).await {
                Ok(present @ Artifact::Present(_)) => Ok(present),
                // A missing artifact is an error: nothing can be made in the cache.
                Err(e) if !is_read_only(&e) => Err(e),
                _ => self.made.artifact(key).await,
            }
        }

        async fn find_artifact(&self, key: &ArtifactKey) -> Result<Option<Box<dyn ArtifactHandle>>> {
            match self.cache.find_artifact(key).await? {
                None => self.made.find_artifact(key).await,
                found => Ok(found),
            }
        }

        fn scratch(&self) -> Option<PathBuf> {
            self.made.scratch()
        }

        fn is_read_only(&self) -> bool {
            true
        }
    }
}

impl fmt::Display for ScratchCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cache.fmt(f)
    }
}

/// Whether an error says that nothing can be written there.
fn is_read_only(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    let read_only = [io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied];
    source.is_some_and(|source| read_only.contains(&source.kind()))
}
