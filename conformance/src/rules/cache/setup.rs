//! What the rules about caches begin with.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{
    Blob, BlobRange, CacheProvider, CacheProviderExt, Descriptor, Digest, Error, ErrorKind, ImageRegistry,
    NameChange, Platform, PullOptions, PullPolicy, PullResult, Reference, Result, digest, reference,
};
use tokio::task::JoinHandle;

use crate::fixtures::fill;
use crate::rules::probe::{error_of, read, sound};
use crate::samples::Sample;
use crate::{CacheFixture, CacheUnderTest, FixtureImage};

/// A cache that holds the amd64 image of a sample.
pub(super) async fn pulled(fixture: &dyn CacheFixture, sample: &Sample, text: &str) -> CacheUnderTest {
    let subject = fixture.open().await;
    let registry = registry_with(sample, text);
    let result = pull(&subject, &registry, &name(text), PullPolicy::IfMissing).await;
    assert_eq!(sound(result).descriptor.digest(), sample.top.digest());
    subject
}

pub(super) async fn pull(
    subject: &CacheUnderTest,
    registry: &dyn ImageRegistry,
    reference: &Reference,
    policy: PullPolicy,
) -> Result<PullResult> {
    pull_for(subject, registry, reference, policy, &amd64()).await
}

pub(super) async fn pull_for(
    subject: &CacheUnderTest,
    registry: &dyn ImageRegistry,
    reference: &Reference,
    policy: PullPolicy,
    platform: &Platform,
) -> Result<PullResult> {
    let options = PullOptions { policy, platform: platform.clone(), ..PullOptions::default() };
    subject.client.pull(registry, reference, &*subject.cache, &options).await
}

pub(super) fn registry_with(sample: &Sample, text: &str) -> MemoryRegistry {
    let registry = MemoryRegistry::new("origin");
    fill(&registry, &FixtureImage::new(text, sample));
    registry
}

pub(super) fn name(text: &str) -> Reference {
    sound(reference::parse(text))
}

pub(super) fn amd64() -> Platform {
    Platform::new("linux", "amd64", None)
}

pub(super) fn blob(content: &[u8]) -> Descriptor {
    Descriptor::new("application/octet-stream".into(), content.len() as u64, digest::sha256(content))
}

pub(super) fn stream_of<const N: usize>(
    descriptor: &Descriptor,
    parts: [std::result::Result<&'static (impl AsRef<[u8]> + ?Sized), Error>; N],
) -> Blob {
    let parts = parts.map(|part| part.map(|bytes| Bytes::from_static(bytes.as_ref())));
    sound(Blob::new(descriptor, stream::iter(parts)))
}

/// Stores a small manifest, so that names have something to stand for.
pub(super) async fn document(cache: &dyn CacheProvider, note: &str) -> Descriptor {
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{{"note":"{note}"}}}}"#
    );
    let media_type = "application/vnd.oci.image.index.v1+json".into();
    let descriptor = Descriptor::new(media_type, text.len() as u64, digest::sha256(text.as_bytes()));
    sound(cache.put(sound(Blob::from_bytes(&descriptor, BlobRange::FULL, &text.into()))).await);
    descriptor
}

pub(super) async fn set(cache: &dyn CacheProvider, text: &str, descriptor: &Descriptor) {
    sound(cache.update(&[NameChange::Set(name(text), descriptor.clone())]).await);
}

pub(super) async fn names(cache: &dyn CacheProvider) -> Vec<(String, Digest)> {
    let list = sound(cache.list().await);
    list.into_iter().map(|(name, descriptor)| (name.whole(), descriptor.digest().clone())).collect()
}

/// Nothing of a blob can be seen, and nothing of it is left.
pub(super) async fn assert_nothing(subject: &CacheUnderTest, blob: &Descriptor) {
    assert_eq!(sound(subject.cache.stat(blob.digest()).await), None);
    let error = error_of(read(subject.cache.open(blob, BlobRange::FULL).await).await);
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(subject.medium.leftovers(), [""; 0]);
}

/// What must not wait: a guard against deadlocks, not a measure of speed.
pub(super) async fn promptly<T>(fixture: &dyn CacheFixture, what: &str, work: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(fixture.patience(), work).await;
    outcome.unwrap_or_else(|_| panic!("{what} never gets an answer"))
}

/// The time that what does not wait has to show it. A sound cache passes however slow the machine is.
pub(super) const PAUSE: Duration = Duration::from_millis(60);

/// Starts what must wait: a sound cache cannot fail this, however slow the machine is. What has its answer at once fails
/// it on any machine: the first poll is here, and not on a thread that may get no time.
pub(super) async fn waiting<T: Send + 'static>(
    what: &str,
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    let mut work = Box::pin(work);
    let waits = poll_fn(|context| Poll::Ready(work.as_mut().poll(context).is_pending())).await;
    assert!(waits, "{what} does not wait");
    let work = tokio::spawn(work);
    tokio::time::sleep(PAUSE).await;
    assert!(!work.is_finished(), "{what} does not wait");
    work
}

/// As many handles on the medium of a subject, its own first.
pub(super) async fn handles(subject: &CacheUnderTest, count: usize) -> Vec<Box<dyn CacheProvider>> {
    let mut handles = vec![subject.cache.clone()];
    while handles.len() < count {
        handles.push(sound(subject.medium.reopen().await));
    }
    handles
}
