//! The objects of a cache, past it: read, replaced and listed.

use std::fs;
use std::future::Future;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use plyfold_core::{ArtifactKey, Digest};
use serde_json::Value;

/// The prefix of every cache here.
pub(crate) const PREFIX: &str = "a/fleet";

/// Where objects are.
#[derive(Clone, Debug)]
pub(crate) enum Objects {
    Bucket(Arc<dyn ObjectStore>),
    Folder(PathBuf),
}

impl Objects {
    /// An object.
    pub(crate) fn read(&self, below: &str) -> Option<Bytes> {
        match self {
            Self::Bucket(store) => {
                let (store, path) = (store.clone(), path(below));
                apart(async move { store.get(&path).await.ok()?.bytes().await.ok() })
            }
            Self::Folder(root) => fs::read(root.join(PREFIX).join(below)).ok().map(Bytes::from),
        }
    }

    /// Puts an object.
    pub(crate) fn write(&self, below: &str, content: Bytes) {
        match self {
            Self::Bucket(store) => {
                let (store, path) = (store.clone(), path(below));
                apart(async move { store.put(&path, content.into()).await }).unwrap();
            }
            Self::Folder(root) => fs::write(root.join(PREFIX).join(below), content).unwrap(),
        }
    }

    /// All objects below the prefix, with their sizes.
    pub(crate) fn list(&self) -> Vec<(String, u64)> {
        match self {
            Self::Bucket(store) => {
                let store = store.clone();
                let found =
                    apart(async move { store.list(Some(&PREFIX.into())).try_collect::<Vec<_>>().await });
                let below = |path: &Path| path.as_ref().strip_prefix(PREFIX).unwrap()[1..].to_owned();
                found.unwrap().iter().map(|object| (below(&object.location), object.size)).collect()
            }
            Self::Folder(root) => files(&root.join(PREFIX), ""),
        }
    }

    /// The first line of a record.
    pub(crate) fn record(&self, below: &str) -> Option<Value> {
        serde_json::from_slice(self.read(below)?.split(|byte| *byte == b'\n').next()?).ok()
    }

    /// Other content in the place of that of a record; whether there is one.
    fn overwrite(&self, below: &str, content: &[u8]) -> bool {
        let Some(record) = self.record(below) else { return false };
        match record["data"].as_str() {
            Some(id) => self.write(&format!("data/{below}/{id}"), Bytes::copy_from_slice(content)),
            None => self.write(below, [record.to_string().as_bytes(), b"\n", content].concat().into()),
        }
        true
    }

    /// Other content in the place of a blob's.
    pub(crate) fn damage(&self, digest: &Digest, content: &[u8]) {
        let below = format!("blobs/{}/{}", digest.algorithm(), digest.digest());
        assert!(self.overwrite(&below, content), "{digest} is there");
    }

    /// Other content in the place of an artifact's; whether there is one.
    pub(crate) fn damage_artifact(&self, key: &ArtifactKey, content: &[u8]) -> bool {
        let is_of = |path: &str| {
            let content = self.record(path).map(|record| record["artifact"]["content"].clone());
            content.is_some_and(|content| content == key.content.as_ref())
        };
        let objects = self.list();
        let records = objects.iter().filter(|(path, size)| path.starts_with("artifacts/") && *size > 16);
        let record = records.into_iter().find(|(path, _)| is_of(path));
        record.is_some_and(|(path, _)| self.overwrite(path, content))
    }

    /// What nothing finished leaves.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        // What was dropped ends in the background.
        let begun = Instant::now();
        loop {
            let left = self.unfinished();
            if left.is_empty() || begun.elapsed() > Duration::from_secs(5) {
                return left;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn unfinished(&self) -> Vec<String> {
        let objects = self.list();
        let is_unfinished = |(path, size): &&(String, u64)| {
            let is_record = path.starts_with("blobs/") || path.starts_with("artifacts/");
            let is_writing = || self.record(path).is_some_and(|record| record["state"] == "writing");
            let others = ["transactions/", "probes/"].iter().any(|folder| path.starts_with(folder));
            (is_record && *size > 16 && is_writing()) || others || path.contains(".plyfold-")
        };
        objects.iter().filter(is_unfinished).map(|(path, _)| path.clone()).collect()
    }
}

fn path(below: &str) -> Path {
    Path::parse(format!("{PREFIX}/{below}")).unwrap()
}

/// The files of a folder, but those to lock.
fn files(folder: &FilePath, below: &str) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = format!("{below}{}", entry.file_name().to_str().unwrap());
        // It may be gone by now.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            found.extend(files(&entry.path(), &format!("{name}/")));
        } else if !name.starts_with(".plyfold-lock-") {
            found.push((name, metadata.len()));
        }
    }
    found
}

/// Runs requests on another thread: what waits may be on the runtime that would make them.
fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || runtime.block_on(work)).join().unwrap()
}
