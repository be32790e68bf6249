//! Artifacts that are in the bucket: found, and read from there by ranges.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use plyfold_core::block_sums::{BLOCK, BlockSums, Checksum, SumsInOrder};
use plyfold_core::{ArtifactHandle, ArtifactKey, Error, Made, Result};

use crate::background;
use crate::bucket::Bucket;
use crate::reading;
use crate::record::{self, Found, State};
use crate::shared::Shared;

/// Blocks of an artifact that a handle keeps: a reader that goes forward reads each once.
const KEPT_BLOCKS: usize = 2;

/// The longest piece that is handed out: it stays in the cache of a core.
const PIECE: usize = 256 << 10;

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

    /// Reads blocks by one request, and hands out what is `wanted` of them as it comes: each is compared with its checksum
    /// when all of it was handed out.
    fn read_blocks(
        &self,
        blocks: Range<u64>,
        wanted: Range<u64>,
        each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut at = blocks.start * BLOCK;
        let end = self.size().min(blocks.end * BLOCK);
        let (stored, range) = (self.0.clone(), at..end);
        let mut content = background::wait(async move { stored.content(range).await })?;
        let mut sum = SumsInOrder::default();
        while at < end {
            let block = at / BLOCK;
            let block_end = end.min((block + 1) * BLOCK);
            let most = ((block_end - at) as usize).min(PIECE);
            let (read, chunk) = background::wait(async move {
                let chunk = content.next(most).await?;
                Ok((content, chunk))
            })?;
            content = read;
            if chunk.is_empty() {
                return Err(self.0.short(at).into());
            }
            sum.update(&chunk);
            let next = at + chunk.len() as u64;
            let part = at.max(wanted.start)..next.min(wanted.end);
            if !part.is_empty() {
                each(&chunk[(part.start - at) as usize..(part.end - at) as usize])?;
            }
            at = next;
            if at == block_end && !self.0.sums.has_block(block, &std::mem::take(&mut sum).finish()) {
                return Err(self.0.changed(block).into());
            }
        }
        Ok(())
    }
}

/// Content that comes in order.
struct Content {
    bytes: BoxStream<'static, Result<Bytes>>,
    /// What has come last, and was not taken yet.
    chunk: Bytes,
}

impl Content {
    /// At most so many of the next bytes, as they come; none at the end.
    async fn next(&mut self, most: usize) -> Result<Bytes> {
        while self.chunk.is_empty() {
            match self.bytes.next().await.transpose()? {
                Some(chunk) => self.chunk = chunk,
                None => break,
            }
        }
        Ok(self.chunk.split_to(self.chunk.len().min(most)))
    }
}

/// Hands out so many zeros.
fn zeros(mut count: u64, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    const ZEROS: &[u8] = &[0; 64 << 10];
    while count > 0 {
        let part = &ZEROS[..count.min(ZEROS.len() as u64) as usize];
        each(part)?;
        count -= part.len() as u64;
    }
    Ok(())
}

impl Stored {
    async fn fetch(&self, block: u64) -> Result<Bytes> {
        let (start, length) = (block * BLOCK, BLOCK.min(self.sums.size() - block * BLOCK) as usize);
        let mut content = self.content(start..start + length as u64).await?;
        let mut bytes = BytesMut::with_capacity(length);
        while bytes.len() < length {
            let chunk = content.next(length - bytes.len()).await?;
            if chunk.is_empty() {
                return Err(self.short(start + bytes.len() as u64));
            }
            bytes.extend_from_slice(&chunk);
        }
        if !self.sums.is_block(block, &bytes) {
            return Err(self.changed(block));
        }
        Ok(bytes.freeze())
    }

    /// Bytes that are there, unverified.
    async fn content(&self, range: Range<u64>) -> Result<Content> {
        let Some((_, bytes)) = reading::read(&self.bucket, &self.data, Some(range)).await? else {
            let gone = Error::not_found("an artifact is gone").with_context("object", &self.data);
            return Err(gone.with_endpoint(&self.bucket));
        };
        Ok(Content { bytes, chunk: Bytes::new() })
    }

    fn short(&self, end: u64) -> Error {
        self.damaged(format!("it ends after {end} of {} bytes", self.sums.size()))
    }

    fn changed(&self, block: u64) -> Error {
        let start = block * BLOCK;
        self.damaged(format!("checksum mismatch: {} bytes at {start}", BLOCK.min(self.sums.size() - start)))
    }

    fn damaged(&self, message: impl Into<String>) -> Error {
        Error::corrupt(message).with_context("object", &self.data).with_endpoint(&self.bucket)
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

    fn read_range(&self, range: Range<u64>, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let (mut at, end) = (range.start, range.end.min(self.size()));
        while at < end {
            // Whole blocks are read, because only these have checksums.
            let (block, last) = (at / BLOCK, end.div_ceil(BLOCK));
            let is_zeros = self.0.sums.is_zeros(block);
            let run = (block..last).find(|block| self.0.sums.is_zeros(*block) != is_zeros).unwrap_or(last);
            let stop = end.min(run * BLOCK);
            if is_zeros {
                zeros(stop - at, each)?;
            } else {
                self.read_blocks(block..run, at..stop, each)?;
            }
            at = stop;
        }
        if range.end > end { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

impl fmt::Debug for StoredArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredArtifact({})", self.0.data)
    }
}
