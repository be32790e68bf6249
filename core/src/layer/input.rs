//! A layer's bytes as they come, in chunks. Any thread may read the next one.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::LayerOptions;
use super::fault::LayerFault;
use super::hashes::Hashes;
use super::link::Link;
use super::pool::{Chunk, Pool, READ};
use crate::{Descriptor, Error, Mismatch, Result};

/// How many chunks the thread that does not decode them reads ahead of the one that does.
const AHEAD: usize = 2;
/// How long another thread is left to hash what is there.
const TURN: Duration = Duration::from_millis(1);

/// The source of a layer, and the chunks that are read and not decoded yet.
pub(super) struct Input {
    source: Mutex<Source>,
    ahead: Mutex<VecDeque<Result<Arc<Chunk>>>>,
    pool: Pool,
}

struct Source {
    reader: Box<dyn Read + Send>,
    /// What the bytes have to be.
    blob: Option<Descriptor>,
    size: u64,
    is_ended: bool,
}

impl Input {
    pub(super) fn new(reader: Box<dyn Read + Send>, options: &LayerOptions) -> Self {
        let source = Source { reader, blob: options.blob.clone(), size: 0, is_ended: false };
        Self { source: Mutex::new(source), ahead: Mutex::default(), pool: Pool::new(READ) }
    }

    /// The first chunk. Only the last chunk of a layer is not full.
    pub(super) fn first(&self, link: &Link) -> Result<Arc<Chunk>> {
        let buffer = self.pool.take().ok_or(LayerFault::Thread)?;
        self.source()?.fill(buffer, link)
    }

    /// The next chunk, which this thread reads unless it is here.
    pub(super) fn next(&self, hashes: &Hashes, link: &Link) -> Result<Arc<Chunk>> {
        if let Some(chunk) = self.take() {
            return chunk;
        }
        let mut source = self.source()?;
        // The other thread may have read it meanwhile.
        if let Some(chunk) = self.take() {
            return chunk;
        }
        source.fill(buffer(&self.pool, hashes, link)?, link)
    }

    /// Reads a chunk for the thread that decodes; `false` when there are enough, or that thread reads.
    pub(super) fn help(&self, link: &Link) -> bool {
        if self.ahead().len() >= AHEAD {
            return false;
        }
        let Ok(mut source) = self.source.try_lock() else { return false };
        if source.is_ended {
            return false;
        }
        let Some(buffer) = self.pool.take() else { return false };
        let chunk = source.fill(buffer, link);
        self.ahead().push_back(chunk);
        true
    }

    /// How many bytes are read.
    pub(super) fn size(&self) -> Result<u64> {
        Ok(self.source()?.size)
    }

    fn take(&self) -> Option<Result<Arc<Chunk>>> {
        self.ahead().pop_front()
    }

    fn ahead(&self) -> MutexGuard<'_, VecDeque<Result<Arc<Chunk>>>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails once a read has panicked.
    fn source(&self) -> Result<MutexGuard<'_, Source>> {
        self.source.lock().map_err(|_| LayerFault::Thread.into())
    }
}

impl Source {
    /// Fills a buffer; not to its end at the end of the layer.
    fn fill(&mut self, mut chunk: Chunk, link: &Link) -> Result<Arc<Chunk>> {
        let read = self.read(&mut chunk, link);
        self.is_ended = read.is_err() || !chunk.is_full();
        read?;
        self.size += chunk.len() as u64;
        match &self.blob {
            Some(blob) if self.size > blob.size() => Err(Mismatch::of(blob, None, self.size).into()),
            _ => Ok(Arc::new(chunk)),
        }
    }

    fn read(&mut self, chunk: &mut Chunk, link: &Link) -> Result<()> {
        while !chunk.is_full() {
            if link.is_closed() {
                return Err(LayerFault::Cancelled.into());
            }
            match self.reader.read(chunk.room()) {
                Ok(0) => break,
                Ok(count) => chunk.filled(count),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("reading a layer", e)),
            }
        }
        Ok(())
    }
}

/// A buffer of a pool. While none is here, chunks are hashed, which brings buffers back.
pub(super) fn buffer(pool: &Pool, hashes: &Hashes, link: &Link) -> Result<Chunk> {
    loop {
        if link.is_closed() {
            return Err(LayerFault::Cancelled.into());
        }
        if let Some(chunk) = pool.take() {
            return Ok(chunk);
        }
        if !hashes.help(0) {
            // The other thread may leave off hashing before it gives buffers back.
            pool.wait(if hashes.is_done() { Duration::MAX } else { TURN });
        }
    }
}
