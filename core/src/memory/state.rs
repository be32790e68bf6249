//! What a cache in memory holds.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::OwnedMutexGuard;

use crate::block_sums::BlockSums;
use crate::cache::{ArtifactProof, KeptArtifact, NameTable};
use crate::{ArtifactKey, Descriptor, Digest, Error, LocalArtifact, Made, Reference, Result};

/// A [`CacheProvider`](crate::CacheProvider) in memory. Clones share content; the last one removes the artifacts.
#[derive(Clone, Debug)]
pub struct MemoryCache(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Held by a collection alone; by leases and changes of names for a moment.
    pub(super) gate: tokio::sync::RwLock<()>,
    artifacts: Folder,
}

/// Where artifacts are made, and what removes it.
enum Folder {
    Given(Box<dyn AsRef<Path> + Send + Sync>),
    /// Made with the first one: a cache that has none leaves nothing when its process is killed.
    Own(OnceLock<TempDir>),
}

#[derive(Default)]
pub(super) struct State {
    pub(super) blobs: HashMap<Digest, Bytes>,
    pub(super) partial: HashMap<Digest, (Vec<u8>, SystemTime)>,
    pub(super) names: NameTable,
    pub(super) made: HashMap<ArtifactKey, Kept>,
    /// When each blob was stored or used last.
    pub(super) used: HashMap<Digest, SystemTime>,
    /// What is protected, by a number for each lease.
    pub(super) leases: BTreeMap<u64, Vec<Digest>>,
    pub(super) next_lease: u64,
    /// One lock for each thing being written; an entry is kept until the cache is dropped.
    pub(super) writers: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
}

/// A finished artifact.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) made: Made,
    /// When it was written to last.
    pub(super) modified: Option<SystemTime>,
    pub(super) sums: BlockSums,
}

impl Kept {
    pub(super) fn to_verify((key, kept): (&ArtifactKey, &Self)) -> KeptArtifact {
        let size = std::fs::metadata(&kept.path).map_or(kept.size, |found| found.len());
        let file = LocalArtifact::new(kept.path.clone(), size, Made::default());
        let proof = ArtifactProof::Blocks(kept.sums.clone());
        KeptArtifact { key: key.clone(), file: Box::new(file), proof }
    }

    pub(super) fn handle(&self) -> LocalArtifact {
        LocalArtifact::of_checksum(self.path.clone(), self.size, self.made.clone(), self.sums.checksum())
    }

    /// Whether nothing was written to it since, such as through a hard link.
    pub(super) fn is_unchanged(&self) -> bool {
        let found = std::fs::metadata(&self.path);
        found.is_ok_and(|found| found.len() == self.size && found.modified().ok() == self.modified)
    }
}

impl MemoryCache {
    /// An empty cache, which makes a temporary folder for its artifacts with the first one.
    ///
    /// # Errors
    /// None so far.
    pub fn new() -> Result<Self> {
        Ok(Self::of(Folder::Own(OnceLock::new())))
    }

    /// An empty cache whose artifacts are made in a folder, in files `.plyfold-tmp-…`. The value is dropped with the last
    /// clone: it may remove the folder then.
    pub fn within(folder: impl AsRef<Path> + Send + Sync + 'static) -> Self {
        Self::of(Folder::Given(Box::new(folder)))
    }

    fn of(artifacts: Folder) -> Self {
        let (state, gate) = (Mutex::default(), tokio::sync::RwLock::default());
        Self(Arc::new(Shared { state, gate, artifacts }))
    }

    /// Stores content under a digest that it may not hash to: a test may want damage. Reading it fails.
    pub fn insert_blob(&self, digest: Digest, content: impl Into<Bytes>) {
        self.0.lock().store(digest, content.into());
    }

    /// Points a name to content that may be missing: a test may want that.
    pub fn insert_name(&self, name: &Reference, descriptor: Descriptor) {
        self.0.lock().names.set(name, descriptor);
    }

    pub(super) async fn writer(&self, key: String) -> OwnedMutexGuard<()> {
        let lock = self.0.lock().writers.entry(key).or_default().clone();
        lock.lock_owned().await
    }
}

impl State {
    pub(super) fn store(&mut self, digest: Digest, content: Bytes) {
        self.used.insert(digest.clone(), SystemTime::now());
        self.blobs.insert(digest, content);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryCache")
    }
}

impl Shared {
    /// The folder that artifacts are made in.
    pub(super) fn folder(&self) -> Result<&Path> {
        let own = match &self.artifacts {
            Folder::Given(folder) => return Ok((**folder).as_ref()),
            Folder::Own(own) => own,
        };
        if let Some(folder) = own.get() {
            return Ok(folder.path());
        }
        let folder = tempfile::Builder::new().prefix(".plyfold-tmp-").tempdir();
        let folder = folder.map_err(|e| Error::io("making a temporary folder", e))?;
        // Of two that are made at the same time the second one is removed.
        Ok(own.get_or_init(|| folder).path())
    }

    /// A folder on the same disk, without making one.
    pub(super) fn scratch(&self) -> PathBuf {
        match &self.artifacts {
            Folder::Given(folder) => (**folder).as_ref().to_owned(),
            Folder::Own(own) => own.get().map_or_else(std::env::temp_dir, |folder| folder.path().to_owned()),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one insertion or removal, so a poisoned lock is consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
