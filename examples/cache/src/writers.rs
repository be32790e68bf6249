//! What is being stored.

use std::fmt;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use plyfold_core::{
    ArtifactHandle, ArtifactKey, ArtifactWriter, BlobWriter, Descriptor, Digest, Error, Made, Mismatch,
    Output, Result, digest,
};
use tokio::sync::OwnedMutexGuard;

use crate::bucket::{ArtifactObject, Shared, StoredArtifact};

/// A blob whose bytes come: nothing of it is in the bucket before all of it is.
pub(crate) struct BlobInProgress {
    shared: Arc<Shared>,
    blob: Descriptor,
    content: Vec<u8>,
    _lock: OwnedMutexGuard<()>,
}

impl BlobInProgress {
    pub(crate) fn new(shared: &Arc<Shared>, blob: &Descriptor, lock: OwnedMutexGuard<()>) -> Self {
        Self { shared: shared.clone(), blob: blob.clone(), content: Vec::new(), _lock: lock }
    }

    fn mismatch(&self, actual: Option<Digest>, actual_size: u64) -> Error {
        Error::mismatch(Mismatch {
            expected: self.blob.digest().clone(),
            actual,
            expected_size: Some(self.blob.size()),
            actual_size,
        })
    }
}

#[async_trait]
impl BlobWriter for BlobInProgress {
    fn offset(&self) -> u64 {
        self.content.len() as u64
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let size = self.offset() + bytes.len() as u64;
        if size > self.blob.size() {
            return Err(self.mismatch(None, size));
        }
        self.content.extend_from_slice(&bytes);
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        self.content.clear();
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        let mut hasher = digest::Hasher::like(self.blob.digest())?;
        hasher.update(&self.content);
        let actual = hasher.finish();
        if self.offset() != self.blob.size() || actual != *self.blob.digest() {
            return Err(self.mismatch(Some(actual), self.offset()));
        }
        let content = std::mem::take(&mut self.content);
        self.shared.bucket().put(self.blob.digest().clone(), content.into());
        Ok(())
    }

    /// An interrupted download begins again at 0: the bucket takes whole objects.
    async fn suspend(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl fmt::Debug for BlobInProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobInProgress({} of {})", self.content.len(), self.blob.digest())
    }
}

/// An artifact that is being made: in a file without a name, because materializers write in any order.
pub(crate) struct ArtifactInProgress {
    shared: Arc<Shared>,
    key: ArtifactKey,
    file: File,
    _lock: OwnedMutexGuard<()>,
}

impl ArtifactInProgress {
    pub(crate) fn new(shared: &Arc<Shared>, key: &ArtifactKey, lock: OwnedMutexGuard<()>) -> Result<Self> {
        let file = tempfile::tempfile().map_err(|e| Error::io("making a temporary file", e))?;
        Ok(Self { shared: shared.clone(), key: key.clone(), file, _lock: lock })
    }
}

impl ArtifactWriter for ArtifactInProgress {
    fn output(&mut self) -> &mut dyn Output {
        &mut self.file
    }

    fn commit(mut self: Box<Self>, made: &Made) -> Result<Box<dyn ArtifactHandle>> {
        let mut content = Vec::new();
        let read = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.read_to_end(&mut content));
        read.map_err(|e| Error::io("reading an artifact", e))?;
        let artifact = StoredArtifact { content: content.into(), made: made.clone() };
        let object = ArtifactObject { artifact: artifact.clone(), used: SystemTime::now() };
        self.shared.bucket().artifacts.insert(self.key.clone(), object);
        Ok(Box::new(artifact))
    }
}

impl fmt::Debug for ArtifactInProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArtifactInProgress({} of {})", self.key.format, self.key.content)
    }
}
