//! Mutants of a cache.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use plyfold_conformance::{CacheStage, CacheSubject, Client, CoreClient};
use plyfold_core::memory::MemoryCache;
use plyfold_core::{
    Artifact, ArtifactKey, Blob, BlobRange, BlobWriter, CacheProvider, CacheProviderExt, Descriptor, Digest,
    Error, ImageRegistry, Ingest, NameChange, PullOptions, PullPolicy, PullResult, RawManifest, Reference,
    Result, digest, reference,
};

/// What is wrong with a mutant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum CacheFault {
    AbsenceIsError,
    AlwaysAsks,
    ChildrenUnknown,
    DamageKept,
    DigestUnchecked,
    ExistenceLies,
    FirstNameStays,
    None,
    NothingIsHere,
    OneNameForEachDigest,
    RemoveNeedsName,
    RemovesByDigest,
    RemovesContent,
    RepositoriesMixed,
    SizeUnchecked,
    VisibleBeforeCommit,
}

/// Caches in memory with one fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct BrokenCaches(pub(super) CacheFault);

#[async_trait]
impl CacheStage for BrokenCaches {
    async fn open(&self) -> CacheSubject {
        let inner = MemoryCache::new().unwrap();
        let cache = BrokenCache { inner: inner.clone(), fault: self.0, sizes: Arc::default() };
        let mut subject = CacheSubject::new(Box::new(cache), inner);
        subject.client = Box::new(BrokenPull(self.0));
        subject
    }
}

#[derive(Clone, Copy, Debug)]
struct BrokenPull(CacheFault);

#[async_trait]
impl Client for BrokenPull {
    async fn pull(
        &self,
        registry: &dyn ImageRegistry,
        reference: &Reference,
        cache: &dyn CacheProvider,
        options: &PullOptions,
    ) -> Result<PullResult> {
        let mut options = options.clone();
        if self.0 == CacheFault::AlwaysAsks {
            options.policy = PullPolicy::Always;
        }
        CoreClient.pull(registry, reference, cache, &options).await
    }
}

#[derive(Clone, Debug)]
struct BrokenCache {
    inner: MemoryCache,
    fault: CacheFault,
    /// Every size that was ever stored.
    sizes: Arc<Mutex<HashMap<Digest, u64>>>,
}

impl BrokenCache {
    async fn names_of(&self, digest: &Digest) -> Result<Vec<Reference>> {
        let names = self.inner.list().await?.into_iter();
        Ok(names.filter(|(_, descriptor)| descriptor.digest() == digest).map(|(name, _)| name).collect())
    }

    async fn set(&self, name: &Reference, descriptor: &Descriptor) -> Result<()> {
        match self.fault {
            CacheFault::FirstNameStays if self.inner.find_descriptor(name).await?.is_some() => return Ok(()),
            CacheFault::OneNameForEachDigest => {
                for other in self.names_of(descriptor.digest()).await? {
                    self.inner.remove(&other).await?;
                }
            }
            _ => {}
        }
        self.inner.update(&[NameChange::Set(name.clone(), descriptor.clone())]).await
    }

    async fn drop_name(&self, name: &Reference) -> Result<()> {
        let Some(descriptor) = self.inner.find_descriptor(name).await? else {
            return match self.fault {
                CacheFault::RemoveNeedsName => Err(Error::not_found("no such name")),
                _ => Ok(()),
            };
        };
        if self.fault == CacheFault::RemovesByDigest {
            for other in self.names_of(descriptor.digest()).await? {
                self.inner.remove(&other).await?;
            }
        }
        if self.fault == CacheFault::RemovesContent {
            let content = self.inner.content(&descriptor, 1 << 20).await?;
            for blob in RawManifest::new(content, None)?.references() {
                self.inner.quarantine(blob.digest()).await?;
            }
        }
        self.inner.remove(name).await
    }
}

#[async_trait]
impl CacheProvider for BrokenCache {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        let honest = self.inner.stat(digest).await?;
        match self.fault {
            CacheFault::AbsenceIsError if honest.is_none() => Err(Error::not_found("no such blob")),
            CacheFault::ExistenceLies => Ok(self.sizes.lock().unwrap().get(digest).copied().or(honest)),
            CacheFault::NothingIsHere => Ok(None),
            _ => Ok(honest),
        }
    }

    async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.inner.open(blob, range).await
    }

    async fn ingest(&self, blob: &Descriptor) -> Result<Ingest> {
        self.sizes.lock().unwrap().insert(blob.digest().clone(), blob.size());
        Ok(match self.inner.ingest(blob).await? {
            Ingest::Present => Ingest::Present,
            Ingest::Vacant(inner) => Ingest::Vacant(Box::new(BrokenWriter {
                inner,
                cache: self.inner.clone(),
                fault: self.fault,
                blob: blob.clone(),
                content: Vec::new(),
            })),
        })
    }

    async fn quarantine(&self, digest: &Digest) -> Result<()> {
        if self.fault == CacheFault::DamageKept { Ok(()) } else { self.inner.quarantine(digest).await }
    }

    async fn find_descriptor(&self, name: &Reference) -> Result<Option<Descriptor>> {
        let honest = self.inner.find_descriptor(name).await?;
        let Some(wanted) = reference::digest_of(name)? else { return Ok(honest) };
        let names = self.inner.list().await?;
        let top = names.iter().find(|(_, descriptor)| *descriptor.digest() == wanted);
        Ok(match self.fault {
            CacheFault::ChildrenUnknown if top.is_none() => None,
            CacheFault::RepositoriesMixed => top.map(|(_, descriptor)| descriptor.clone()).or(honest),
            _ => honest,
        })
    }

    async fn list(&self) -> Result<Vec<(Reference, Descriptor)>> {
        self.inner.list().await
    }

    async fn update(&self, changes: &[NameChange]) -> Result<()> {
        for change in changes {
            match change {
                NameChange::Remove(name) => self.drop_name(name).await?,
                NameChange::Set(name, descriptor) => self.set(name, descriptor).await?,
                NameChange::Pin(_) | NameChange::Unpin(_) => {
                    self.inner.update(std::slice::from_ref(change)).await?
                }
            }
        }
        Ok(())
    }

    async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
        self.inner.artifact(key).await
    }
}

impl fmt::Display for BrokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mutant {:?}", self.fault)
    }
}

#[derive(Debug)]
struct BrokenWriter {
    inner: Box<dyn BlobWriter>,
    cache: MemoryCache,
    fault: CacheFault,
    blob: Descriptor,
    content: Vec<u8>,
}

impl BrokenWriter {
    fn publish(&self) {
        self.cache.insert_blob(self.blob.digest().clone(), self.content.clone());
    }
}

#[async_trait]
impl BlobWriter for BrokenWriter {
    fn offset(&self) -> u64 {
        self.inner.offset()
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.content.extend_from_slice(&bytes);
        if self.fault == CacheFault::VisibleBeforeCommit && self.content.len() as u64 >= self.blob.size() {
            self.publish();
        }
        match self.fault {
            CacheFault::SizeUnchecked => Ok(()),
            _ => self.inner.write(bytes).await,
        }
    }

    async fn restart(&mut self) -> Result<()> {
        self.content.clear();
        self.inner.restart().await
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        match self.fault {
            CacheFault::DigestUnchecked => {
                self.publish();
                Ok(())
            }
            CacheFault::SizeUnchecked if digest::sha256(&self.content) == *self.blob.digest() => {
                self.publish();
                Ok(())
            }
            _ => self.inner.commit().await,
        }
    }

    async fn suspend(self: Box<Self>) -> Result<()> {
        self.inner.suspend().await
    }
}
