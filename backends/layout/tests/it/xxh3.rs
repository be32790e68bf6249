//! The checksums that are kept with blobs.

use std::fs;

use bytes::Bytes;
use plyfold_core::xxh3::Xxh3;
use plyfold_core::{BlobRange, CacheProvider as _, ImageRegistry as _, Ingest};
use plyfold_layout::{Config, Layout, Store};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use tempfile::TempDir;

use super::{described, name};

/// What is kept with a blob's file is of that file alone, and of the store.
#[tokio::test(flavor = "multi_thread")]
async fn the_checksum_of_a_blob_is_kept_with_its_file() {
    const NAME: &str = "user.plyfold.xxh3";
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    let content = Bytes::from(vec![7; 300_000]);
    let blob = described(&content);
    // The first part comes with an earlier writer.
    for (part, is_last) in [(content.slice(..100_000), false), (content.slice(100_000..), true)] {
        let Ingest::Vacant(mut writer) = store.ingest(&blob).await.unwrap() else { panic!("it is there") };
        writer.set_resumable(true);
        writer.write(part).await.unwrap();
        if is_last { writer.commit().await.unwrap() } else { writer.suspend().await.unwrap() }
    }
    let path = store.path().join("blobs/sha256").join(blob.digest().digest());
    let mut text = [0; 100];
    let Ok(length) = getxattr(&path, NAME, &mut text[..]) else {
        assert_eq!(store.open(&blob, BlobRange::FULL).await.unwrap().xxh3(), None);
        return;
    };
    let mut sum = Xxh3::default();
    sum.update(&content);
    assert_eq!(store.open(&blob, BlobRange::FULL).await.unwrap().xxh3(), Some(sum.finish()));
    let layout = Layout::new(store.path(), Config::default());
    assert_eq!(layout.blob(&name("a"), &blob, BlobRange::FULL).await.unwrap().xxh3(), None);
    // A copy of the file has no use for it.
    fs::rename(&path, folder.path().join("other")).unwrap();
    fs::write(&path, &content).unwrap();
    let flags = XattrFlags::empty();
    setxattr(&path, NAME, &text[..length], flags).unwrap();
    assert_eq!(store.open(&blob, BlobRange::FULL).await.unwrap().xxh3(), None);
    for text in ["", "x", "0 1 2", "0123456789abcdef 1 2 3"] {
        setxattr(&path, NAME, text.as_bytes(), flags).unwrap();
        assert_eq!(store.open(&blob, BlobRange::FULL).await.unwrap().xxh3(), None, "{text}");
    }
}
