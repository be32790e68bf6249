//! Mutants of a cache.

mod artifact;
mod client;
mod collect;
mod names;
mod writer;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use plyfold_conformance::{CacheFixture, CacheMedium, CacheUnderTest};
use plyfold_core::cache::{CachedNames, DamagedPart};
use plyfold_core::memory::MemoryCache;
use plyfold_core::{
    Artifact, ArtifactHandle, ArtifactKey, Blob, BlobRange, CacheProvider, Collect, Collected, Descriptor,
    Digest, Error, Ingest, Lease, NameChange, Page, Reference, Result, Usage, Verified, Verify, reference,
};

use self::client::BrokenPull;
use self::writer::BrokenWriter;

/// What is wrong with a mutant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CacheFault {
    AbsenceIsError,
    AlwaysAsks,
    ArtifactsAppended,
    ArtifactsForgotten,
    ArtifactsMisnamed,
    ArtifactsReadFromTheStart,
    ArtifactsUnverified,
    ChangedArtifactsTrusted,
    ChildrenUnknown,
    CollectsInFlight,
    CollectsLeased,
    CollectsReferrers,
    ContentUnverified,
    ContentsMixed,
    CountsTwice,
    DamageKept,
    DanglingKept,
    DeltaBlobsForgotten,
    DigestUnchecked,
    DroppedArtifactsPublished,
    DroppedWriterKeepsTurn,
    EditNamesEarly,
    EditReserialises,
    EditStamped,
    EndUnsaid,
    EvictsNewest,
    EvictsPinned,
    ExistenceLies,
    FetchesAll,
    FetchesOnAnyError,
    FirstNameStays,
    FollowsUrls,
    Forgetful,
    FormatsMixed,
    HandlesIgnoreEachOther,
    HitsUnconfirmed,
    IndexInOrder,
    IndexesCollected,
    KeyedByText,
    LayoutLies,
    LoadsInPieces,
    LooksWait,
    ListUnsorted,
    LosesUpdates,
    MadeByEach,
    NameAskedAgain,
    NamesTheManifest,
    NamesVanish,
    NamesWithoutContent,
    NothingIsRequired,
    NestedWriteFrees,
    NeverRefreshes,
    NoSingleFlight,
    None,
    NotesLost,
    NothingIsHere,
    OneLockForAll,
    OneMakerForAFormat,
    OneNameForEachDigest,
    OnePlatformLoaded,
    OptionsMixed,
    OutputsMixed,
    PagesRepeat,
    PagesStop,
    PartialsHidden,
    PartialsKept,
    PinsForgotten,
    PlatformIgnored,
    PublishesInPieces,
    PullsOutlive,
    PushRefuses,
    PushRewrites,
    RangesFromTheStart,
    ReaderLosesContent,
    ReadOnlyLies,
    RefusalsTellDigests,
    RemoveNeedsName,
    RemovesByDigest,
    RemovesContent,
    RepairsNothing,
    ReplacesAll,
    ReplacesSilently,
    RepositoriesMixed,
    ScratchLies,
    SizeUnchecked,
    TwoMakers,
    TwoWriters,
    VariantForgotten,
    VerifyIgnored,
    VerifyReadsNothing,
    VersionsMixed,
    VisibleBeforeCommit,
    WarnsBeforeAsking,
}

/// Caches in memory with one fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BrokenCaches(pub(crate) CacheFault);

#[async_trait]
impl CacheFixture for BrokenCaches {
    async fn open(&self) -> CacheUnderTest {
        let inner = MemoryCache::new().unwrap();
        let cache = BrokenCache { inner, fault: self.0, second: false, shared: Arc::default() };
        let mut subject = CacheUnderTest::new(Box::new(cache.clone()), cache);
        subject.client = Arc::new(BrokenPull(self.0));
        subject
    }

    fn patience(&self) -> Duration {
        match self.0 {
            CacheFault::None => Duration::from_secs(30),
            _ => Duration::from_secs(2),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct BrokenCache {
    inner: MemoryCache,
    fault: CacheFault,
    /// Whether this handle is not the first one.
    second: bool,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Every size that was ever stored.
    sizes: Mutex<HashMap<Digest, u64>>,
    /// Held by the one who does anything, in the mutant that knows one lock.
    everything: Arc<tokio::sync::Mutex<()>>,
    /// Writers that are open.
    open: AtomicUsize,
    /// Whether one writer has ended beside another.
    nested: AtomicBool,
    /// Artifacts that were made, with their sizes.
    made: Mutex<HashMap<ArtifactKey, Box<dyn ArtifactHandle>>>,
    /// How many collections there were.
    collections: AtomicUsize,
    /// How many times a name was looked for.
    looks: AtomicUsize,
}

impl BrokenCache {
    /// Whether writers are granted without a look at others.
    fn writers_are_free(&self) -> bool {
        match self.fault {
            CacheFault::TwoWriters => true,
            CacheFault::HandlesIgnoreEachOther => self.second,
            CacheFault::NestedWriteFrees => self.shared.nested.load(Ordering::SeqCst),
            _ => false,
        }
    }

    /// Waits until a reader that looks at a name first has seen what is here now: it may get no time for a while. Without
    /// a reader this ends.
    async fn until_seen(&self) {
        let looks = || self.shared.looks.load(Ordering::SeqCst);
        let before = looks();
        // One may have begun before; what a reader looks at next is looked at before the third.
        for _ in 0..250 {
            if looks() >= before + 3 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[async_trait]
impl CacheMedium for BrokenCache {
    async fn reopen(&self) -> Result<Box<dyn CacheProvider>> {
        Ok(Box::new(Self { second: true, ..self.clone() }))
    }

    async fn reopen_from_nothing(&self) -> Option<Result<Box<dyn CacheProvider>>> {
        if self.fault == CacheFault::PinsForgotten {
            for name in self.inner.pins().await.unwrap() {
                self.inner.update(&[NameChange::Unpin(name)]).await.unwrap();
            }
        }
        if self.fault == CacheFault::Forgetful {
            return Some(MemoryCache::new().map(|empty| Box::new(empty) as Box<dyn CacheProvider>));
        }
        Some(self.reopen().await)
    }

    fn damage(&self, digest: &Digest, content: &[u8]) {
        CacheMedium::damage(&self.inner, digest, content);
    }

    fn leftovers(&self) -> Vec<String> {
        CacheMedium::leftovers(&self.inner)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl CacheProvider for BrokenCache {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        let honest = self.inner.stat(digest).await?;
        match self.fault {
            CacheFault::AbsenceIsError if honest.is_none() => Err(Error::not_found("no such blob")),
            CacheFault::ExistenceLies => {
                Ok(self.shared.sizes.lock().unwrap().get(digest).copied().or(honest))
            }
            CacheFault::NothingIsHere => Ok(None),
            _ => Ok(honest),
        }
    }

    async fn is_away(&self, digest: &Digest) -> Result<bool> {
        self.inner.is_away(digest).await
    }

    async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        let honest = self.inner.open(blob, range).await?;
        match self.fault {
            CacheFault::ContentUnverified => Ok(honest.unverified()),
            CacheFault::ReaderLosesContent => self.clone().read_in_pieces(blob, honest),
            _ => Ok(honest),
        }
    }

    async fn ingest(&self, blob: &Descriptor) -> Result<Ingest> {
        self.shared.sizes.lock().unwrap().insert(blob.digest().clone(), blob.size());
        let everything = match self.fault {
            CacheFault::OneLockForAll => Some(self.shared.everything.clone().lock_owned().await),
            _ => None,
        };
        let granted = if self.writers_are_free() && self.inner.stat(blob.digest()).await?.is_none() {
            MemoryCache::new()?.ingest(blob).await?
        } else {
            self.inner.ingest(blob).await?
        };
        Ok(match granted {
            Ingest::Present => Ingest::Present,
            Ingest::Vacant(inner) => {
                Ingest::Vacant(Box::new(BrokenWriter::new(self, inner, blob, everything)))
            }
        })
    }

    async fn partial(&self, digest: &Digest) -> Result<u64> {
        self.inner.partial(digest).await
    }

    async fn quarantine(&self, digest: &Digest) -> Result<()> {
        if self.fault == CacheFault::DamageKept { Ok(()) } else { self.inner.quarantine(digest).await }
    }

    async fn find_descriptor(&self, name: &Reference) -> Result<Option<Descriptor>> {
        self.shared.looks.fetch_add(1, Ordering::SeqCst);
        let honest = self.inner.find_descriptor(name).await?;
        let Some(wanted) = reference::digest_of(name)? else { return Ok(honest) };
        let names = self.inner.list().await?;
        let top = names.iter().find(|(_, descriptor)| *descriptor.digest() == wanted);
        Ok(match self.fault {
            CacheFault::ChildrenUnknown if top.is_none() => None,
            CacheFault::RepositoriesMixed => top.map(|(_, descriptor)| descriptor.clone()).or(honest),
            _ => honest,
        })
    }

    async fn list(&self) -> Result<Vec<(Reference, Descriptor)>> {
        let mut honest = self.inner.list().await?;
        if self.fault == CacheFault::ListUnsorted {
            honest.sort_by_key(|(name, _)| name.whole().len());
        }
        Ok(honest)
    }

    async fn update(&self, changes: &[NameChange]) -> Result<()> {
        self.change_names(changes).await
    }

    async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
        self.broken_artifact(key).await
    }

    async fn find_artifact(&self, key: &ArtifactKey) -> Result<Option<Box<dyn ArtifactHandle>>> {
        self.broken_look(key).await
    }

    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        if self.fault == CacheFault::CollectsLeased {
            return Ok(Lease::none());
        }
        self.inner.lease(content).await
    }

    async fn single_flight(&self, work: &str) -> Result<Lease> {
        if self.fault == CacheFault::NoSingleFlight {
            return Ok(Lease::none());
        }
        self.inner.single_flight(work).await
    }

    async fn free(&self) -> Result<Option<u64>> {
        self.inner.free().await
    }

    async fn pins(&self) -> Result<Vec<Reference>> {
        self.inner.pins().await
    }

    async fn usage(&self) -> Result<Usage> {
        let mut honest = self.inner.usage().await?;
        if self.fault == CacheFault::CountsTwice {
            honest.blobs = honest.images.iter().map(|image| image.size).sum::<u64>() + honest.unused;
        }
        if self.fault == CacheFault::PartialsHidden {
            honest.partials.clear();
        }
        Ok(honest)
    }

    async fn collect(&self, policy: &Collect) -> Result<Collected> {
        self.collect_wrongly(policy).await
    }

    async fn verify(&self, what: &Verify) -> Result<Verified> {
        let repair = what.repair && self.fault != CacheFault::RepairsNothing;
        let mut honest = self.inner.verify(&Verify { repair, ..what.clone() }).await?;
        match self.fault {
            CacheFault::RepairsNothing => honest.damage.iter_mut().for_each(|d| d.repaired = what.repair),
            CacheFault::ArtifactsUnverified => {
                honest.damage.retain(|d| !matches!(d.part, DamagedPart::Artifact(..)));
            }
            CacheFault::VerifyReadsNothing => {
                honest.damage.retain(|d| !matches!(d.part, DamagedPart::Blob(_)));
            }
            _ => {}
        }
        Ok(honest)
    }

    async fn list_page(&self, page: &Page) -> Result<CachedNames> {
        self.broken_page(page).await
    }

    async fn settle(&self) {
        self.inner.settle().await;
    }

    fn layout(&self) -> Option<&Path> {
        match self.fault {
            // A folder, and no layout.
            CacheFault::LayoutLies => Some(Path::new("/proc")),
            _ => self.inner.layout(),
        }
    }

    fn scratch(&self) -> Option<PathBuf> {
        match self.fault {
            // Nothing can be made there.
            CacheFault::ScratchLies => Some("/proc".into()),
            _ => self.inner.scratch(),
        }
    }

    fn is_read_only(&self) -> bool {
        self.fault == CacheFault::ReadOnlyLies || self.inner.is_read_only()
    }
}

impl fmt::Display for BrokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mutant {:?}", self.fault)
    }
}
