//! The conformance suite on layouts and on the store, and what only directories can get wrong.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's failure")]

mod checksum;
mod collect;
mod cut_off;
mod dir;
mod formats;
mod hostile;
mod layout;
mod lease;
mod processes;
mod referrers;
mod store;
mod verify;
mod waiting;
mod xxh3;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use plyfold_conformance::{CacheFixture, CacheMedium, CacheUnderTest, LayoutFixture};
use plyfold_core::{
    Blob, BlobRange, CacheProvider, Descriptor, Digest, Error, ErrorKind, ImageRegistry, Reference, Result,
};
use plyfold_core::{digest, reference};
use plyfold_layout::{Config, Directory, Layout, Store};
use tempfile::TempDir;

async fn open(path: PathBuf) -> Result<Box<dyn ImageRegistry>> {
    Ok(Box::new(Layout::new(path, Config::default())))
}

async fn open_directory(path: PathBuf) -> Result<Box<dyn ImageRegistry>> {
    Ok(Box::new(Directory::new(path, Config::default())?))
}

mod registry {
    plyfold_conformance::registry_suite!(plyfold_conformance::fixtures::Layout::new(super::open));
    plyfold_conformance::hostile_suite!(plyfold_conformance::fixtures::Layout::new(super::open));
}

mod directory {
    plyfold_conformance::registry_suite!(plyfold_conformance::fixtures::Directory::new(
        super::open_directory
    ));
    plyfold_conformance::hostile_suite!(plyfold_conformance::fixtures::Directory::new(super::open_directory));
}

mod cache {
    plyfold_conformance::cache_suite!(super::Fresh);
    plyfold_conformance::layout_suite!(super::Fresh);
}

/// A store in a directory of its own.
struct Fresh;

#[derive(Debug)]
struct Medium(TempDir);

#[async_trait]
impl CacheFixture for Fresh {
    async fn open(&self) -> CacheUnderTest {
        let folder = TempDir::new().unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        CacheUnderTest::new(Box::new(store), Medium(folder))
    }
}

#[async_trait]
impl LayoutFixture for Fresh {
    async fn open(&self, directory: &Path) -> Result<Box<dyn CacheProvider>> {
        Ok(Box::new(Store::open(directory)?))
    }

    async fn registry(&self, directory: &Path) -> Option<Box<dyn ImageRegistry>> {
        Some(Box::new(Layout::new(directory, Config::default())))
    }
}

#[async_trait]
impl CacheMedium for Medium {
    async fn reopen(&self) -> Result<Box<dyn CacheProvider>> {
        Ok(Box::new(Store::open(self.0.path().join("store"))?))
    }

    /// In another place, of which nothing in this process knows.
    async fn reopen_from_nothing(&self) -> Option<Result<Box<dyn CacheProvider>>> {
        let moved = self.0.path().join("moved");
        std::fs::rename(self.0.path().join("store"), &moved).unwrap();
        Some(Store::open(moved).map(|store| Box::new(store) as Box<dyn CacheProvider>))
    }

    fn damage(&self, digest: &Digest, content: &[u8]) {
        let path = blob_path(&self.0.path().join("store"), digest);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn leftovers(&self) -> Vec<String> {
        names_in(&self.0.path().join("store/ingest"))
    }
}

fn blob_path(layout: &Path, digest: &Digest) -> PathBuf {
    layout.join("blobs").join(digest.algorithm().as_ref()).join(digest.digest())
}

/// The names in a folder, sorted; none when there is no such folder.
fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The descriptor of some content.
fn described(content: &[u8]) -> Descriptor {
    Descriptor::new("application/octet-stream".into(), content.len() as u64, digest::sha256(content))
}

fn blob(content: &[u8]) -> Blob {
    Blob::from_bytes(&described(content), BlobRange::FULL, &Bytes::copy_from_slice(content)).unwrap()
}

fn name(text: &str) -> Reference {
    reference::parse(text).unwrap()
}

/// The error of an outcome that must fail with this kind.
#[track_caller]
fn fails<T: std::fmt::Debug>(outcome: Result<T>, kind: &ErrorKind) -> Error {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    error
}
