//! Archives whose writer is cancelled, or fails.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::time::Duration;

use plyfold_archive::Archive;
use plyfold_conformance::samples::{self, Sample};
use plyfold_core::layout_index::blob_name;
use plyfold_core::save::file_header;
use plyfold_core::{Blob, BlobRange, ErrorKind, ImageRegistry as _, RawManifest, digest};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

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
