//! Archives whose writer is cancelled, or fails.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use plyfold_archive::Archive;
use plyfold_conformance::samples::{self, Sample};
use plyfold_core::layout_index::blob_name;
use plyfold_core::save::file_header;
use plyfold_core::{Blob, BlobRange, ImageRegistry as _, digest};

use crate::written::{NAME, name, new, open, push};

const PART: &str = ".images.tar.plyfold-part";

/// Stores the blobs of an image, and sets no name.
async fn store(archive: &Archive, sample: &Sample) {
    for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
        let blob = Blob::from_bytes(&blob.descriptor, BlobRange::FULL, &blob.bytes).unwrap();
        archive.push_blob(&name(NAME), blob).await.unwrap();
    }
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
