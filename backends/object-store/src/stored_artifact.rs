//! Artifacts that are in the bucket: found, and read from there by ranges.

use std::fmt;
use std::io;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use plyfold_core::block_sums::{BLOCK, BlockSums, Checksum};
use plyfold_core::{ArtifactHandle, ArtifactKey, Error, Made, Result};

use crate::background;
use crate::bucket::Bucket;
use crate::record::{self, Found, State};
use crate::shared::Shared;

/// Blocks of an artifact that a handle keeps: a reader that goes forward reads each once.
const KEPT_BLOCKS: usize = 2;

/// An artifact that is here. It waits for nothing.
pub(crate) async fn find(shared: &Shared, key: &ArtifactKey) -> Result<Option<StoredArtifact>> {
    let path = record::of_artifact(&shared.bucket, key)?;
    match shared.used_slot(&path).await?.with_content() {
        Some(found) => present(shared, &path, &found).await,
        None => Ok(None),
    }
}

/// What a record says, if its content is there with the right size.
pub(crate) async fn present(shared: &Shared, path: &Path, found: &Found) -> Result<Option<StoredArtifact>> {
    if found.record.state == State::Writing {
        return Ok(None);
    }
    let Some(stored) = StoredArtifact::new(&shared.bucket, path, found) else { return Ok(None) };
    let size = stored.stored_size().await?;
    Ok((size == Some(stored.0.sums.size())).then_some(stored))
}

/// An artifact in the bucket. Each block is compared with its checksum when it is read. Clones share what was read.
#[derive(Clone)]
pub(crate) struct StoredArtifact(Arc<Stored>);

struct Stored {
    bucket: Bucket,
    data: Path,
    made: Made,
    sums: BlockSums,
    checksum: Checksum,
    blocks: Mutex<Vec<(u64, Bytes)>>,
}

impl StoredArtifact {
    /// `None` when the record is not one of an artifact.
    pub(crate) fn new(bucket: &Bucket, path: &Path, found: &Found) -> Option<Self> {
        let artifact = found.record.artifact.as_ref()?;
        let sums = artifact.sums(found.record.size)?;
        let data = record::data(bucket, path, found.record.data.as_ref()?).ok()?;
        Some(Self::of(bucket, data, artifact.made.clone(), sums))
    }

    pub(crate) fn of(bucket: &Bucket, data: Path, made: Made, sums: BlockSums) -> Self {
        let (bucket, checksum) = (bucket.clone(), sums.checksum());
        Self(Arc::new(Stored { bucket, data, made, sums, checksum, blocks: Mutex::default() }))
    }

    pub(crate) fn sums(&self) -> &BlockSums {
        &self.0.sums
    }

    /// The size of its content, if that is there.
    pub(crate) async fn stored_size(&self) -> Result<Option<u64>> {
        Ok(self.0.bucket.look(&self.0.data).await?.map(|(_, size)| size))
    }

    fn block(&self, block: u64) -> Result<Bytes> {
        let kept = |blocks: &Vec<(u64, Bytes)>| {
            blocks.iter().find(|(number, _)| *number == block).map(|(_, bytes)| bytes.clone())
        };
        if let Some(bytes) = kept(&self.0.blocks.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(bytes);
        }
        let stored = self.0.clone();
        let bytes = background::wait(async move { stored.fetch(block).await })?;
        let mut blocks = self.0.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if blocks.len() == KEPT_BLOCKS {
            blocks.remove(0);
        }
        blocks.push((block, bytes.clone()));
        Ok(bytes)
    }
}

impl Stored {
    async fn fetch(&self, block: u64) -> Result<Bytes> {
        let (start, end) = (block * BLOCK, (block * BLOCK + BLOCK).min(self.sums.size()));
        let read = self.bucket.store().get_range(&self.data, start..end).await;
        let at = |e: Error| e.with_context("object", &self.data);
        let bytes = read.map_err(|e| at(self.bucket.failed(e, "reading an artifact")))?;
        if bytes.len() as u64 != end - start || !self.sums.is_block(block, &bytes) {
            let message = format!("checksum mismatch: {} bytes at {start}", end - start);
            return Err(at(Error::corrupt(message).with_endpoint(&self.bucket)));
        }
        Ok(bytes)
    }
}

impl ArtifactHandle for StoredArtifact {
    fn size(&self) -> u64 {
        self.0.sums.size()
    }

    fn made(&self) -> &Made {
        &self.0.made
    }

    fn checksum(&self) -> Option<Checksum> {
        Some(self.0.checksum)
    }

    fn path(&self) -> Option<&FilePath> {
        None
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if offset >= self.size() || buffer.is_empty() {
            return Ok(0);
        }
        let block = self.block(offset / BLOCK)?;
        let rest = &block[(offset % BLOCK) as usize..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

impl fmt::Debug for StoredArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredArtifact({})", self.0.data)
    }
}
