//! X on archives: files of several images that a backend reads and writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use plyfold_core::copy::{CopyOptions, copy};
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{
    Blob, BlobRange, Descriptor, ErrorKind, ImageRegistry, ImageRegistryExt as _, ImageSource as _,
    ImageSourceExt as _, Opened, Platform, RawManifest, Reference, RegistrySource, reference,
};
use tempfile::TempDir;

use super::probe::{NAME, error_of, read, sound};
use crate::fixtures::fill;
use crate::rule::rules;
use crate::samples::{self, LayerBuilder, Sample};
use crate::{ArchiveFixture, FixtureImage};

rules! {
    $ __archive_rules of dyn ArchiveFixture;
    "X 106" hybrid_docker25_archive_prefers_oci_side:
        "an image of both lists of an archive has the digests of its OCI side, unless its manifest there lacks layers of its config",
    "X 285" a_written_archive_reads_back_exactly:
        "what is pushed into an archive is read back from the file byte for byte, with what refers to it, and what was there stays",
    "X 286" an_archive_is_the_old_one_or_the_new_one:
        "until the names are set, and after a push that failed or was dropped, an archive is byte for byte what it was",
    "X 287" a_layer_is_written_once:
        "a blob of several images is one member of an archive, also when they are pushed one after the other",
    "X 288" an_archive_through_a_pipe_is_the_same:
        "an archive that comes through a pipe has the same images as the file",
}

/// A folder with the path of an archive, which is written when there is content.
fn place(content: Option<&[u8]>) -> (TempDir, PathBuf) {
    let folder = TempDir::new().expect("a temporary folder is made");
    let path = folder.path().join("images.tar");
    if let Some(content) = content {
        fs::write(&path, content).expect("an archive is written");
    }
    (folder, path)
}

fn name(text: &str) -> Reference {
    sound(reference::parse(text))
}

/// The file as it is.
fn content(path: &Path) -> Vec<u8> {
    fs::read(path).expect("the archive is there")
}

async fn hybrid_docker25_archive_prefers_oci_side(fixture: &dyn ArchiveFixture) {
    // One that a registry compressed: its digests are on the OCI side alone.
    let sample = samples::image();
    let (_folder, path) = place(Some(&samples::hybrid_archive(&[(NAME.to_owned(), &sample)])));
    let archive = sound(fixture.open(&path).await);
    assert!(sound(archive.manifest(&name(NAME)).await).bytes() == sample.top_bytes(), "the OCI side has it");
    let opened = Opened { registry: archive, reference: None };
    assert_eq!(sound(opened.references().await), [name(NAME)], "it is one image");
    // As Docker 25.0.0 wrote it.
    let sample = samples::uncompressed();
    let (_folder, path) = place(Some(&layerless(&sample)));
    let archive = sound(fixture.open(&path).await);
    let platform: Platform = sound(sample.images[0].platform.parse());
    let source = sound(RegistrySource::open(archive, &name(NAME), &platform).await);
    assert_eq!(
        source.raw().image().map(|manifest| manifest.layers().len()).ok(),
        Some(sample.images[0].layers.len())
    );
    for (index, layer) in sample.images[0].layers.iter().enumerate() {
        let mut tar = sound(source.layer_tar(index).await);
        let summary = tokio::task::spawn_blocking(move || tar.finish()).await.expect("a layer is read");
        assert_eq!(sound(summary).diff_id.as_ref(), Some(&layer.diff_id));
    }
}

/// An archive of both lists, whose manifest has no layers.
fn layerless(sample: &Sample) -> Vec<u8> {
    let mut manifest: serde_json::Value =
        serde_json::from_slice(sample.top_bytes()).expect("a sample's manifest is JSON");
    manifest["layers"] = serde_json::json!([]);
    let kind = sample.top.media_type().clone();
    let top = sound(RawManifest::new(manifest.to_string(), Some(&kind)));
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(&samples::hybrid_archive(&[(NAME.to_owned(), sample)])[..])
        .entries()
        .expect("a sample is a tar")
    {
        let mut entry = entry.expect("a sample is a tar");
        let path = entry.path().expect("a member has a name").to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).expect("a member is read");
        files.insert(path, bytes);
    }
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": kind, "digest": top.digest(), "size": top.descriptor().size(),
        "annotations": { "io.containerd.image.name": NAME },
    }]});
    files.insert("index.json".to_owned(), index.to_string().into_bytes());
    files.insert(member_of(top.descriptor()), top.bytes().to_vec());
    files.remove(&member_of(&sample.top));
    let archive = LayerBuilder::new();
    files.iter().fold(archive, |archive, (path, content)| archive.file(path, 0o644, content)).finish()
}

fn member_of(blob: &Descriptor) -> String {
    format!("blobs/{}", blob.digest().as_ref().replacen(':', "/", 1))
}

async fn a_written_archive_reads_back_exactly(fixture: &dyn ArchiveFixture) {
    let first = samples::zstandard();
    let other = "registry.example/library/first:1";
    for sample in samples::whole() {
        // Into no file, and into one that is there.
        for there in [None, Some(samples::oci_archive(&[(other.to_owned(), &first)]))] {
            let is_new = there.is_none();
            let (_folder, path) = place(there.as_deref());
            let origin = MemoryRegistry::new("origin");
            fill(&origin, &FixtureImage::new(NAME, &sample));
            push(fixture, &path, &origin, NAME).await;
            let archive = sound(fixture.open(&path).await);
            assert!(
                sound(archive.manifest(&name(NAME)).await).bytes() == sample.top_bytes(),
                "{}: the manifest of a new archive: {is_new}",
                sample.name
            );
            let memory = MemoryRegistry::new("back");
            sound(copy(&*archive, &name(NAME), &memory, &name(NAME), &CopyOptions::default()).await);
            if !is_new {
                let kept = sound(archive.manifest(&name(other)).await);
                assert!(kept.bytes() == first.top_bytes(), "{}: what was there", sample.name);
                sound(copy(&*archive, &name(other), &memory, &name(other), &CopyOptions::default()).await);
            }
        }
    }
    referrers_read_back(fixture).await;
}

/// An artifact about an image comes with it, and is listed in the file.
async fn referrers_read_back(fixture: &dyn ArchiveFixture) {
    let (_folder, path) = place(None);
    let (artifact, origin) = (samples::subject(), MemoryRegistry::new("origin"));
    let raw = sound(RawManifest::new(artifact.top_bytes().clone(), Some(artifact.top.media_type())));
    let about = raw.subject().expect("the sample has a subject").clone();
    fill(&origin, &FixtureImage::new("registry.example/library/app:other", &artifact));
    let by_digest = reference::by_digest(&name(NAME), raw.digest());
    sound(origin.push_manifest(&by_digest, &raw).await);
    let of = reference::by_digest(&name(NAME), about.digest());
    let archive = sound(fixture.open(&path).await);
    let options = CopyOptions { referrers: true, ..CopyOptions::default() };
    sound(copy(&origin, &of, &*archive, &name(NAME), &options).await);
    drop(archive);
    let archive = sound(fixture.open(&path).await);
    let listed = sound(archive.referrers(&name(NAME), about.digest(), None).await);
    assert_eq!(listed.iter().map(Descriptor::digest).collect::<Vec<_>>(), [raw.digest()]);
    assert!(sound(archive.manifest(&by_digest).await).bytes() == raw.bytes());
    for blob in raw.references() {
        let bytes = sound(read(archive.blob(&name(NAME), &blob, BlobRange::FULL).await).await);
        assert!(artifact.blob(blob.digest()).is_some_and(|wanted| bytes == *wanted), "{}", blob.digest());
    }
}

/// Copies an image of a registry into an archive, with a handle of its own.
async fn push(fixture: &dyn ArchiveFixture, path: &Path, origin: &MemoryRegistry, image: &str) {
    let archive = sound(fixture.open(path).await);
    sound(copy(origin, &name(image), &*archive, &name(image), &CopyOptions::default()).await);
}

async fn an_archive_is_the_old_one_or_the_new_one(fixture: &dyn ArchiveFixture) {
    let of = |text: &'static str| {
        samples::of_layers(text, &[LayerBuilder::new().file(text, 0o644, &vec![7; 100_000]).finish()])
    };
    let (there, new) = (of("there"), of("new"));
    let (_folder, path) = place(Some(&samples::hybrid_archive(&[(NAME.to_owned(), &there)])));
    let before = content(&path);
    let is_as_before = |when: &str| assert!(content(&path) == before, "the archive has changed {when}");
    let target = name("registry.example/library/new:1");
    let raw = sound(RawManifest::new(new.top_bytes().clone(), Some(new.top.media_type())));
    let archive = sound(fixture.open(&path).await);
    let blobs: Vec<_> = new.blobs.iter().filter(|blob| !blob.is_manifest()).collect();
    // Dropped in the middle of a blob.
    let begun = blobs.last().expect("the sample has blobs");
    let head = begun.bytes.slice(..begun.bytes.len() / 2);
    let stalled = stream::iter([Ok(head)]).chain(stream::pending()).boxed();
    let pushed = archive.push_blob(&target, sound(Blob::new(&begun.descriptor, stalled)));
    assert!(tokio::time::timeout(Duration::from_millis(200), pushed).await.is_err(), "the blob never ends");
    is_as_before("after a push that was dropped");
    // A blob that is another, and a name that lacks content.
    let wrong = Bytes::from(vec![0; begun.bytes.len()]);
    let wrong = sound(Blob::from_bytes(&begun.descriptor, BlobRange::FULL, &wrong));
    assert_eq!(*error_of(archive.push_blob(&target, wrong).await).kind(), ErrorKind::Corrupt);
    for blob in &blobs[1..] {
        let blob = sound(Blob::from_bytes(&blob.descriptor, BlobRange::FULL, &blob.bytes));
        sound(archive.push_blob(&target, blob).await);
    }
    is_as_before("while blobs are stored");
    let names = [(target.clone(), raw)];
    assert_eq!(*error_of(archive.push_names(&names).await).kind(), ErrorKind::NotFound);
    is_as_before("after a push that failed");
    let missing = sound(Blob::from_bytes(&blobs[0].descriptor, BlobRange::FULL, &blobs[0].bytes));
    sound(archive.push_blob(&target, missing).await);
    sound(archive.push_names(&names).await);
    // The handle that wrote it, and another one.
    for archive in [archive, sound(fixture.open(&path).await)] {
        for (name, sample) in [(&target, &new), (&name(NAME), &there)] {
            assert!(sound(archive.manifest(name).await).bytes() == sample.top_bytes(), "{name}");
            let platform = sound(sample.images[0].platform.parse());
            sound(RegistrySource::open(archive.clone(), name, &platform).await);
        }
    }
}

async fn a_layer_is_written_once(fixture: &dyn ArchiveFixture) {
    let tar = |text: &str| LayerBuilder::new().file(text, 0o644, text.as_bytes()).finish();
    let of = |text: &'static str| samples::of_layers(text, &[tar("shared"), tar(text)]);
    let (_folder, path) = place(None);
    let origin = MemoryRegistry::new("origin");
    for text in ["one", "two", "three"] {
        let image = format!("registry.example/library/{text}:1");
        fill(&origin, &FixtureImage::new(&image, &of(text)));
        push(fixture, &path, &origin, &image).await;
    }
    let mut members: BTreeMap<String, usize> = BTreeMap::new();
    for entry in tar::Archive::new(&content(&path)[..]).entries().expect("an archive is a tar") {
        let entry = entry.expect("an archive is a tar");
        *members.entry(entry.path().expect("a name").to_string_lossy().into_owned()).or_default() += 1;
    }
    let shared = &of("one").images[0].layers[0].descriptor;
    assert_eq!(members.get(&member_of(shared)), Some(&1), "{members:?}");
    assert!(members.values().all(|count| *count == 1), "a member is there twice: {members:?}");
}

async fn an_archive_through_a_pipe_is_the_same(fixture: &dyn ArchiveFixture) {
    let (folder, path) = place(None);
    let origin = MemoryRegistry::new("origin");
    let images = [(NAME, samples::index()), ("registry.example/library/tool:1", samples::image())];
    for (image, sample) in &images {
        fill(&origin, &FixtureImage::new(image, sample));
        push(fixture, &path, &origin, image).await;
    }
    let pipe = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600))
        .expect("a pipe is made");
    let (bytes, to) = (content(&path), pipe.clone());
    let writer = std::thread::spawn(move || fs::write(to, bytes));
    let archive = sound(fixture.open(&pipe).await);
    let file = sound(fixture.open(&path).await);
    for (image, sample) in &images {
        let (through, direct) =
            (sound(archive.manifest(&name(image)).await), sound(file.manifest(&name(image)).await));
        assert_eq!(through.digest(), direct.digest());
        let memory = MemoryRegistry::new("back");
        sound(copy(&*archive, &name(image), &memory, &name(image), &CopyOptions::default()).await);
        assert!(sound(memory.fetch_raw(&name(image)).await).bytes() == sample.top_bytes());
    }
    writer.join().expect("the writer ends").expect("all of it is read");
}
