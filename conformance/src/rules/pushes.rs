//! X: what a backend that stores must not store.

use bytes::Bytes;
use futures_util::stream;
use plyfold_core::{
    Blob, BlobRange, Descriptor, Error, ErrorKind, ImageRegistry, MediaType, RawManifest, Reference, digest,
};

use super::probe::{assert_kind, error_of, of_tag, open, read, sound};
use crate::Fixture;
use crate::rule::rules;
use crate::samples::{self, LayerBuilder, Sample};

rules! {
    $ __push_rules of dyn Fixture;
    "X 223" a_pushed_blob_is_what_its_descriptor_says:
        "of a blob whose stream ends in an error, or is not what its descriptor says, nothing is stored, and the error is \
         that of the stream",
    "X 224" a_pushed_tag_waits_for_its_content:
        "a manifest whose config or layer is missing is refused, and its tag is not set; when all is there, it is",
}

const CONTENT: &[u8] = b"a blob that no sample has";
/// At least as long as [`CONTENT`].
const OTHER: &[u8] = b"other bytes of that length";

async fn a_pushed_blob_is_what_its_descriptor_says(fixture: &dyn Fixture) {
    let subject = open(fixture, &samples::image()).await;
    let (registry, name) = (&*subject.registry, subject.reference());
    let blob = Descriptor::new(MediaType::ImageLayer, CONTENT.len() as u64, digest::sha256(CONTENT));
    let half = &CONTENT[..CONTENT.len() / 2];
    let other: &'static [u8] = &OTHER[..CONTENT.len()];
    let streams = [
        ("other bytes", [Ok(other), Ok(b"")], ErrorKind::Corrupt),
        ("too few bytes", [Ok(half), Ok(b"")], ErrorKind::Corrupt),
        ("too many bytes", [Ok(CONTENT), Ok(b"!")], ErrorKind::Corrupt),
        ("an error", [Ok(half), Err("the source fails")], ErrorKind::Unavailable),
    ];
    for (what, parts, kind) in streams {
        let parts = parts
            .into_iter()
            .map(|part| part.map(Bytes::from_static).map_err(|why| Error::new(ErrorKind::Unavailable, why)));
        let pushed = registry.push_blob(name, sound(Blob::new(&blob, stream::iter(parts)))).await;
        if !registry.capabilities().push {
            assert_kind(pushed, &ErrorKind::Unsupported);
            continue;
        }
        let error = error_of(pushed);
        assert_eq!(*error.kind(), kind, "{what}: {error}");
        let stored = error_of(read(registry.blob(name, &blob, BlobRange::FULL).await).await);
        assert_eq!(*stored.kind(), ErrorKind::NotFound, "{what} were stored: {stored}");
        assert!(!sound(registry.has_blob(name, &blob).await), "{what} were stored");
    }
    if registry.capabilities().push {
        let content = Bytes::from_static(CONTENT);
        sound(registry.push_blob(name, sound(Blob::from_bytes(&blob, BlobRange::FULL, &content))).await);
        assert_eq!(sound(read(registry.blob(name, &blob, BlobRange::FULL).await).await), content);
    }
}

async fn a_pushed_tag_waits_for_its_content(fixture: &dyn Fixture) {
    let tars = ["one", "two"].map(|text| LayerBuilder::new().file(text, 0o644, text.as_bytes()).finish());
    let sample = samples::of_layers("pushed", &tars);
    let raw = sound(RawManifest::new(sample.top_bytes().clone(), Some(sample.top.media_type())));
    let parts = sound(raw.image()).layers().iter().chain([sound(raw.image()).config()]);
    for missing in parts {
        let subject = open(fixture, &samples::image()).await;
        let registry = &*subject.registry;
        let name = of_tag(subject.reference(), subject.reference().repository(), "pushed");
        if !registry.capabilities().push {
            assert_kind(registry.push_manifest(&name, &raw).await, &ErrorKind::Unsupported);
            continue;
        }
        for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
            if blob.descriptor.digest() != missing.digest() {
                push(registry, &name, &sample, &blob.descriptor).await;
            }
        }
        let error = error_of(registry.push_manifest(&name, &raw).await);
        assert_eq!(*error.kind(), ErrorKind::NotFound, "{} is missing: {error}", missing.digest());
        assert_kind(registry.manifest(&name).await, &ErrorKind::NotFound);
        push(registry, &name, &sample, missing).await;
        sound(registry.push_manifest(&name, &raw).await);
        assert!(sound(registry.manifest(&name).await).bytes() == sample.top_bytes(), "what was pushed");
    }
}

async fn push(registry: &dyn ImageRegistry, name: &Reference, sample: &Sample, blob: &Descriptor) {
    let content = sample.blob(blob.digest()).expect("the sample has it");
    let blob = sound(Blob::from_bytes(blob, BlobRange::FULL, content));
    sound(registry.push_blob(name, blob).await);
}
