//! Mutants of what is made from layers.

use std::path::PathBuf;
use std::sync::Arc;

use plyfold_core::memory::MemoryCache;
use plyfold_core::{Artifact, ArtifactKey, ArtifactWriter, CacheProvider as _, Output, Result};

use super::{BrokenCache, CacheFault, Shared};

impl BrokenCache {
    pub(super) async fn broken_artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
        let made = self.shared.made.lock().unwrap().get(key).cloned();
        match (self.fault, made) {
            (
                CacheFault::ChangedArtifactsTrusted | CacheFault::DroppedArtifactsPublished,
                Some((path, size)),
            ) => {
                return Ok(Artifact::Present(path, size));
            }
            (CacheFault::TwoMakers, None) => return MemoryCache::new()?.artifact(key).await,
            _ => {}
        }
        Ok(match self.inner.artifact(key).await? {
            Artifact::Vacant(inner) => Artifact::Vacant(Box::new(BrokenArtifact {
                inner: Some(inner),
                key: key.clone(),
                shared: self.shared.clone(),
                publishes: self.fault == CacheFault::DroppedArtifactsPublished,
            })),
            present @ Artifact::Present(..) => present,
        })
    }
}

#[derive(Debug)]
struct BrokenArtifact {
    /// `None` once it has ended.
    inner: Option<Box<dyn ArtifactWriter>>,
    key: ArtifactKey,
    shared: Arc<Shared>,
    /// Whether it is published when it is dropped.
    publishes: bool,
}

impl BrokenArtifact {
    fn finish(&mut self) -> Result<(PathBuf, u64)> {
        let made = self.inner.take().expect("it has not ended").commit()?;
        self.shared.made.lock().unwrap().insert(self.key.clone(), made.clone());
        Ok(made)
    }
}

impl ArtifactWriter for BrokenArtifact {
    fn output(&mut self) -> &mut dyn Output {
        self.inner.as_mut().expect("it has not ended").output()
    }

    fn commit(mut self: Box<Self>) -> Result<(PathBuf, u64)> {
        self.finish()
    }
}

impl Drop for BrokenArtifact {
    fn drop(&mut self) {
        if self.publishes && self.inner.is_some() {
            self.finish().unwrap();
        }
    }
}
