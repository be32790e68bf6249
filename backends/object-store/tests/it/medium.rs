//! A bucket, and the way into it past the cache.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use plyfold_conformance::{CacheMedium, CacheUnderTest};
use plyfold_core::{ArtifactKey, CacheProvider, Descriptor, Digest, Result};
use plyfold_object_store::{Config, ObjectStoreCache};

use crate::objects::{Objects, PREFIX};

/// A bucket.
#[derive(Clone, Debug)]
pub(crate) struct Medium {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The same, where it is memory.
    pub(crate) memory: Option<Arc<InMemory>>,
    pub(crate) config: Config,
}

impl Medium {
    pub(crate) fn memory() -> Self {
        let memory = Arc::new(InMemory::new());
        Self { store: memory.clone(), memory: Some(memory), config: Config::default() }
    }

    pub(crate) async fn cache(&self) -> Result<ObjectStoreCache> {
        ObjectStoreCache::on(self.store.clone(), &PREFIX.into(), "test:bucket", &self.config).await
    }

    pub(crate) async fn under_test(self) -> CacheUnderTest {
        CacheUnderTest::new(Box::new(self.cache().await.unwrap()), self)
    }

    pub(crate) fn raw(&self) -> Objects {
        Objects::Bucket(self.store.clone())
    }

    /// What nothing finished leaves.
    pub(crate) fn left(&self) -> Vec<String> {
        self.raw().leftovers()
    }

    /// The record of a blob.
    pub(crate) fn record_of(&self, blob: &Descriptor) -> Option<Bytes> {
        self.raw().read(&format!("blobs/{}/{}", blob.digest().algorithm(), blob.digest().digest()))
    }

    /// All objects, with their sizes.
    pub(crate) fn objects(&self) -> Vec<(String, u64)> {
        self.raw().list()
    }
}

#[async_trait]
impl CacheMedium for Medium {
    async fn reopen(&self) -> Result<Box<dyn CacheProvider>> {
        Ok(Box::new(self.cache().await?))
    }

    async fn reopen_from_nothing(&self) -> Option<Result<Box<dyn CacheProvider>>> {
        let store: Arc<dyn ObjectStore> = match &self.memory {
            Some(memory) => Arc::new(memory.fork()),
            None => self.store.clone(),
        };
        let other = Self { store, memory: None, config: self.config.clone() };
        Some(other.reopen().await)
    }

    fn damage(&self, digest: &Digest, content: &[u8]) {
        self.raw().damage(digest, content);
    }

    async fn damage_artifact(&self, key: &ArtifactKey, content: &[u8]) -> bool {
        self.raw().damage_artifact(key, content)
    }

    fn leftovers(&self) -> Vec<String> {
        self.raw().leftovers()
    }
}
