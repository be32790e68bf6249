//! A pull beside others who change names, on a machine that fails, and whose caller gives up.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use async_trait::async_trait;
use futures_util::future::{Either, select};
use plyfold_core::progress::{Event, Events};
use plyfold_core::{
    Artifact, ArtifactKey, Blob, BlobRange, CacheProvider, Descriptor, Digest, Error, ErrorKind, Ingest,
    Lease, NameChange, Progress, PullOptions, PullPolicy, Reference, Result, Verified, Verify,
    cache::verify_names,
};
use tokio::sync::{Notify, Semaphore};

use super::setup::{amd64, name, pulled, registry_with, set};
use crate::CacheFixture;
use crate::rule::rules;
use crate::rules::probe::{Counting, Hooked, NAME, assert_kind, sound};
use crate::samples::{self, Sample};

rules! {
    $ __cache_ends_rules of dyn CacheFixture;
    "C 187" a_pull_yields_the_image_that_was_found:
        "an image that is here is the one that its name stood for at first, whatever becomes of the name meanwhile",
    "C 188" what_the_cache_cannot_read_is_not_fetched:
        "an error of the machine while the cache is read is reported as it is, and no registry is asked instead",
    "C 189" a_dropped_pull_tells_its_end:
        "the last event of a pull that is given up says that it has failed, and every blob that it began has an end",
}

async fn a_pull_yields_the_image_that_was_found(fixture: &dyn CacheFixture) {
    const OTHER: &str = "registry.example/library/newer:1";
    let (sample, newer) = (samples::image(), samples::custom_fields());
    let subject = pulled(fixture, &sample, NAME).await;
    let registry = registry_with(&newer, OTHER);
    sound(super::setup::pull(&subject, &registry, &name(OTHER), PullPolicy::IfMissing).await);
    for change in [NameChange::Set(name(NAME), newer.top.clone()), NameChange::Remove(name(NAME))] {
        for policy in [PullPolicy::Always, PullPolicy::IfMissing, PullPolicy::Never] {
            set(&*subject.cache, NAME, &sample.top).await;
            let meddled = Meddled::new(&*subject.cache);
            meddled.change_after_find(change.clone());
            let counting = Counting::new(&registry_with(&sample, NAME));
            let options = PullOptions { policy, platform: amd64(), ..PullOptions::default() };
            let result = sound(subject.client.pull(&counting, &name(NAME), &meddled, &options).await);
            assert!(meddled.has_changed(), "the name was looked for");
            assert_eq!(result.descriptor.digest(), sample.top.digest(), "{change:?} under {policy:?}");
            let layers = result.layers.iter().map(|layer| layer.descriptor.digest());
            assert!(layers.eq(sample.images[0].layers.iter().map(|layer| layer.descriptor.digest())));
            assert_eq!(counting.fetched(), [], "{change:?} under {policy:?}");
        }
    }
}

async fn what_the_cache_cannot_read_is_not_fetched(fixture: &dyn CacheFixture) {
    let sample = samples::image();
    for failing in [Step::Stat, Step::Open] {
        // `EMFILE` has no kind of its own in the standard library.
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::Other] {
            let subject = pulled(fixture, &sample, NAME).await;
            let meddled = Meddled::new(&*subject.cache);
            meddled.fail(failing, kind);
            let counting = Counting::new(&registry_with(&sample, NAME));
            let options = PullOptions { platform: amd64(), ..PullOptions::default() };
            let pulled = subject.client.pull(&counting, &name(NAME), &meddled, &options).await;
            let error = assert_kind(pulled, &ErrorKind::Io);
            let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
            assert_eq!(source.map(io::Error::kind), Some(kind), "{error}");
            assert_eq!(counting.calls(), 0, "{failing:?}");
        }
    }
}

async fn a_dropped_pull_tells_its_end(fixture: &dyn CacheFixture) {
    let sample = samples::image();
    // After more and more steps, until one comes to its end.
    for polls in (0..16).map(|power| 1_usize << power) {
        let subject = fixture.open().await;
        let (registry, image) = (registry_with(&sample, NAME), name(NAME));
        let (progress, events) = Progress::channel();
        let options = PullOptions { platform: amd64(), progress, ..PullOptions::default() };
        let ended = polled(subject.client.pull(&registry, &image, &*subject.cache, &options), polls).await;
        drop(options);
        if let Some(outcome) = &ended {
            assert!(outcome.is_ok(), "{outcome:?}");
        }
        assert_ended(events, ended.is_some(), polls).await;
        if ended.is_some() {
            return dropped_in_each_wait(fixture, &sample).await;
        }
    }
    panic!("the pull does not end");
}

/// Gives up a pull while the registry holds back a blob, the first, the second and so on. A pull that has not given up
/// the work ends well as soon as the blob comes, however fast or slow the machine is.
async fn dropped_in_each_wait(fixture: &dyn CacheFixture, sample: &Sample) {
    for held in 0.. {
        let subject = fixture.open().await;
        let (reached, release, asked) =
            (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)), AtomicUsize::new(0));
        let (tell, gate) = (reached.clone(), release.clone());
        let registry = Hooked::new(&registry_with(sample, NAME), move |_| {
            let is_held = asked.fetch_add(1, Ordering::SeqCst) == held;
            let (tell, gate) = (tell.clone(), gate.clone());
            Box::pin(async move {
                if is_held {
                    tell.notify_one();
                    drop(gate.acquire().await);
                }
            })
        });
        let image = name(NAME);
        let (progress, events) = Progress::channel();
        let options = PullOptions { platform: amd64(), progress, ..PullOptions::default() };
        let pull = subject.client.pull(&registry, &image, &*subject.cache, &options);
        // Drops the pull when the blob is asked for.
        let ended = match select(pull, pin!(reached.notified())).await {
            Either::Left((outcome, _)) => Some(sound(outcome)),
            Either::Right(((), pull)) => {
                drop(pull);
                None
            }
        };
        drop(options);
        release.close();
        assert_ended(events, ended.is_some(), held).await;
        if ended.is_some() {
            assert!(held > 0, "nothing is fetched");
            return;
        }
    }
}

/// Polls work so many times and then drops it; its outcome if it has ended by itself.
async fn polled<T>(work: impl Future<Output = T>, mut polls: usize) -> Option<T> {
    let mut work = Box::pin(work);
    poll_fn(|context| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        work.as_mut().poll(context).map(Some)
    })
    .await
}

/// The last event and no other tells the end, and each blob that was started ends once.
async fn assert_ended(mut events: Events, success: bool, polls: usize) {
    let (mut all, mut running) = (Vec::new(), BTreeMap::new());
    while let Some(event) = events.next().await {
        match &event {
            Event::BlobStarted { digest, .. } => *running.entry(digest.to_string()).or_insert(0) += 1,
            Event::BlobStopped { digest } | Event::BlobDone { digest, cached: false, .. } => {
                *running.entry(digest.to_string()).or_insert(0) -= 1;
            }
            _ => {}
        }
        all.push(event);
    }
    let ends = all.iter().filter(|event| matches!(event, Event::Finished { .. })).count();
    assert_eq!((ends, all.last()), (1, Some(&Event::Finished { success })), "after {polls}: {all:?}");
    assert!(running.values().all(|count| *count == 0), "after {polls}: {all:?}");
}

/// What a cache can be made to fail at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Open,
    Stat,
}

/// A cache that others use at the worst moment, or that the machine lets down.
#[derive(Clone, Debug)]
struct Meddled {
    inner: Box<dyn CacheProvider>,
    change: Arc<Mutex<Option<NameChange>>>,
    failing: Arc<Mutex<Option<(Step, io::ErrorKind)>>>,
}

impl Meddled {
    fn new(inner: &dyn CacheProvider) -> Self {
        Self { inner: dyn_clone::clone_box(inner), change: Arc::default(), failing: Arc::default() }
    }

    /// Changes a name as soon as the next question about a name is answered.
    fn change_after_find(&self, change: NameChange) {
        *self.change.lock().unwrap_or_else(PoisonError::into_inner) = Some(change);
    }

    fn has_changed(&self) -> bool {
        self.change.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    fn fail(&self, step: Step, kind: io::ErrorKind) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = Some((step, kind));
    }

    fn before(&self, step: Step) -> Result<()> {
        match *self.failing.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((failing, kind)) if failing == step => Err(Error::io("looking at the disk", kind.into())),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Meddled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl CacheProvider for Meddled {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        self.before(Step::Stat)?;
        self.inner.stat(digest).await
    }

    async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.before(Step::Open)?;
        self.inner.open(blob, range).await
    }

    async fn ingest(&self, blob: &Descriptor) -> Result<Ingest> {
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
        let change = self.change.lock().unwrap_or_else(PoisonError::into_inner).take();
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
        self.inner.update(changes).await
    }

    async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
        self.inner.artifact(key).await
    }

    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        self.inner.lease(content).await
    }

    async fn single_flight(&self, work: &str) -> Result<Lease> {
        self.inner.single_flight(work).await
    }
}
