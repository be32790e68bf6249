//! S: what an image that is written as an archive must be.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use plyfold_core::save::ArchiveForm;
use plyfold_core::{
    Blob, BlobRange, Descriptor, Error, ErrorKind, ImageSource, ImageSourceExt as _, RawManifest, Result,
    digest, reference,
};
use serde_json::{Value, json};

use super::probe::{altered, carried, open, sound};
use crate::rule::rules;
use crate::samples::{self, Sample};
use crate::{BackendUnderTest, Fidelity, Fixture};

rules! {
    $ __tar_rules of dyn Fixture;
    "S 89" docker_tar_loads_with_name_override:
        "the form of docker save before version 25 has the name that is given, the config byte for byte, and layers that \
         hash to the diff_ids",
    "S 90" oci_tar_index_media_type_is_the_real_one:
        "in an archive that is a layout the name stands for the manifest as it is: media type, digest, size and bytes",
    "S 91" tar_output_byte_reproducible:
        "the same image under the same name is the same archive, byte for byte",
    "S 92" error_mid_stream_never_looks_like_eof:
        "when a blob is not what it should be, or fails, the last item of the archive's stream is that error, and no end of \
         the archive comes before it",
    "S 93" dropping_reader_cancels_producer:
        "when the reader of an archive is dropped, what writes it lets the image go, also while it waits for a blob",
}

const FORMS: [ArchiveForm; 2] = [ArchiveForm::Docker, ArchiveForm::Oci];
/// The name that images get.
const OTHER: &str = "registry.example/other/named:9";

async fn docker_tar_loads_with_name_override(fixture: &dyn Fixture) {
    for sample in images(fixture) {
        let subject = open(fixture, &sample).await;
        let source = sound(subject.image(&sample.images[0].platform).await);
        let members = members(&whole(&subject, &*source, ArchiveForm::Docker).await);
        let list: Value = serde_json::from_slice(&members["manifest.json"]).expect("a list");
        assert_eq!(list.as_array().map(Vec::len), Some(1), "{}", sample.name);
        assert_eq!(list[0]["RepoTags"], json!([OTHER]), "{}", sample.name);
        let member = |name: &Value| members[name.as_str().unwrap_or_default()].clone();
        let config = sound(source.config().await);
        assert_eq!(member(&list[0]["Config"]), config.bytes().as_ref(), "{}", sample.name);
        let layers = list[0]["Layers"].as_array().expect("a list of layers");
        let found: Vec<_> = layers.iter().map(|layer| digest::sha256(&member(layer))).collect();
        assert_eq!(found, sound(config.diff_ids()), "{}", sample.name);
    }
}

async fn oci_tar_index_media_type_is_the_real_one(fixture: &dyn Fixture) {
    for sample in images(fixture) {
        let subject = open(fixture, &sample).await;
        let source = sound(subject.image(&sample.images[0].platform).await);
        let members = members(&whole(&subject, &*source, ArchiveForm::Oci).await);
        let index: Value = serde_json::from_slice(&members["index.json"]).expect("an index");
        let (entry, raw) = (&index["manifests"][0], source.raw());
        assert_eq!(index["manifests"].as_array().map(Vec::len), Some(1), "{}", sample.name);
        assert_eq!(entry["mediaType"], raw.descriptor().media_type().to_string(), "{}", sample.name);
        assert_eq!(entry["digest"], raw.digest().to_string(), "{}", sample.name);
        assert_eq!(entry["size"], raw.descriptor().size(), "{}", sample.name);
        assert_eq!(entry["annotations"]["io.containerd.image.name"], OTHER);
        let path = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
        assert_eq!(members[&path(raw.digest().as_ref())], raw.bytes().as_ref(), "{}", sample.name);
        for blob in raw.references() {
            let content = &members[&path(blob.digest().as_ref())];
            assert_eq!(digest::sha256(content), *blob.digest(), "{}", sample.name);
        }
        let list: Value = serde_json::from_slice(&members["manifest.json"]).expect("a list");
        assert_eq!(list[0]["Config"], path(sound(source.manifest()).config().digest().as_ref()));
    }
}

async fn tar_output_byte_reproducible(fixture: &dyn Fixture) {
    for sample in images(fixture) {
        let subject = open(fixture, &sample).await;
        for form in FORMS {
            let source = sound(subject.image(&sample.images[0].platform).await);
            let one = whole(&subject, &*source, form).await;
            let again = open(fixture, &sample).await;
            let source = sound(again.image(&sample.images[0].platform).await);
            let two = whole(&again, &*source, form).await;
            assert!(one == two, "{} as {form:?} is written in two ways", sample.name);
        }
    }
}

async fn error_mid_stream_never_looks_like_eof(fixture: &dyn Fixture) {
    let image = samples::image();
    let layer = image.images[0].layers[0].descriptor.digest().clone();
    let flipped = |bytes: &Bytes| {
        let mut bytes = bytes.to_vec();
        bytes[20] ^= 1;
        bytes.into()
    };
    let mut damaged = vec![(samples::wrong_diff_id(), vec![ArchiveForm::Docker])];
    // A medium that keeps no layers as they are makes others of these.
    if fixture.fidelity() == Fidelity::Exact {
        damaged.push((altered(image.clone(), &layer, flipped), FORMS.to_vec()));
        damaged
            .push((altered(image.clone(), &layer, |bytes| bytes.slice(..bytes.len() / 2)), FORMS.to_vec()));
    } else {
        damaged.clear();
    }
    for (sample, forms) in damaged {
        let subject = open(fixture, &sample).await;
        for form in forms {
            let source = sound(subject.image(&sample.images[0].platform).await);
            ends_in_an_error(&subject, &*source, form, sample.name).await;
        }
    }
    let subject = open(fixture, &image).await;
    for form in FORMS {
        let inner = sound(subject.image(&image.images[0].platform).await);
        let source = Hooked { inner, layers: Layers::Fail, _guard: Arc::new(()) };
        let error = ends_in_an_error(&subject, &source, form, "a failing source").await;
        assert_eq!(*error.kind(), ErrorKind::Denied, "{error}");
    }
}

/// The error that the archive of this image ends in.
async fn ends_in_an_error(
    subject: &BackendUnderTest,
    source: &dyn ImageSource,
    form: ArchiveForm,
    what: &str,
) -> Error {
    let name = sound(reference::parse(OTHER));
    let mut stream = match subject.client.archive(source, &name, form).await {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    let mut bytes = Vec::new();
    loop {
        match stream.next().await {
            Some(Ok(piece)) => bytes.extend_from_slice(&piece),
            Some(Err(error)) => {
                assert!(!walk(&bytes).1, "{what} as {form:?}: the archive ended before the error");
                assert!(stream.next().await.is_none(), "{what} as {form:?}: something follows the error");
                return error;
            }
            None => panic!("{what} as {form:?}: the archive ended without the error"),
        }
    }
}

async fn dropping_reader_cancels_producer(fixture: &dyn Fixture) {
    /// The time that what writes an archive has to end.
    const PATIENCE: Duration = Duration::from_secs(5);
    let sample = samples::image();
    let subject = open(fixture, &sample).await;
    for form in FORMS {
        let guard = Arc::new(());
        let inner = sound(subject.image(&sample.images[0].platform).await);
        let source = Hooked { inner, layers: Layers::Wait, _guard: Arc::clone(&guard) };
        let stream = subject.client.archive(&source, &sound(reference::parse(OTHER)), form).await;
        let mut stream = sound(stream);
        // The reader waits, and so what writes is at the layer.
        let waited = tokio::time::timeout(Duration::from_millis(200), stream.next()).await;
        assert!(!matches!(waited, Ok(None)), "the archive ended");
        drop((source, stream));
        let start = Instant::now();
        while Arc::strong_count(&guard) > 1 {
            assert!(
                start.elapsed() < PATIENCE,
                "{form:?}: the image is still held {PATIENCE:?} after the drop"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The samples that are one image.
fn images(fixture: &dyn Fixture) -> Vec<Sample> {
    let one = ["docker-image", "image", "repeated-layer", "uncompressed", "zstandard"];
    let mut samples = carried(fixture);
    samples.retain(|sample| one.contains(&sample.name.replace('_', "-").as_str()));
    assert!(samples.len() > 3, "the samples have other names now");
    samples
}

async fn whole(subject: &BackendUnderTest, source: &dyn ImageSource, form: ArchiveForm) -> Vec<u8> {
    let name = sound(reference::parse(OTHER));
    let mut stream = sound(subject.client.archive(source, &name, form).await);
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&sound(piece));
    }
    assert!(walk(&bytes).1, "the archive has no end");
    bytes
}

fn members(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    walk(tar).0.into_iter().collect()
}

/// The regular files of a tar, and whether its end is there (POSIX ustar: a name of 100 bytes at 0, the size in octal at 124,
/// the type at 156; the end is two blocks of zeros).
fn walk(tar: &[u8]) -> (Vec<(String, Vec<u8>)>, bool) {
    let (mut files, mut at) = (Vec::new(), 0);
    while let Some(header) = tar.get(at..at + 512) {
        if header.iter().all(|byte| *byte == 0) {
            return (
                files,
                tar.get(at + 512..at + 1024).is_some_and(|next| next.iter().all(|byte| *byte == 0)),
            );
        }
        let text = |range: std::ops::Range<usize>| {
            let field = header[range].split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(field).trim().to_owned()
        };
        let size = usize::from_str_radix(&text(124..136), 8).expect("a size");
        let Some(content) = tar.get(at + 512..at + 512 + size) else { break };
        if header[156] == b'0' {
            files.push((text(0..100), content.to_vec()));
        }
        at += 512 + size.next_multiple_of(512);
    }
    (files, false)
}

/// What happens to layers that are read.
#[derive(Clone, Copy, Debug)]
enum Layers {
    Fail,
    Wait,
}

/// An image whose layers cannot be read.
#[derive(Clone, Debug)]
struct Hooked {
    inner: Box<dyn ImageSource>,
    layers: Layers,
    _guard: Arc<()>,
}

#[async_trait]
impl ImageSource for Hooked {
    fn raw(&self) -> &RawManifest {
        self.inner.raw()
    }

    async fn blob(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        if self.inner.layers()?.iter().all(|layer| layer.digest() != blob.digest()) {
            return self.inner.blob(blob, range).await;
        }
        match self.layers {
            Layers::Fail => {
                let refused = Error::new(ErrorKind::Denied, "the source fails in the middle");
                Blob::new(blob, stream::iter([Ok(Bytes::from_static(b"x")), Err(refused)]))
            }
            Layers::Wait => Blob::new(blob, stream::pending()),
        }
    }
}

impl fmt::Display for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
