//! Archives whose writer is cancelled, or fails.

use std::fs::{self, File, OpenOptions, Permissions};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use futures_util::stream;
use plyfold_archive::Archive;
use plyfold_conformance::samples::{self, Sample};
use plyfold_core::layout_index::blob_name;
use plyfold_core::save::file_header;
use plyfold_core::{
    Blob, BlobRange, Descriptor, Error, ErrorKind, ImageRegistry as _, ImageRegistryExt as _, RawManifest,
    digest, reference,
};
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

/// A manifest may declare what no file can have: nothing is kept of that, and others are stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_blob_that_no_file_can_have_is_dropped() {
    for size in [1 << 45, 1 << 62] {
        let (_folder, path) = new();
        let archive = open(&path);
        let huge = Descriptor::new(plyfold_core::MediaType::ImageLayer, size, digest::sha256(b"huge"));
        let broken = Err(Error::new(ErrorKind::Unavailable, "the transfer breaks"));
        let part = Blob::new(&huge, stream::iter([Ok(vec![1; 5000].into()), broken])).unwrap();
        assert_eq!(*archive.push_blob(&name(NAME), part).await.unwrap_err().kind(), ErrorKind::Unavailable);
        store(&archive, &samples::image()).await;
    }
}

/// What has come of a blob is kept when others come before its rest, also by another writer, and whenever that ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_kept_when_another_blob_comes_first() {
    let (folder, path) = new();
    let (image, other) = (samples::image(), samples::index());
    let layers: Vec<_> = image.images[0].layers.iter().map(|layer| layer.descriptor.clone()).collect();
    let [first, second, ..] = layers.as_slice() else { panic!("{layers:?}") };
    let content = |blob: &Descriptor| image.blob(blob.digest()).unwrap().clone();
    let to = &name(NAME);
    let cut = async |archive: &Archive, blob: &Descriptor, range: Range<u64>| {
        let bytes = content(blob).slice(range.start as usize..range.end as usize);
        let broken = Err(Error::new(ErrorKind::Unavailable, "the transfer breaks"));
        let part = Blob::ranged(blob, range.start..blob.size(), stream::iter([Ok(bytes), broken])).unwrap();
        assert_eq!(*archive.push_blob(to, part).await.unwrap_err().kind(), ErrorKind::Unavailable);
    };
    let kept = async |archive: &Archive| {
        [archive.partial_blob(to, first).await.unwrap(), archive.partial_blob(to, second).await.unwrap()]
    };
    let archive = open(&path);
    cut(&archive, first, 0..100).await;
    store(&archive, &other).await;
    cut(&archive, second, 0..70).await;
    assert_eq!(kept(&archive).await, [100, 70]);
    cut(&archive, first, 100..130).await;
    // As after a kill.
    let (part, killed) = (folder.path().join(PART), folder.path().join("killed"));
    fs::copy(&part, &killed).unwrap();
    assert_eq!(kept(&archive).await, [130, 70]);
    drop(archive);
    fs::rename(&killed, &part).unwrap();
    let archive = open(&path);
    assert_eq!(kept(&archive).await, [130, 70]);
    // All but the last bytes of one, and all of the other.
    cut(&archive, first, 130..first.size() - 1).await;
    let rest =
        Blob::ranged(second, 70..second.size(), stream::iter([Ok(content(second).slice(70..))])).unwrap();
    archive.push_blob(to, rest).await.unwrap();
    let [there, _] = kept(&archive).await;
    assert!(there < first.size() && there + 40 > first.size(), "{there} of {}", first.size());
    drop(archive);
    let archive = open(&path);
    assert_eq!(kept(&archive).await[0], there);
    assert!(archive.has_blob(to, second).await.unwrap());
    // It is wrong, or longer than it may be: nothing of it is kept, and what is behind it stays.
    for wrong in [vec![0; (first.size() - there) as usize], vec![0; 4096]] {
        cut(&archive, first, 0..there).await;
        let wrong = Blob::ranged(first, there..first.size(), stream::iter([Ok(wrong.into())])).unwrap();
        assert_eq!(*archive.push_blob(to, wrong).await.unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(kept(&archive).await[0], 0);
    }
    drop(archive);
    push(&open(&path), NAME, &image).await.unwrap();
    push(&open(&path), "a.example/other:1", &other).await.unwrap();
    for (text, sample) in [(NAME, &image), ("a.example/other:1", &other)] {
        let archive = open(&path);
        assert_eq!(archive.fetch_raw(&name(text)).await.unwrap().digest(), sample.top.digest());
        for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
            let read = archive.blob(&name(text), &blob.descriptor, BlobRange::FULL).await.unwrap();
            assert!(read.bytes(1 << 20).await.unwrap() == blob.bytes, "{}", blob.descriptor.digest());
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    // Each member of the archive is a blob that is complete, or a list.
    let bytes = fs::read(&path).unwrap();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let (name, mut content) = (entry.path().unwrap().display().to_string(), Vec::new());
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        if let Some(hex) = name.strip_prefix("blobs/sha256/").filter(|hex| !hex.is_empty()) {
            assert_eq!(digest::sha256(&content).digest(), hex);
        }
    }
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
