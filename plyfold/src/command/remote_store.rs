//! A cache that is opened when it is needed: a fleet behind the store, or a store that is not there yet.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::store_place::with_options;
use crate::cache::{CachedNames, Collect, Collected, Ingest, Lease, NameChange, Usage, Verified, Verify};
use crate::memory::MemoryCache;
use crate::{
    Artifact, ArtifactHandle, ArtifactKey, Blob, BlobRange, CacheProvider, Caches, Descriptor, Digest, Error,
    ErrorKind, Options, Page, Reference, Result,
};

/// The longest wait for a fleet to open: what it has can be had elsewhere.
const PATIENCE: Duration = Duration::from_secs(5);

/// A cache that a URI names. No request is made before it is asked for something. Where none is there, it is as empty as a
/// new one, and made when something is stored in it.
#[derive(Clone, Debug)]
pub(crate) struct RemoteStore {
    uri: Arc<str>,
    caches: Caches,
    options: Options,
    patience: Option<Duration>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    there: OnceLock<Box<dyn CacheProvider>>,
    /// In place of one that is not there.
    empty: MemoryCache,
    opening: Mutex<Opening>,
}

/// What is known of a cache that is not open.
#[derive(Debug, Default)]
struct Opening {
    is_absent: bool,
    /// When it could not be opened.
    failed: Option<Instant>,
}

impl RemoteStore {
    /// A fleet.
    pub(crate) fn fleet(uri: &str, caches: Caches, options: Options) -> Result<Self> {
        Self::new(uri, caches, options, Some(PATIENCE), false)
    }

    /// A store that is not there.
    pub(crate) fn absent(uri: &str, caches: Caches, options: Options) -> Result<Self> {
        Self::new(uri, caches, options, None, true)
    }

    fn new(
        uri: &str,
        caches: Caches,
        options: Options,
        patience: Option<Duration>,
        is_absent: bool,
    ) -> Result<Self> {
        let opening = Mutex::new(Opening { is_absent, failed: None });
        let state = State { there: OnceLock::new(), empty: MemoryCache::new()?, opening };
        let uri = uri.trim_end_matches('/').into();
        Ok(Self { uri, caches, options, patience, state: Arc::new(state) })
    }

    /// What is there, to read from.
    async fn there(&self) -> Result<&dyn CacheProvider> {
        Ok(self.opened(false).await?.unwrap_or(&self.state.empty))
    }

    /// What is there, to store in.
    async fn made(&self) -> Result<&dyn CacheProvider> {
        let absent = || Error::not_found("there is no cache").with_endpoint(self);
        self.opened(true).await?.ok_or_else(absent)
    }

    /// The cache; `None` where none is there and none is to be made.
    async fn opened(&self, makes: bool) -> Result<Option<&dyn CacheProvider>> {
        let began = Instant::now();
        if let Some(there) = self.state.there.get() {
            return Ok(Some(&**there));
        }
        let mut opening = self.state.opening.lock().await;
        if let Some(there) = self.state.there.get() {
            return Ok(Some(&**there));
        }
        if opening.is_absent && !makes {
            return Ok(None);
        }
        // Of tasks that ask at the same time one waits.
        if opening.failed.is_some_and(|failed| failed >= began) {
            let error = Error::new(ErrorKind::Unavailable, "it could not be opened a moment ago");
            return Err(error.with_endpoint(self));
        }
        match self.open(makes).await {
            Ok(there) => Ok(Some(&**self.state.there.get_or_init(|| there))),
            Err(e) if *e.kind() == ErrorKind::NotFound && !makes => {
                opening.is_absent = true;
                Ok(None)
            }
            Err(e) => {
                opening.failed = Some(Instant::now());
                Err(e)
            }
        }
    }

    async fn open(&self, makes: bool) -> Result<Box<dyn CacheProvider>> {
        let opening = async {
            let opened = if makes {
                self.caches.open(&self.uri, &self.options).await
            } else {
                self.caches.open_existing(&self.uri, &self.options).await
            };
            opened.map_err(with_options)
        };
        let Some(patience) = self.patience else { return opening.await };
        let late = |_| {
            let message = format!("no answer for {}s", patience.as_secs());
            Error::new(ErrorKind::Timeout, message).with_endpoint(self)
        };
        tokio::time::timeout(patience, opening).await.map_err(late)?
    }
}

plyfold_core::forward_cache! {
    RemoteStore, |store| store.there().await?;
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

        async fn settle(&self) {
            if let Some(there) = self.state.there.get() {
                there.settle().await;
            }
        }

        fn layout(&self) -> Option<&Path> {
            None
        }

        fn scratch(&self) -> Option<PathBuf> {
            self.state.there.get()?.scratch()
        }

        fn is_read_only(&self) -> bool {
            self.state.there.get().is_some_and(CacheProvider::is_read_only)
        }
    }
}

impl fmt::Display for RemoteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}
