//! The suite on a folder of files, and what only files can get wrong.

use std::fs;

use async_trait::async_trait;
use plyfold_conformance::{CacheFixture, CacheMedium, CacheUnderTest};
use plyfold_core::{ArtifactKey, CacheProvider, Digest, Result};
use plyfold_object_store::{Config, ObjectStoreCache};
use tempfile::TempDir;

use crate::objects::Objects;

/// Caches in folders.
struct Folders;

/// A folder, which is removed with it.
#[derive(Debug)]
struct Folder {
    folder: TempDir,
    objects: Objects,
}

impl Folder {
    fn new() -> Self {
        // In memory, where there is such a place: the rules are not about the time that a disk takes.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        let objects = Objects::Folder(folder.path().to_owned());
        Self { folder, objects }
    }

    fn uri(&self) -> String {
        format!("file://{}/a/fleet", self.folder.path().display())
    }

    async fn cache(&self) -> Result<ObjectStoreCache> {
        ObjectStoreCache::open(&self.uri(), &Config::default()).await
    }
}

#[async_trait]
impl CacheFixture for Folders {
    async fn open(&self) -> CacheUnderTest {
        let folder = Folder::new();
        CacheUnderTest::new(Box::new(folder.cache().await.unwrap()), folder)
    }

    fn not_judged(&self) -> &'static [&'static str] {
        // As in memory: its artifacts are read through the cache.
        &["a_changed_artifact_is_made_again", "partial_downloads_are_counted_and_dropped"]
    }
}

#[async_trait]
impl CacheMedium for Folder {
    async fn reopen(&self) -> Result<Box<dyn CacheProvider>> {
        Ok(Box::new(self.cache().await?))
    }

    async fn reopen_from_nothing(&self) -> Option<Result<Box<dyn CacheProvider>>> {
        let moved = self.folder.path().join("moved");
        fs::rename(self.folder.path().join("a"), &moved).unwrap();
        let uri = format!("file://{}/fleet", moved.display());
        let opened = ObjectStoreCache::open(&uri, &Config::default()).await;
        Some(opened.map(|cache| Box::new(cache) as _))
    }

    fn damage(&self, digest: &Digest, content: &[u8]) {
        self.objects.damage(digest, content);
    }

    async fn damage_artifact(&self, key: &ArtifactKey, content: &[u8]) -> bool {
        self.objects.damage_artifact(key, content)
    }

    fn leftovers(&self) -> Vec<String> {
        self.objects.leftovers()
    }
}

plyfold_conformance::cache_suite!(Folders);

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_told() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let uri = format!("file://{}", file.path().display());
    let error = ObjectStoreCache::open(&uri, &Config::default()).await.unwrap_err();
    assert_eq!(*error.kind(), plyfold_core::ErrorKind::Io);
}
