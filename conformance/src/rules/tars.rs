//! S: what an image that is written as an archive must be.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use plyfold_core::layer::{EntryKind, FileKind};
use plyfold_core::save::ArchiveForm;
use plyfold_core::{
    Blob, BlobRange, Descriptor, DocumentFault, Error, ErrorKind, ImageSource, ImageSourceExt as _,
    RawManifest, Result, digest, reference,
};
use serde_json::{Value, json};

use super::probe::{Counting, altered, carried, open, sound};
use crate::rule::{not_judged, rules};
use crate::samples::{self, LayerBuilder, Sample};
use crate::tree::{LayerEntry, read_tar};
use crate::{BackendUnderTest, Fidelity, Fixture};

rules! {
    $ __tar_rules of dyn Fixture;
    "S 89" docker_tar_loads_with_name_override:
        "the form of docker save before version 25 has the name that is given, the config byte for byte, and layers that \
         hash to the diff_ids",
    "S 90" oci_tar_index_media_type_is_the_real_one:
        "in an archive that is a layout the name stands for the manifest as it is: media type, digest, size and bytes",
    "S 91" tar_output_byte_reproducible:
        "the same image is the same flattened tar, and under the same name the same archive, byte for byte",
    "S 92" error_mid_stream_never_looks_like_eof:
        "when a blob is not what it should be, or fails, the last item of the stream of a flattened tar or of an archive is \
         that error, and no end of the tar comes before it",
    "S 93" dropping_reader_cancels_producer:
        "when the reader of a flattened tar or of an archive is dropped, what writes it lets the image go, also while it \
         waits for a blob",
    "S 94" lazy_no_blob_read_for_config_only:
        "an image is opened, and its descriptor, manifest, layers and config are read, without a layer",
    "S 97" non_image_artifact_config_gives_typed_error:
        "an artifact has no config and no flattened tar: `DocumentFault::NotAnImage`",
    "S 270" a_flattened_tar_reads_each_blob_once:
        "for a flattened tar the blob of each layer is read once",
    "S 271" a_hard_link_across_layers_is_one_file_in_the_flattened_tar:
        "in a flattened tar all names of a file are hard links to one, whichever layers they come from",
}

/// What an image is written as.
#[derive(Clone, Copy, Debug)]
enum Tar {
    Archive(ArchiveForm),
    Flat,
}

const DOCKER: Tar = Tar::Archive(ArchiveForm::Docker);
const OCI: Tar = Tar::Archive(ArchiveForm::Oci);
const ALL: [Tar; 3] = [DOCKER, Tar::Flat, OCI];
/// The name that images get.
const OTHER: &str = "registry.example/other/named:9";

async fn docker_tar_loads_with_name_override(fixture: &dyn Fixture) {
    for sample in images(fixture) {
        let subject = open(fixture, &sample).await;
        let source = sound(subject.image(&sample.images[0].platform).await);
        let members = members(&whole(&subject, &*source, DOCKER).await);
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
        let members = members(&whole(&subject, &*source, OCI).await);
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
        for form in ALL {
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
    let mut damaged = vec![(samples::wrong_diff_id(), vec![DOCKER, Tar::Flat])];
    // A medium that keeps no layers as they are makes others of these.
    if fixture.fidelity() == Fidelity::Exact {
        damaged.push((altered(image.clone(), &layer, flipped), ALL.to_vec()));
        damaged.push((altered(image.clone(), &layer, |bytes| bytes.slice(..bytes.len() / 2)), ALL.to_vec()));
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
    for form in ALL {
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
    form: Tar,
    what: &str,
) -> Error {
    let mut stream = match written(subject, source, form).await {
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
    for form in ALL {
        let guard = Arc::new(());
        let inner = sound(subject.image(&sample.images[0].platform).await);
        let source = Hooked { inner, layers: Layers::Wait, _guard: Arc::clone(&guard) };
        let mut stream = sound(written(&subject, &source, form).await);
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

async fn lazy_no_blob_read_for_config_only(fixture: &dyn Fixture) {
    for sample in images(fixture) {
        let (subject, platform) = (open(fixture, &sample).await, sound(sample.images[0].platform.parse()));
        let counting = Counting::new(&*subject.registry);
        let source = sound(subject.client.image(&counting, subject.reference(), &platform).await);
        let layers = sound(source.layers());
        assert_eq!(layers.len(), sound(sound(source.config().await).diff_ids()).len(), "{}", sample.name);
        assert!(source.descriptor().size() > 0, "{}", sample.name);
        let config = sound(source.manifest()).config().digest();
        let mut fetched = counting.fetched();
        fetched.retain(|blob| blob != config);
        assert_eq!(fetched, [], "{}: blobs besides the config", sample.name);
    }
}

async fn non_image_artifact_config_gives_typed_error(fixture: &dyn Fixture) {
    if fixture.fidelity() != Fidelity::Exact {
        return not_judged("the medium holds no artifacts");
    }
    for sample in [samples::artifact(), samples::artifact_without_layers()] {
        let subject = open(fixture, &sample).await;
        let source = sound(subject.image("linux/amd64").await);
        let flat = subject.client.flat_reader(&*source).await.map(drop);
        for outcome in [source.config().await.map(drop), source.layer_tar(0).await.map(drop), flat] {
            let error = outcome.expect_err("an artifact is no image");
            assert!(matches!(error.detail(), Some(DocumentFault::NotAnImage(_))), "{}: {error}", sample.name);
        }
    }
}

async fn a_flattened_tar_reads_each_blob_once(fixture: &dyn Fixture) {
    for sample in [samples::rootfs(), samples::uncompressed(), samples::zstandard()] {
        let (subject, platform) = (open(fixture, &sample).await, sound("linux/amd64".parse()));
        let counting = Counting::new(&*subject.registry);
        let source = sound(subject.client.image(&counting, subject.reference(), &platform).await);
        let tar = whole(&subject, &*source, Tar::Flat).await;
        assert!(tar.len() > 1024, "{}: nothing is in the tar", sample.name);
        let fetched = counting.fetched();
        for layer in sound(source.layers()) {
            let times = fetched.iter().filter(|blob| *blob == layer.digest()).count();
            assert_eq!(times, 1, "{}: {} was read {times} times", sample.name, layer.digest());
        }
    }
}

async fn a_hard_link_across_layers_is_one_file_in_the_flattened_tar(fixture: &dyn Fixture) {
    let lower =
        LayerBuilder::new().dir("d", 0o755).file("d/first", 0o644, b"one").file("gone", 0o644, b"two");
    let links = LayerBuilder::new().hard_link("a", "d/first").hard_link("z", "gone").hard_link("y", "gone");
    let upper = LayerBuilder::new().whiteout("gone").file("d/first", 0o644, b"another");
    let cases = [
        (vec![lower.clone(), links.clone()], "/a=3 /d/first->/a /gone=3 /y->/gone /z->/gone"),
        (vec![lower, links, upper], "/a=3 /d/first=7 /y=3 /z->/y"),
    ];
    for (layers, expected) in cases {
        let layers: Vec<_> = layers.into_iter().map(LayerBuilder::finish).collect();
        let subject = open(fixture, &samples::of_layers("layers", &layers)).await;
        let source = sound(subject.image("linux/amd64").await);
        let mut names = Vec::new();
        for LayerEntry { entry, .. } in sound(read_tar(whole(&subject, &*source, Tar::Flat).await)) {
            match entry.kind {
                EntryKind::HardLink { target } => names.push(format!("{}->{target}", entry.path)),
                EntryKind::Node(FileKind::File { size, .. }) => names.push(format!("{}={size}", entry.path)),
                EntryKind::Node(_) => {}
            }
        }
        names.sort();
        assert_eq!(names.join(" "), expected);
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

async fn written(
    subject: &BackendUnderTest,
    source: &dyn ImageSource,
    form: Tar,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    match form {
        Tar::Archive(form) => subject.client.archive(source, &sound(reference::parse(OTHER)), form).await,
        Tar::Flat => subject.client.flat_reader(source).await,
    }
}

async fn whole(subject: &BackendUnderTest, source: &dyn ImageSource, form: Tar) -> Vec<u8> {
    let mut stream = sound(written(subject, source, form).await);
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
