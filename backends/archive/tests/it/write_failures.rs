//! Archives whose writer is cancelled, or fails.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use plyfold_archive::Archive;
use plyfold_conformance::samples::{self, Sample};
use plyfold_core::layout_index::blob_name;
use plyfold_core::save::file_header;
use plyfold_core::{Blob, BlobRange, ErrorKind, ImageRegistry as _, RawManifest, digest, reference};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use serde_json::{Value, json};

use crate::written::{NAME, name, new, open, push};

const PART: &str = ".images.tar.plyfold-part";

/// Stores the blobs of an image, and sets no name.
async fn store(archive: &Archive, sample: &Sample) {
    for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
        let blob = Blob::from_bytes(&blob.descriptor, BlobRange::FULL, &blob.bytes).unwrap();
        archive.push_blob(&name(NAME), blob).await.unwrap();
    }
}

fn top(sample: &Sample) -> RawManifest {
    let bytes = sample.blob(sample.top.digest()).unwrap().clone();
    RawManifest::described(bytes, &sample.top).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_cancelled_at_its_begin_keeps_what_was_left() {
    let (folder, path) = new();
    let image = samples::image();
    store(&open(&path), &image).await;
    let part = folder.path().join(PART);
    let left = fs::read(&part).unwrap();
    // A blob behind it that takes long to hash.
    let (header, long) = (file_header(&blob_name(&digest::sha256(b"")), 64 << 30).unwrap(), 64 << 30);
    let (file, end) = (OpenOptions::new().write(true).open(&part).unwrap(), left.len() as u64);
    file.write_all_at(&header, end).unwrap();
    let length = end + header.len() as u64 + long;
    file.set_len(length).unwrap();
    let other = open(&path);
    let writing = tokio::spawn(async move { store(&other, &samples::zstandard()).await });
    let lock = File::open(&part).unwrap();
    while lock.try_lock().is_ok() {
        lock.unlock().unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    writing.abort();
    tokio::task::spawn_blocking(move || lock.lock()).await.unwrap().unwrap();
    assert_eq!(fs::metadata(&part).unwrap().len(), length);
    file.set_len(end).unwrap();
    assert!(fs::read(&part).unwrap() == left);
    push(&open(&path), NAME, &image).await.unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
}

/// With one thread for blocking work, which is busy, the work begins when it is cancelled.
#[test]
fn names_that_are_cancelled_are_not_set() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(1).build().unwrap().block_on(async {
        let (folder, path) = new();
        let (archive, image) = (open(&path), samples::image());
        store(&archive, &image).await;
        let (go_on, waits) = mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || waits.recv());
        let names = [(name(NAME), top(&image))];
        let pushed = tokio::time::timeout(Duration::from_millis(50), archive.push_names(&names)).await;
        assert!(pushed.is_err(), "{pushed:?}");
        go_on.send(()).unwrap();
        busy.await.unwrap().unwrap();
        tokio::task::spawn_blocking(|| {}).await.unwrap();
        assert!(!path.exists());
        // The same handle goes on.
        archive.push_names(&names).await.unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    });
}

/// The archive has its name by then, and is not written to again.
#[test]
fn an_archive_whose_folder_cannot_be_synced_stays_as_it_was_published() {
    // This thread, and those that it starts, may open what a user other than root may.
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
    set_capabilities(None, sets).unwrap();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let (folder, path) = new();
        let (archive, image, other) = (open(&path), samples::image(), samples::zstandard());
        store(&archive, &image).await;
        // Files can be made in it, and it cannot be opened.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o333)).unwrap();
        let pushed = archive.push_names(&[(name(NAME), top(&image))]).await;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        assert_eq!(*pushed.unwrap_err().kind(), ErrorKind::Io);
        let published = fs::read(&path).unwrap();
        store(&archive, &other).await;
        assert!(fs::read(&path).unwrap() == published);
        push(&archive, "a.example/other:1", &other).await.unwrap();
        for (text, sample) in [(NAME, &image), ("a.example/other:1", &other)] {
            let found = open(&path).manifest(&name(text)).await.unwrap();
            assert_eq!(found.digest(), sample.top.digest());
        }
    });
}

/// What an archive holds may be secret, so no other user reads it before it has the archive's mode.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_user_reads_what_is_not_published() {
    let (folder, path) = new();
    let archive = open(&path);
    store(&archive, &samples::image()).await;
    assert_eq!(mode(&folder.path().join(PART)), 0o600);
    push(&archive, NAME, &samples::image()).await.unwrap();
    let plain = folder.path().join("plain");
    fs::write(&plain, "").unwrap();
    assert_eq!(mode(&path), mode(&plain));
}

/// With blobs of another image beside it an archive is copied into a second file, which a killed writer leaves.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_file_of_a_killed_writer_is_removed() {
    let (folder, path) = new();
    store(&open(&path), &samples::zstandard()).await;
    let second = folder.path().join(format!("{PART}-2"));
    fs::write(&second, "a part of an archive").unwrap();
    push(&open(&path), NAME, &samples::image()).await.unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    assert_ne!(mode(&path), 0o600);
}

/// It would be read 8,000 times otherwise, once for the check and once for Docker's list.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_an_index_lists_often_is_read_once() {
    let (_folder, path) = new();
    let archive = open(&path);
    let raw = |value: Value| RawManifest::new(value.to_string().into_bytes(), None).unwrap();
    let config = json!({
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": digest::sha256(b"{}"),
        "size": 2,
    });
    let artifact = raw(json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example",
        "config": config,
        "layers": [],
        "annotations": { "long": "n".repeat(3 << 20) },
    }));
    let index = raw(json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": vec![artifact.descriptor(); 4000],
    }));
    let empty = serde_json::from_value(config).unwrap();
    let blob = Blob::from_bytes(&empty, BlobRange::FULL, &b"{}".as_slice().into()).unwrap();
    archive.push_blob(&name(NAME), blob).await.unwrap();
    archive.push_manifest(&reference::by_digest(&name(NAME), artifact.digest()), &artifact).await.unwrap();
    let names = [(name(NAME), index)];
    let pushed = tokio::time::timeout(Duration::from_secs(10), archive.push_names(&names)).await;
    pushed.unwrap().unwrap();
}
