//! Stages of caches.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use plyfold_core::{CacheProvider, Digest, ImageRegistry, Result};

use super::{Client, CoreClient};

/// How long a rule waits for what must not wait. Only a guard: what is sound never comes near it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes caches: what [`cache_suite!`](crate::cache_suite) judges.
#[async_trait]
pub trait CacheStage: Send + Sync {
    /// A fresh, empty cache.
    async fn open(&self) -> CacheSubject;

    /// Whether the cache collects, counts and pins; otherwise the rules about it check that it says so.
    fn collects(&self) -> bool {
        true
    }

    /// How long a rule waits for what must not wait. Only mutants, whose wait is in vain, shorten it.
    fn patience(&self) -> Duration {
        PATIENCE
    }

    /// As [`Stage::not_judged`](crate::Stage::not_judged).
    fn not_judged(&self) -> &'static [&'static str] {
        &[]
    }
}

/// A cache, and a way behind its back.
#[derive(Debug)]
pub struct CacheSubject {
    /// The cache under test.
    pub cache: Box<dyn CacheProvider>,
    /// Its medium, for damage, for inspection and for further handles.
    pub medium: Box<dyn CacheMedium>,
    /// What is derived from the cache. Only mutants replace it.
    pub client: Arc<dyn Client>,
}

impl CacheSubject {
    /// A fresh cache on its medium.
    pub fn new(cache: Box<dyn CacheProvider>, medium: impl CacheMedium + 'static) -> Self {
        Self { cache, medium: Box::new(medium), client: Arc::new(CoreClient) }
    }
}

/// What a test does behind a cache's back. It also keeps the medium alive.
#[async_trait]
pub trait CacheMedium: Debug + Send + Sync {
    /// Another handle on the same medium, opened as another process would; a clone where the medium is memory.
    ///
    /// # Errors
    /// Those of opening the cache.
    async fn reopen(&self) -> Result<Box<dyn CacheProvider>>;

    /// Replaces the stored content of a blob that is there.
    fn damage(&self, digest: &Digest, content: &[u8]);

    /// Temporary files and the like that no finished operation should leave, as text.
    fn leftovers(&self) -> Vec<String>;
}

/// Opens caches that are OCI layout directories: what [`layout_suite!`](crate::layout_suite) judges, beside
/// [`cache_suite!`](crate::cache_suite).
#[async_trait]
pub trait LayoutStage: Send + Sync {
    /// A handle on the cache in `directory`, which is made when there is none.
    ///
    /// # Errors
    /// Those of opening the cache.
    async fn open(&self, directory: &Path) -> Result<Box<dyn CacheProvider>>;

    /// The layout in `directory` as a registry, by a handle that writes nothing unless it is pushed to; `None` when
    /// there is no such backend.
    async fn registry(&self, directory: &Path) -> Option<Box<dyn ImageRegistry>> {
        let _ = directory;
        None
    }

    /// As [`CacheStage::patience`].
    fn patience(&self) -> Duration {
        PATIENCE
    }

    /// As [`Stage::not_judged`](crate::Stage::not_judged).
    fn not_judged(&self) -> &'static [&'static str] {
        &[]
    }
}
