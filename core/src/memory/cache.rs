//! A cache in memory, whose artifacts lie in a temporary directory.

use std::fmt;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::NamedTempFile;
use tokio::sync::OwnedMutexGuard;

use crate::block_sums::{Reading, SummedFile};
use crate::blocking::Stop;
use crate::cache::{
    BlobBuffer, BlobWriter, CacheProvider, Collect, Collected, Ingest, Lease, NameChange, Usage, Verified,
    Verify, check_names, find_among, verify_artifacts, verify_names,
};
use crate::format::Output;
use crate::{
    Artifact, ArtifactHandle, ArtifactKey, ArtifactWriter, Blob, BlobRange, Descriptor, Digest, Error, Made,
    Reference, Result, digest,
};

use super::state::{Kept, MemoryCache, Shared};

#[async_trait]
impl CacheProvider for MemoryCache {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        digest::supported(digest)?;
        Ok(self.0.lock().blobs.get(digest).map(|content| content.len() as u64))
    }

    async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        let content = self.0.lock().blobs.get(blob.digest()).cloned();
        match content {
            Some(content) => Blob::from_bytes(blob, range, &content),
            None => Err(Error::not_found(format!("no blob {}", blob.digest())).with_endpoint(self)),
        }
    }

    async fn ingest(&self, blob: &Descriptor) -> Result<Ingest> {
        digest::supported(blob.digest())?;
        let turn = self.writer(blob.digest().to_string()).await;
        let mut state = self.0.lock();
        if state.blobs.get(blob.digest()).is_some_and(|content| content.len() as u64 == blob.size()) {
            return Ok(Ingest::Present);
        }
        let content = state.partial.remove(blob.digest()).map(|(content, _)| content).unwrap_or_default();
        drop(state);
        let cache = self.0.clone();
        let resumable = !content.is_empty();
        let buffer = BlobBuffer::new(blob).resumed(content);
        Ok(Ingest::Vacant(Box::new(MemoryWriter { cache, buffer, resumable, _turn: turn })))
    }

    async fn partial(&self, digest: &Digest) -> Result<u64> {
        Ok(self.0.lock().partial.get(digest).map_or(0, |(content, _)| content.len() as u64))
    }

    async fn quarantine(&self, digest: &Digest) -> Result<()> {
        self.0.lock().blobs.remove(digest);
        Ok(())
    }

    async fn find_descriptor(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        let names = self.list().await?;
        find_among(self, &names, reference).await
    }

    async fn list(&self) -> Result<Vec<(Reference, Descriptor)>> {
        Ok(self.0.lock().names.list())
    }

    async fn update(&self, changes: &[NameChange]) -> Result<()> {
        let _gate = self.0.gate.read().await;
        let mut state = self.0.lock();
        let size = |digest: &Digest| Ok(state.blobs.get(digest).map(|content| content.len() as u64));
        let document = |blob: &Descriptor| Ok(state.blobs.get(blob.digest()).cloned().unwrap_or_default());
        check_names(changes, size, document).map_err(|e| e.with_endpoint(self))?;
        state.names.change(changes).map_err(|e| e.with_endpoint(self))
    }

    async fn pins(&self) -> Result<Vec<Reference>> {
        Ok(self.0.lock().names.pins())
    }

    async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
        // Two keys may print alike.
        let turn = self.writer(format!("{key:?}")).await;
        if let Some(present) = self.find_artifact(key).await? {
            return Ok(Artifact::Present(present));
        }
        let file = tempfile::Builder::new().prefix(".plyfold-tmp-").tempfile_in(self.0.folder()?);
        let making = |e| Error::io("making a temporary file", e);
        let file = file.map_err(making)?;
        let written = SummedFile::new(file.as_file().try_clone().map_err(making)?);
        let (cache, key, stop) = (self.0.clone(), key.clone(), Stop::default());
        Ok(Artifact::Vacant(Box::new(MemoryArtifact { cache, key, file, written, stop, _turn: turn })))
    }

    async fn find_artifact(&self, key: &ArtifactKey) -> Result<Option<Box<dyn ArtifactHandle>>> {
        let kept = self.0.lock().made.get(key).cloned();
        // What was written to is no longer what was made: it is made anew.
        let kept = kept.filter(Kept::is_unchanged);
        Ok(kept.map(|kept| Box::new(kept.handle()) as _))
    }

    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        let _gate = self.0.gate.read().await;
        let mut state = self.0.lock();
        let now = SystemTime::now();
        for digest in content {
            if let Some(used) = state.used.get_mut(digest) {
                *used = now;
            }
        }
        let number = state.next_lease;
        state.next_lease += 1;
        state.leases.insert(number, content.to_vec());
        drop(state);
        Ok(Lease::new(MemoryLease { cache: self.0.clone(), number }))
    }

    async fn single_flight(&self, work: &str) -> Result<Lease> {
        Ok(Lease::new(self.writer(format!("work {work}")).await))
    }

    async fn usage(&self) -> Result<Usage> {
        Ok(self.inventory(&Collect::default()).await?.0.usage())
    }

    async fn verify(&self, what: &Verify) -> Result<Verified> {
        let mut verified = verify_names(self, what).await?;
        let kept = self.0.lock().made.iter().map(Kept::to_verify).collect();
        for key in verify_artifacts(self, what, kept, &mut verified).await? {
            self.0.lock().made.remove(&key);
        }
        Ok(verified)
    }

    async fn collect(&self, policy: &Collect) -> Result<Collected> {
        self.collect_now(policy).await.map_err(|e| e.with_endpoint(self))
    }

    fn scratch(&self) -> Option<PathBuf> {
        Some(self.0.scratch())
    }
}

/// Ends when it is dropped.
struct MemoryLease {
    cache: Arc<Shared>,
    number: u64,
}

impl Drop for MemoryLease {
    fn drop(&mut self) {
        self.cache.lock().leases.remove(&self.number);
    }
}

impl fmt::Display for MemoryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

#[derive(Debug)]
struct MemoryWriter {
    cache: Arc<Shared>,
    buffer: BlobBuffer,
    resumable: bool,
    _turn: OwnedMutexGuard<()>,
}

#[async_trait]
impl BlobWriter for MemoryWriter {
    fn offset(&self) -> u64 {
        self.buffer.offset()
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.buffer.write(&bytes)
    }

    async fn restart(&mut self) -> Result<()> {
        self.buffer.take();
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        self.resumable = false;
        let content = self.buffer.finish()?;
        self.cache.lock().store(self.buffer.digest().clone(), content);
        Ok(())
    }

    fn set_resumable(&mut self, resumable: bool) {
        self.resumable = resumable;
    }

    async fn suspend(mut self: Box<Self>) -> Result<()> {
        self.resumable = true;
        Ok(())
    }
}

impl Drop for MemoryWriter {
    fn drop(&mut self) {
        if self.resumable {
            let kept = (self.buffer.take(), SystemTime::now());
            self.cache.lock().partial.insert(self.buffer.digest().clone(), kept);
        }
    }
}

#[derive(Debug)]
struct MemoryArtifact {
    cache: Arc<Shared>,
    key: ArtifactKey,
    file: NamedTempFile<File>,
    written: SummedFile,
    stop: Stop,
    _turn: OwnedMutexGuard<()>,
}

impl ArtifactWriter for MemoryArtifact {
    fn output(&mut self) -> &mut dyn Output {
        &mut self.written
    }

    fn stop_with(&mut self, stop: &Stop) {
        self.stop = stop.clone();
    }

    fn commit(self: Box<Self>, made: &Made) -> Result<Box<dyn ArtifactHandle>> {
        let Self { cache, key, file, written, stop, _turn } = *self;
        let sums = written.sums(&Reading::on_all_cores(&stop))?;
        // Others may link it.
        let shared = file.as_file().set_permissions(Permissions::from_mode(0o444));
        shared.map_err(|e| Error::io("giving an artifact its mode", e))?;
        let (file, path) = file.keep().map_err(|e| Error::io("keeping an artifact", e.error))?;
        let found = file.metadata().map_err(|e| Error::io("looking at an artifact", e))?;
        let kept =
            Kept { path, size: sums.size(), made: made.clone(), modified: found.modified().ok(), sums };
        let handle = kept.handle();
        cache.lock().made.insert(key, kept);
        Ok(Box::new(handle))
    }
}
