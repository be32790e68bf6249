//! X: a push whose transfer was cut.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use plyfold_core::copy::{CopyOptions, copy};
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::pull::Retry;
use plyfold_core::{
    Blob, BlobRange, Descriptor, Error, ErrorKind, ImageRegistry, RawManifest, Reference, Result, reference,
};

use super::materializer::large::noise;
use super::probe::{NAME, assert_kind, beside, open, read, sound};
use crate::fixtures::fill;
use crate::samples::{self, LayerBuilder, Sample};
use crate::{Fixture, FixtureImage};

pub(super) async fn a_push_goes_on_where_it_stopped(fixture: &dyn Fixture) {
    let (sample, blob) = noisy("a part that is wrong", 1);
    let content =
        sound(sample.blob(blob.digest()).ok_or_else(|| Error::not_found("the layer of the sample")));
    let (size, half) = (blob.size(), content.len() / 2);
    let cut = |bytes: Bytes| {
        let broken = Error::new(ErrorKind::Unavailable, "the transfer breaks");
        sound(Blob::new(&blob, stream::iter([Ok(bytes), Err(broken)])))
    };
    let rest = || sound(Blob::ranged(&blob, half as u64..size, stream::iter([Ok(content.slice(half..))])));
    let subject = open(fixture, &samples::image()).await;
    let (registry, can) = (&*subject.registry, subject.registry.capabilities());
    let name = beside(fixture, &subject, "cut");
    if !can.push {
        assert_kind(registry.push_blob(&name, cut(content.clone())).await, &ErrorKind::Unsupported);
        return;
    }
    let wrong = Bytes::from(vec![7; half]);
    assert_kind(registry.push_blob(&name, cut(wrong.clone())).await, &ErrorKind::Unavailable);
    assert!(!sound(registry.has_blob(&name, &blob).await), "a part was stored");
    let there = sound(registry.partial_blob(&name, &blob).await);
    assert_eq!(there, if can.partial_blobs { half as u64 } else { 0 }, "what has arrived of {size} bytes");
    if !can.partial_blobs {
        return;
    }
    assert_kind(registry.push_blob(&name, rest()).await, &ErrorKind::Corrupt);
    assert!(!sound(registry.has_blob(&name, &blob).await), "a wrong blob was stored");
    assert_eq!(sound(registry.partial_blob(&name, &blob).await), 0, "a wrong part is kept");
    // Without its beginning.
    assert_kind(registry.push_blob(&name, rest()).await, &ErrorKind::Unavailable);
    assert_kind(registry.push_blob(&name, cut(wrong)).await, &ErrorKind::Unavailable);
    let image = sound(reference::parse(NAME));
    let options = CopyOptions { retry: Retry { attempts: 1, ..Retry::default() }, ..CopyOptions::default() };
    let origin = Cutting::new(&sample);
    sound(copy(&origin, &image, registry, &name, &options).await);
    assert_eq!(sound(read(registry.blob(&name, &blob, BlobRange::FULL).await).await), content);
    // A copy that is cut, and the next one.
    let (sample, blob) = noisy("a part that is right", 2);
    let (origin, half) = (Cutting::new(&sample), blob.size() / 2);
    origin.cut_at(half);
    assert_kind(copy(&origin, &image, registry, &name, &options).await, &ErrorKind::Unavailable);
    origin.cut_at(u64::MAX);
    let before = origin.sent();
    sound(copy(&origin, &image, registry, &name, &options).await);
    let (sent, rest) = (origin.sent() - before, blob.size() - half);
    assert!(sent < rest + blob.size() / 20, "{sent} bytes were read, and {rest} were missing");
    let stored = sound(read(registry.blob(&name, &blob, BlobRange::FULL).await).await);
    assert!(Some(&stored) == sample.blob(blob.digest()), "other bytes were stored");
}

/// An image of one layer that cannot be compressed, and that layer.
fn noisy(text: &'static str, seed: u64) -> (Sample, Descriptor) {
    let layer = LayerBuilder::new().file("noise", 0o644, &noise(400_000, seed)).finish();
    let sample = samples::of_layers(text, &[layer]);
    let blob = sample.images[0].layers[0].descriptor.clone();
    (sample, blob)
}

/// A registry of one image that can cut the transfers of its blobs, and counts the bytes of blobs that it sends.
#[derive(Clone, Debug)]
struct Cutting {
    registry: MemoryRegistry,
    sample: Arc<Sample>,
    at: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
}

impl Cutting {
    /// The sample under [`NAME`].
    fn new(sample: &Sample) -> Self {
        let registry = MemoryRegistry::new("origin");
        fill(&registry, &FixtureImage::new(NAME, sample));
        let at = Arc::new(AtomicU64::new(u64::MAX));
        Self { registry, sample: Arc::new(sample.clone()), at, sent: Arc::default() }
    }

    /// From now on transfers end in an error after this byte of a blob.
    fn cut_at(&self, at: u64) {
        self.at.store(at, Ordering::SeqCst);
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl ImageRegistry for Cutting {
    async fn manifest(&self, name: &Reference) -> Result<RawManifest> {
        self.registry.manifest(name).await
    }

    async fn blob(&self, _: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        let bytes = self.sample.blob(blob.digest()).ok_or_else(|| Error::not_found("no such blob"))?;
        let wanted = range.resolve(blob.size())?;
        let end = wanted.end.min(self.at.load(Ordering::SeqCst));
        let part = bytes.slice(wanted.start as usize..end as usize);
        self.sent.fetch_add(part.len() as u64, Ordering::SeqCst);
        let broken = Error::new(ErrorKind::Unavailable, "the transfer breaks");
        let failure = (end < wanted.end).then_some(Err(broken));
        Blob::ranged(blob, wanted, stream::iter([Ok(part)].into_iter().chain(failure)))
    }
}

impl fmt::Display for Cutting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.registry.fmt(f)
    }
}
