//! A store that is not there yet.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use plyfold_layout::Store;

use crate::blocking::blocking;
use crate::cache::{CachedNames, Collect, Collected, Ingest, Lease, NameChange, Usage, Verified, Verify};
use crate::memory::MemoryCache;
use crate::{
    Artifact, ArtifactHandle, ArtifactKey, Blob, BlobRange, CacheProvider, Descriptor, Digest, Error, Page,
    Reference, Result,
};

/// A store where none is: as empty as a new one, and made when something is stored in it.
#[derive(Clone, Debug)]
pub(crate) struct StoreToMake {
    path: PathBuf,
    empty: MemoryCache,
    made: Arc<Made>,
}

#[derive(Debug, Default)]
struct Made {
    store: OnceLock<Store>,
    making: Mutex<()>,
}

impl StoreToMake {
    pub(crate) fn at(path: &Path) -> Result<Self> {
        let absolute = std::path::absolute(path);
        let path = absolute.map_err(|e| Error::io(format!("finding {}", path.display()), e))?;
        Ok(Self { path, empty: MemoryCache::new()?, made: Arc::default() })
    }

    /// What is there.
    fn there(&self) -> &dyn CacheProvider {
        match self.made.store.get() {
            Some(store) => store,
            None => &self.empty,
        }
    }

    async fn made(&self) -> Result<Store> {
        if let Some(store) = self.made.store.get() {
            return Ok(store.clone());
        }
        let this = self.clone();
        blocking(move |_| this.make()).await
    }

    /// Makes the store, once.
    fn make(&self) -> Result<Store> {
        let _making = self.made.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = self.made.store.get() {
            return Ok(store.clone());
        }
        let store = Store::open(&self.path)?;
        Ok(self.made.store.get_or_init(|| store).clone())
    }
}

plyfold_core::forward_cache! {
    StoreToMake, |store| store.there();
    async stat(digest: &Digest) -> Result<Option<u64>>;
    async is_away(digest: &Digest) -> Result<bool>;
    async open(blob: &Descriptor, range: BlobRange) -> Result<Blob>;
    async partial(digest: &Digest) -> Result<u64>;
    async quarantine(digest: &Digest) -> Result<()>;
    async find_descriptor(reference: &Reference) -> Result<Option<Descriptor>>;
    async list() -> Result<Vec<(Reference, Descriptor)>>;
    async find_artifact(key: &ArtifactKey) -> Result<Option<Box<dyn ArtifactHandle>>>;
    async single_flight(work: &str) -> Result<Lease>;
    async pins() -> Result<Vec<Reference>>;
    async usage() -> Result<Usage>;
    async collect(policy: &Collect) -> Result<Collected>;
    async verify(what: &Verify) -> Result<Verified>;
    async list_page(page: &Page) -> Result<CachedNames>;
    async settle() -> ();
    sync is_read_only() -> bool;
    {
        async fn ingest(&self, blob: &Descriptor) -> Result<Ingest> {
            self.made().await?.ingest(blob).await
        }

        async fn update(&self, changes: &[NameChange]) -> Result<()> {
            self.made().await?.update(changes).await
        }

        async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
            self.made().await?.artifact(key).await
        }

        // Of content that is to be stored: until then it is missing.
        async fn lease(&self, content: &[Digest]) -> Result<Lease> {
            self.made().await?.lease(content).await
        }

        // Asked for what is to be stored.
        async fn free(&self) -> Result<Option<u64>> {
            self.made().await?.free().await
        }

        fn layout(&self) -> Option<&Path> {
            Some(&self.path)
        }

        // Asked for by what writes temporary files there.
        fn scratch(&self) -> Option<PathBuf> {
            self.make().ok()?.scratch()
        }
    }
}

impl fmt::Display for StoreToMake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}", self.path.display())
    }
}
