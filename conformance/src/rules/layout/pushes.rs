//! Pushes into a layout directory beside collections, and what a name of it needs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use plyfold_core::copy::{CopyOptions, copy};
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{
    Blob, BlobRange, CacheProvider, CacheProviderExt, Collect, Descriptor, ErrorKind, ImageRegistry,
    RawManifest, Reference, Result,
};

use super::place::Place;
use super::setup::{NO_REGISTRY, name};
use crate::fixtures::fill;
use crate::rule::not_judged;
use crate::rules::probe::{NAME, assert_kind, at, sound};
use crate::samples::{self, Sample};
use crate::{FixtureImage, LayoutFixture};

/// K 180: see [`RULES`](super::RULES).
pub(super) async fn push_beside_collection_leaves_whole_images(fixture: &dyn LayoutFixture) {
    let sample = samples::nested_index();
    let origin = origin(&sample);
    for concurrency in [1, 4] {
        let place = Place::new();
        let Some(layout) = fixture.registry(&place.path).await else { return not_judged(NO_REGISTRY) };
        // The first push makes the layout: before it there is nothing to collect.
        let options = CopyOptions { concurrency, ..CopyOptions::default() };
        sound(copy(&origin, &name(NAME), &*layout, &name("registry.example/first:1"), &options).await);
        let cache = sound(fixture.open(&place.path).await);
        sound(cache.remove(&name("registry.example/first:1")).await);
        // In the first round all blobs are here already and nothing needs them; in the second none is here.
        for round in 0..2 {
            let source = Collecting::new(&origin, &*cache);
            sound(copy(&source, &name(NAME), &*layout, &name(NAME), &options).await);
            collect(&*cache).await;
            assert_whole(&*cache, &sample, &format!("round {round}, {concurrency} at a time")).await;
            sound(cache.remove(&name(NAME)).await);
            collect(&*cache).await;
        }
    }
}

/// K 181: see [`RULES`](super::RULES).
pub(super) async fn a_pushed_name_waits_for_all_that_it_needs(fixture: &dyn LayoutFixture) {
    let sample = samples::index();
    let place = Place::new();
    let Some(layout) = fixture.registry(&place.path).await else { return not_judged(NO_REGISTRY) };
    let (image, index) = (sample.image_for("linux/amd64"), document(&sample, &sample.top));
    let manifest = document(&sample, &image.manifest);
    let blobs: Vec<&Descriptor> =
        std::iter::once(&image.config).chain(image.layers.iter().map(|layer| &layer.descriptor)).collect();
    for absent in &blobs {
        let place = Place::new();
        let layout = fixture.registry(&place.path).await.expect("a registry, as before");
        for blob in blobs.iter().filter(|blob| blob.digest() != absent.digest()) {
            sound(layout.push_blob(&name(NAME), content(&sample, blob)).await);
        }
        let error = assert_kind(layout.push_manifest(&name(NAME), &manifest).await, &ErrorKind::NotFound);
        assert!(error.to_string().contains(absent.digest().as_ref()), "{error}");
        assert_kind(layout.resolve(&name(NAME)).await, &ErrorKind::NotFound);
        sound(layout.push_blob(&name(NAME), content(&sample, absent)).await);
        sound(layout.push_manifest(&name(NAME), &manifest).await);
    }
    // A blob that was pushed and collected is as absent as one that never came.
    for blob in &blobs {
        sound(layout.push_blob(&name(NAME), content(&sample, blob)).await);
    }
    let cache = sound(fixture.open(&place.path).await);
    if cache.collect(&Collect::default()).await.is_ok() {
        assert_kind(layout.push_manifest(&name(NAME), &manifest).await, &ErrorKind::NotFound);
    }
    for blob in &blobs {
        sound(layout.push_blob(&name(NAME), content(&sample, blob)).await);
    }
    sound(layout.push_manifest(&name(NAME), &manifest).await);
    // An index needs its images, and a failure leaves the name with what it stood for.
    assert_kind(layout.push_manifest(&name(NAME), &index).await, &ErrorKind::NotFound);
    assert_eq!(sound(layout.resolve(&name(NAME)).await).digest(), manifest.digest());
    let other = name("registry.example/whole:1");
    sound(copy(&origin(&sample), &name(NAME), &*layout, &other, &CopyOptions::default()).await);
    sound(layout.push_manifest(&name(NAME), &index).await);
    assert_whole(&*cache, &sample, "at last").await;
}

/// K 182: see [`RULES`](super::RULES).
pub(super) async fn deletion_leaves_what_is_leased(fixture: &dyn LayoutFixture) {
    let sample = samples::index();
    let place = Place::new();
    let Some(layout) = fixture.registry(&place.path).await else { return not_judged(NO_REGISTRY) };
    let options = CopyOptions::default();
    sound(copy(&origin(&sample), &name(NAME), &*layout, &name(NAME), &options).await);
    let cache = sound(fixture.open(&place.path).await);
    let child = sample.image_for("linux/amd64").manifest.digest();
    let by_digest = at(&name(NAME), sample.top.digest());
    let lease = sound(cache.lease(std::slice::from_ref(sample.top.digest())).await);
    if lease.is_none() {
        return not_judged("the cache gives no leases");
    }
    sound(layout.delete(&by_digest).await);
    assert_kind(layout.resolve(&name(NAME)).await, &ErrorKind::NotFound);
    assert!(is_here(&*cache, &sample.top).await, "the name goes, and the content stays while it is leased");
    // What the leased index leads to is in use as well.
    assert_kind(layout.delete(&at(&name(NAME), child)).await, &ErrorKind::Unsupported);
    assert!(is_here(&*cache, &sample.image_for("linux/amd64").manifest).await);
    drop(lease);
    sound(layout.delete(&by_digest).await);
    assert!(!is_here(&*cache, &sample.top).await, "nothing needs it any more");
    sound(layout.delete(&at(&name(NAME), child)).await);
    assert!(!is_here(&*cache, &sample.image_for("linux/amd64").manifest).await);
}

async fn is_here(cache: &dyn CacheProvider, blob: &Descriptor) -> bool {
    sound(cache.stat(blob.digest()).await) == Some(blob.size())
}

fn origin(sample: &Sample) -> MemoryRegistry {
    let registry = MemoryRegistry::new("origin");
    fill(&registry, &FixtureImage::new(NAME, sample));
    registry
}

fn document(sample: &Sample, descriptor: &Descriptor) -> RawManifest {
    let bytes = sample.blob(descriptor.digest()).expect("a document of the sample").clone();
    sound(RawManifest::new(bytes, Some(descriptor.media_type())))
}

fn content(sample: &Sample, blob: &Descriptor) -> Blob {
    let bytes = sample.blob(blob.digest()).expect("a blob of the sample");
    sound(Blob::from_bytes(blob, BlobRange::FULL, bytes))
}

/// Caches that remove nothing by themselves have nothing to do.
async fn collect(cache: &dyn CacheProvider) {
    if let Err(error) = cache.collect(&Collect::default()).await {
        assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
        not_judged("the cache does not collect");
    }
}

async fn assert_whole(cache: &dyn CacheProvider, sample: &Sample, when: &str) {
    let top = sound(cache.find_descriptor(&name(NAME)).await).expect("the push has reported a success");
    assert_eq!(top.digest(), sample.top.digest());
    for blob in &sample.blobs {
        let outcome = cache.verify_blob(&blob.descriptor).await;
        assert!(outcome.is_ok(), "{when}: {} is damaged or missing: {outcome:?}", blob.descriptor.digest());
    }
}

/// A registry in whose target others collect before every answer but the first.
#[derive(Clone, Debug)]
struct Collecting {
    inner: Box<dyn ImageRegistry>,
    target: Box<dyn CacheProvider>,
    answers: Arc<AtomicUsize>,
}

impl Collecting {
    fn new(inner: &dyn ImageRegistry, target: &dyn CacheProvider) -> Self {
        let (inner, target) = (dyn_clone::clone_box(inner), dyn_clone::clone_box(target));
        Self { inner, target, answers: Arc::default() }
    }

    async fn collect(&self) {
        if self.answers.fetch_add(1, Ordering::SeqCst) > 0 {
            collect(&*self.target).await;
        }
    }
}

#[async_trait]
impl ImageRegistry for Collecting {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        self.collect().await;
        self.inner.manifest(reference).await
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.collect().await;
        self.inner.blob(reference, blob, range).await
    }
}

impl fmt::Display for Collecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
