//! A cache that writes down what it is asked, takes turns, and has as much room as a test wants.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use plyfold_core::memory::MemoryCache;
use plyfold_core::{
    Artifact, ArtifactKey, Blob, BlobRange, CacheProvider, Descriptor, Digest, Error, ErrorKind, Ingest,
    Lease, NameChange, Reference, Result, Verified, Verify, cache::verify_names,
};

/// What a [`Watched`] cache was asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Asked {
    Ingest(Digest),
    Lease(Vec<Digest>),
    Open(Digest),
    Stat(Digest),
    Turn(String),
    /// With the number of leases that were held.
    Update(usize),
}

/// What fails from now on, and how.
type Failure = (fn(&Asked) -> bool, io::ErrorKind);

/// A blob that goes away when something is asked, and how often.
struct Losing {
    digest: Digest,
    times: usize,
    at: Box<dyn Fn(&Asked) -> bool + Send>,
}

#[derive(Clone)]
pub(crate) struct Watched {
    inner: MemoryCache,
    pub(crate) log: Arc<Mutex<Vec<Asked>>>,
    leases: Arc<AtomicUsize>,
    free: Arc<AtomicU64>,
    losing: Arc<Mutex<Option<Losing>>>,
    stale: Arc<Mutex<Option<(Digest, Bytes)>>>,
    turns: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
    moving: Arc<Mutex<Option<NameChange>>>,
    failing: Arc<Mutex<Option<Failure>>>,
    unreachable: Arc<Mutex<Option<Digest>>>,
}

impl Watched {
    pub(crate) fn new() -> Self {
        Self::over(MemoryCache::new().unwrap())
    }

    pub(crate) fn over(inner: MemoryCache) -> Self {
        Self {
            inner,
            log: Arc::default(),
            leases: Arc::default(),
            free: Arc::new(AtomicU64::new(u64::MAX)),
            losing: Arc::default(),
            stale: Arc::default(),
            turns: Arc::default(),
            moving: Arc::default(),
            failing: Arc::default(),
            unreachable: Arc::default(),
        }
    }

    /// The memory behind it, to damage things.
    pub(crate) fn inner(&self) -> &MemoryCache {
        &self.inner
    }

    pub(crate) fn set_free(&self, bytes: u64) {
        self.free.store(bytes, Ordering::Relaxed);
    }

    /// Loses a blob at the moment when the next lease is taken, as to a collection that was faster.
    pub(crate) fn lose_at_lease(&self, digest: &Digest) {
        self.lose(digest, 1, |asked| matches!(asked, Asked::Lease(_)));
    }

    /// Loses a blob just before such questions are answered, as to a repair by another process.
    pub(crate) fn lose(&self, digest: &Digest, times: usize, at: impl Fn(&Asked) -> bool + Send + 'static) {
        *self.losing.lock().unwrap() = Some(Losing { digest: digest.clone(), times, at: Box::new(at) });
    }

    /// Yields this content once, as a reader sees it that opened it before it was replaced.
    pub(crate) fn open_stale(&self, digest: &Digest, content: Bytes) {
        *self.stale.lock().unwrap() = Some((digest.clone(), content));
    }

    /// Changes a name as soon as the next question about a name is answered, as another process may.
    pub(crate) fn move_after_find(&self, change: NameChange) {
        *self.moving.lock().unwrap() = Some(change);
    }

    /// Fails from now on when it is asked for such things, as a disk or this process's limits make it.
    pub(crate) fn fail(&self, at: fn(&Asked) -> bool, kind: io::ErrorKind) {
        *self.failing.lock().unwrap() = Some((at, kind));
    }

    /// Does not answer from now on when it is asked for this content, as a cache beyond a network.
    pub(crate) fn lose_touch(&self, content: &Digest) {
        *self.unreachable.lock().unwrap() = Some(content.clone());
    }

    /// Leases that are held now.
    pub(crate) fn leases(&self) -> usize {
        self.leases.load(Ordering::Relaxed)
    }

    /// What was asked since the last call.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    async fn note(&self, asked: Asked) {
        let lost = self.losing.lock().unwrap().as_mut().and_then(|losing| {
            let is_due = losing.times > 0 && (losing.at)(&asked);
            losing.times -= usize::from(is_due);
            is_due.then(|| losing.digest.clone())
        });
        self.log.lock().unwrap().push(asked);
        if let Some(lost) = lost {
            self.inner.quarantine(&lost).await.unwrap();
        }
    }

    fn failed(&self, asked: &Asked) -> Result<()> {
        match *self.failing.lock().unwrap() {
            Some((at, kind)) if at(asked) => Err(Error::io("looking at the disk", kind.into())),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl CacheProvider for Watched {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        self.note(Asked::Stat(digest.clone())).await;
        self.failed(&Asked::Stat(digest.clone()))?;
        self.inner.stat(digest).await
    }

    async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.note(Asked::Open(blob.digest().clone())).await;
        self.failed(&Asked::Open(blob.digest().clone()))?;
        if self.unreachable.lock().unwrap().as_ref() == Some(blob.digest()) {
            return Err(Error::new(ErrorKind::Unavailable, "the service does not answer"));
        }
        let stale = self.stale.lock().unwrap().take_if(|(digest, _)| digest == blob.digest());
        if let Some((_, content)) = stale {
            return Blob::from_bytes(blob, range, &content);
        }
        self.inner.open(blob, range).await
    }

    async fn ingest(&self, blob: &Descriptor) -> Result<Ingest> {
        self.note(Asked::Ingest(blob.digest().clone())).await;
        self.inner.ingest(blob).await
    }

    async fn partial(&self, digest: &Digest) -> Result<u64> {
        self.inner.partial(digest).await
    }

    async fn quarantine(&self, digest: &Digest) -> Result<()> {
        self.inner.quarantine(digest).await
    }

    async fn find_descriptor(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        let found = self.inner.find_descriptor(reference).await;
        // As on a disk, others come in between.
        tokio::task::yield_now().await;
        let change = self.moving.lock().unwrap().take();
        if let Some(change) = change {
            self.inner.update(&[change]).await?;
        }
        found
    }

    async fn verify(&self, what: &Verify) -> Result<Verified> {
        verify_names(self, what).await
    }

    async fn list(&self) -> Result<Vec<(Reference, Descriptor)>> {
        self.inner.list().await
    }

    async fn update(&self, changes: &[NameChange]) -> Result<()> {
        self.note(Asked::Update(self.leases())).await;
        self.inner.update(changes).await
    }

    async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
        self.inner.artifact(key).await
    }

    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        self.note(Asked::Lease(content.to_vec())).await;
        self.leases.fetch_add(1, Ordering::Relaxed);
        Ok(Lease::new(Counted(self.leases.clone())))
    }

    async fn single_flight(&self, work: &str) -> Result<Lease> {
        self.note(Asked::Turn(work.to_owned())).await;
        let lock = self.turns.lock().unwrap().entry(work.to_owned()).or_default().clone();
        Ok(Lease::new(Mutex::new(lock.lock_owned().await)))
    }

    async fn free(&self) -> Result<Option<u64>> {
        Ok(Some(self.free.load(Ordering::Relaxed)))
    }
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("watched")
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}
