//! What is being stored.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use plyfold_core::cache::BlobBuffer;
use plyfold_core::{
    ArtifactHandle, ArtifactKey, ArtifactWriter, BlobWriter, Descriptor, Error, Made, Output, Result, digest,
};
use tokio::sync::OwnedMutexGuard;

use crate::bucket::{ArtifactObject, Shared, StoredArtifact};

/// A blob whose bytes come: nothing of it is in the bucket before all of it is.
#[derive(Debug)]
pub(crate) struct BlobInProgress {
    shared: Arc<Shared>,
    buffer: BlobBuffer,
    _lock: OwnedMutexGuard<()>,
}

impl BlobInProgress {
    pub(crate) fn new(shared: &Arc<Shared>, blob: &Descriptor, lock: OwnedMutexGuard<()>) -> Self {
        Self { shared: shared.clone(), buffer: BlobBuffer::new(blob), _lock: lock }
    }
}

#[async_trait]
impl BlobWriter for BlobInProgress {
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
        let content = self.buffer.finish()?;
        self.shared.bucket().put(self.buffer.digest().clone(), content);
        Ok(())
    }

    /// An interrupted download begins again at 0: the bucket takes whole objects.
    async fn suspend(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// An artifact that is being made: in a file without a name, because materializers write in any order.
#[derive(Debug)]
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
        let digest = digest::sha256(&content);
        let artifact = StoredArtifact { content: content.into(), made: made.clone() };
        let object = ArtifactObject { artifact: artifact.clone(), digest, used: SystemTime::now() };
        self.shared.bucket().artifacts.insert(self.key.clone(), object);
        Ok(Box::new(artifact))
    }
}
