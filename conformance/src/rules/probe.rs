//! What several rules need: opening, altering, comparing.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use plyfold_core::{
    Blob, BlobRange, Capabilities, Descriptor, Digest, Error, ErrorKind, ImageRegistry, ImageRegistryExt,
    ImageSource, Lease, MediaType, Names, Page, RawManifest, Reference, Result, reference,
};

use crate::rule::not_judged;
use crate::samples::{self, Sample};
use crate::{BackendUnderTest, Condition, Fidelity, Fixture, FixtureImage};

/// The name under which rules fixture their first image.
pub(super) const NAME: &str = "registry.example/library/app:1.2";

/// The samples that a medium can hold, whole.
pub(super) fn carried(fixture: &dyn Fixture) -> Vec<Sample> {
    let is_named = |sample: &Sample| fixture.states_digests() || is_sha256(sample);
    match fixture.fidelity() {
        Fidelity::Exact => samples::whole().into_iter().filter(is_named).collect(),
        Fidelity::DiffIds => vec![
            samples::custom_fields(),
            samples::docker_image(),
            samples::image(),
            samples::multi_member_gzip(),
            samples::no_layers(),
            samples::repeated_layer(),
            samples::uncompressed(),
            samples::zstandard(),
        ],
    }
}

/// Whether the digest of a sample is what a reader computes that is given none.
pub(super) fn is_sha256(sample: &Sample) -> bool {
    sample.top.digest().as_ref().starts_with("sha256:")
}

/// A medium with one image.
pub(super) async fn open(fixture: &dyn Fixture, sample: &Sample) -> BackendUnderTest {
    fixture.open(&[FixtureImage::new(NAME, sample)]).await
}

/// A medium with an index; `None`, after having seen that it says so, when it cannot hold one.
pub(super) async fn open_index(fixture: &dyn Fixture, sample: &Sample) -> Option<BackendUnderTest> {
    if fixture.fidelity() == Fidelity::Exact {
        return Some(open(fixture, sample).await);
    }
    let subject = open(fixture, &samples::image()).await;
    let answer = subject.registry.fetch_index(subject.reference()).await;
    assert_kind(answer, &ErrorKind::Unsupported);
    not_judged("the medium holds no indexes");
    None
}

/// A medium with one image under a condition; `None`, which is said, when the medium knows no such condition.
pub(super) async fn open_under(
    fixture: &dyn Fixture,
    sample: &Sample,
    condition: Condition,
) -> Option<BackendUnderTest> {
    let subject = fixture.open_under(&FixtureImage::new(NAME, sample), condition).await;
    if subject.is_none() {
        not_judged(format!("the medium knows no {condition:?}"));
    }
    subject
}

/// The error of an outcome that must fail with this kind.
#[track_caller]
pub(super) fn assert_kind<T>(outcome: Result<T>, kind: &ErrorKind) -> Error {
    let error = error_of(outcome);
    assert_eq!(error.kind(), kind, "{error}");
    error
}

/// The error of an outcome that must fail.
#[track_caller]
pub(super) fn error_of<T>(outcome: Result<T>) -> Error {
    match outcome {
        Ok(_) => panic!("an error was expected"),
        Err(error) => error,
    }
}

/// The value of an outcome that must succeed.
#[track_caller]
pub(super) fn sound<T>(outcome: Result<T>) -> T {
    outcome.unwrap_or_else(|error| panic!("{error} {error:?}"))
}

/// The whole content of a blob, verified.
pub(super) async fn read(outcome: Result<Blob>) -> Result<Bytes> {
    outcome?.bytes(u64::MAX).await
}

/// The same document with one space moved: another digest, the same size and the same meaning.
pub(super) fn respaced(document: &Bytes) -> Bytes {
    let text = String::from_utf8_lossy(document).into_owned();
    let moved =
        [("\"schemaVersion\": 2", "\"schemaVersion\" :2"), ("{ \"schemaVersion\":", "{\"schemaVersion\": ")]
            .iter()
            .fold(text.clone(), |text, (from, to)| text.replacen(from, to, 1));
    assert_ne!(text, moved, "the sample document has a movable space");
    moved.into()
}

/// The sample with other bytes stored under a digest.
pub(super) fn altered(mut sample: Sample, digest: &Digest, change: impl Fn(&Bytes) -> Bytes) -> Sample {
    for blob in sample.blobs.iter_mut().filter(|blob| blob.descriptor.digest() == digest) {
        blob.bytes = change(&blob.bytes);
    }
    sample
}

/// The image that was chosen is the sample's image for `platform`.
#[track_caller]
pub(super) fn assert_chosen(outcome: Result<Box<dyn ImageSource>>, sample: &Sample, platform: &str) {
    let source = sound(outcome);
    assert_eq!(
        source.raw().digest(),
        sample.image_for(platform).manifest.digest(),
        "the image for {platform}"
    );
}

/// A tag of a repository on the same host.
pub(super) fn of_tag(reference: &Reference, repository: &str, tag: &str) -> Reference {
    Reference::with_tag(reference.registry().to_owned(), repository.to_owned(), tag.to_owned())
}

/// The name of what is stored beside the medium's image, or in its place where there is room for one.
pub(super) fn beside(fixture: &dyn Fixture, subject: &BackendUnderTest, tag: &str) -> Reference {
    let own = subject.reference();
    if fixture.holds_several_images() { of_tag(own, own.repository(), tag) } else { own.clone() }
}

/// Names as they are, to see that what fails leaves them so.
pub(super) struct Before(Vec<(Reference, Option<Bytes>)>);

impl Before {
    pub(super) async fn of(registry: &dyn ImageRegistry, names: &[&Reference]) -> Self {
        let mut before = Vec::new();
        for name in names {
            let found = sound(Error::found(registry.manifest(name).await));
            before.push(((*name).clone(), found.map(|raw| raw.bytes().clone())));
        }
        Self(before)
    }

    pub(super) async fn assert_kept(&self, registry: &dyn ImageRegistry, what: impl fmt::Display) {
        for (name, before) in &self.0 {
            match before {
                None => drop(assert_kind(registry.manifest(name).await, &ErrorKind::NotFound)),
                Some(bytes) => {
                    assert!(
                        sound(registry.manifest(name).await).bytes() == bytes,
                        "{what}: {name} is another"
                    );
                }
            }
        }
    }
}

/// The sample with one more byte in the bottom layer's tar than its `diff_id` knows of.
pub(super) fn moved_layer(mut sample: Sample) -> Sample {
    let layer = &mut sample.images[0].layers[0];
    layer.tar = [&layer.tar[..], &[0; 512]].concat().into();
    sample
}

/// The same repository by digest.
pub(super) fn at(reference: &Reference, digest: &Digest) -> Reference {
    reference::by_digest(reference, digest)
}

/// A registry that counts the calls that may do input or output.
#[derive(Clone, Debug)]
pub(super) struct Counting {
    inner: Box<dyn ImageRegistry>,
    calls: Arc<AtomicUsize>,
    fetched: Arc<Mutex<Vec<Digest>>>,
}

impl Counting {
    pub(super) fn new(inner: &dyn ImageRegistry) -> Self {
        Self { inner: dyn_clone::clone_box(inner), calls: Arc::default(), fetched: Arc::default() }
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// The blobs that were asked for, in this order.
    pub(super) fn fetched(&self) -> Vec<Digest> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self) -> &dyn ImageRegistry {
        self.calls.fetch_add(1, Ordering::SeqCst);
        &*self.inner
    }
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl ImageRegistry for Counting {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        self.count().manifest(reference).await
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).push(blob.digest().clone());
        self.count().blob(reference, blob, range).await
    }

    async fn resolve(&self, reference: &Reference) -> Result<Descriptor> {
        self.count().resolve(reference).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn concurrency(&self) -> usize {
        self.inner.concurrency()
    }

    fn push_concurrency(&self) -> usize {
        self.inner.push_concurrency()
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        self.count().tags(repository, page).await
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        self.count().repositories(page).await
    }

    async fn untagged(&self) -> Result<Vec<Reference>> {
        self.count().untagged().await
    }

    async fn bases(&self) -> Result<Vec<String>> {
        self.count().bases().await
    }

    async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        self.count().referrers(reference, subject, artifact_type).await
    }

    async fn push_blob(&self, reference: &Reference, blob: Blob) -> Result<()> {
        self.count().push_blob(reference, blob).await
    }

    async fn partial_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<u64> {
        self.count().partial_blob(reference, blob).await
    }

    async fn mount_blob(&self, reference: &Reference, blob: &Descriptor, from: &Reference) -> Result<bool> {
        self.count().mount_blob(reference, blob, from).await
    }

    async fn push_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        self.count().push_manifest(reference, manifest).await
    }

    async fn push_names(&self, names: &[(Reference, RawManifest)]) -> Result<()> {
        self.count().push_names(names).await
    }

    async fn push_sparse(&self, names: &[(Reference, RawManifest)], absent: &[Digest]) -> Result<()> {
        self.count().push_sparse(names, absent).await
    }

    async fn push_referrers(&self, repository: &Reference, manifests: &[RawManifest]) -> Result<()> {
        self.count().push_referrers(repository, manifests).await
    }

    async fn check_target(&self) -> Result<()> {
        self.count().check_target().await
    }

    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        self.count().lease(content).await
    }

    async fn delete(&self, reference: &Reference) -> Result<()> {
        self.count().delete(reference).await
    }

    async fn has_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<bool> {
        self.count().has_blob(reference, blob).await
    }

    async fn delete_blob(&self, reference: &Reference, digest: &Digest) -> Result<()> {
        self.count().delete_blob(reference, digest).await
    }

    fn unsupported(&self, what: &str) -> Error {
        self.inner.unsupported(what)
    }
}

/// A registry that does something before it hands out a blob, such as wait, or use the cache that is being filled.
#[derive(Clone)]
pub(super) struct Hooked {
    inner: Box<dyn ImageRegistry>,
    hook: Arc<Hook>,
}

type Hook = dyn Fn(&Digest) -> BoxFuture<'static, ()> + Send + Sync;

impl Hooked {
    pub(super) fn new(
        inner: &dyn ImageRegistry,
        hook: impl Fn(&Digest) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        Self { inner: dyn_clone::clone_box(inner), hook: Arc::new(hook) }
    }
}

#[async_trait]
impl ImageRegistry for Hooked {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        self.inner.manifest(reference).await
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        (self.hook)(blob.digest()).await;
        self.inner.blob(reference, blob, range).await
    }
}

impl fmt::Display for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hooked({:?})", self.inner)
    }
}
