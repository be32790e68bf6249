//! A gzip blob decoded by several threads, in order.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use super::GzipIndex;
use super::decoder::{Decoder, OTHER};
use super::worker::Worker;
use crate::blocking::Stop;
use crate::layer::LayerLimits;
use crate::layer::gunzip::Sum;
use crate::layer::piece::check_ratio;
use crate::layer::pool::{Chunk, Pool, READ};
use crate::{Error, ReadAt, Result};

/// More threads take more memory, and are faster than what reads their bytes.
const MAX_THREADS: usize = 8;

/// The bytes that a gzip blob in a file is decoded to, by several threads with the help of an index, in order.
///
/// They are those of a decoder without an index, and so are the errors. Where a span is not what the index says, the file
/// is decoded from its first byte by one thread: up to where the reader is, which checks what was read, and
/// to the end. Where that was wrong, or the index says so of itself, the error is
/// [`LayerFault::GzipIndex`](crate::layer::LayerFault::GzipIndex): then the index is damaged.
///
/// Memory is bounded: 24 MiB beside the index, for at most 8 threads. Dropping it stops the threads at their next step.
pub struct IndexedGzip {
    file: Arc<dyn ReadAt + Send + Sync>,
    index: Arc<GzipIndex>,
    source: Source,
    chunk: Option<Arc<Chunk>>,
    /// Bytes of the chunk that are read.
    at: usize,
    /// How many bytes were decoded, with those in the chunk; how many of the blob; the sum at the last of them.
    offset: u64,
    taken: u64,
    sum: Sum,
    /// Bytes for each compressed one.
    ratio: u64,
    stop: Stop,
}

enum Source {
    /// The threads, whose spans follow each other, and the number of the span.
    Threads(Vec<Worker>, usize),
    /// One decoder, without the index, and what it decodes into.
    Serial(Box<Decoder>, Pool),
    End,
}

impl IndexedGzip {
    /// Starts so many threads, or fewer.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when no thread can be started, or the file says no size.
    pub fn new(file: Arc<dyn ReadAt + Send + Sync>, index: Arc<GzipIndex>, threads: usize) -> Result<Self> {
        let size = file.size().map_err(|e| Error::io("reading a layer", e))?;
        let source = if size == index.blob_size {
            let threads = threads.clamp(1, MAX_THREADS).min(index.spans());
            let start = |number| Worker::start(file.clone(), index.clone(), number, threads);
            let workers = (0..threads).map(start).collect::<Result<_>>()?;
            Source::Threads(workers, 0)
        } else {
            Source::Serial(Box::new(Decoder::new(size)), Pool::new(READ))
        };
        let sum = Sum::default();
        Ok(Self {
            file,
            index,
            source,
            chunk: None,
            at: 0,
            offset: 0,
            taken: 0,
            sum,
            ratio: u64::MAX,
            stop: Stop::default(),
        })
    }

    /// The same within the bounds of a layer, of which [`ratio`](LayerLimits::ratio) is checked here: what reads the bytes does
    /// not know how many they were.
    #[must_use]
    pub fn limited(self, limits: &LayerLimits) -> Self {
        Self { ratio: limits.ratio, ..self }
    }

    /// The same, with an error once the work is cancelled.
    pub(crate) fn stopped_by(self, stop: &Stop) -> Self {
        Self { stop: stop.clone(), ..self }
    }

    /// The bytes that [`piece`](Self::piece) returns next, as far as they are here; none at the end.
    ///
    /// # Errors
    /// As [`piece`](Self::piece).
    pub fn head(&mut self) -> Result<&[u8]> {
        while self.left().is_empty() && !matches!(self.source, Source::End) {
            self.advance()?;
        }
        Ok(self.left())
    }

    /// The next bytes, in pieces of 256 KiB mostly; none at the end.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Io`](crate::ErrorKind::Io).
    pub fn piece(&mut self) -> Result<&[u8]> {
        self.head()?;
        let at = std::mem::replace(&mut self.at, usize::MAX);
        Ok(self.chunk.as_ref().and_then(|chunk| chunk.get(at..)).unwrap_or_default())
    }

    /// The next bytes, of which none were read in another way; `None` at the end.
    pub(in crate::layer) fn chunk(&mut self) -> Result<Option<Arc<Chunk>>> {
        let is_end = self.head()?.is_empty();
        Ok(self.chunk.take().filter(|_| !is_end))
    }

    /// How many bytes of the blob were decoded for all pieces so far.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The part of the chunk that is not read.
    fn left(&self) -> &[u8] {
        self.chunk.as_ref().and_then(|chunk| chunk.get(self.at..)).unwrap_or_default()
    }

    fn advance(&mut self) -> Result<()> {
        (self.chunk, self.at) = (None, 0);
        self.stop.check()?;
        let (chunk, taken, sum) = match &mut self.source {
            Source::End => return Ok(()),
            Source::Serial(decoder, pool) => {
                let mut chunk = pool.next();
                let length = decoder.stream(&*self.file, chunk.room())?;
                chunk.filled(length);
                let found = (Arc::new(chunk), decoder.taken(), decoder.last());
                if length == 0 {
                    self.source = Source::End;
                }
                found
            }
            Source::Threads(workers, number) => {
                if *number == self.index.spans() {
                    self.source = Source::End;
                    return Ok(());
                }
                let received = workers.get(*number % workers.len().max(1)).map(|worker| worker.pieces.recv());
                let Some(Ok(Ok(piece))) = received else { return self.fall_back() };
                *number += usize::from(piece.ends);
                (piece.chunk, piece.taken, piece.sum)
            }
        };
        self.offset += chunk.len() as u64;
        self.taken = taken;
        if !chunk.is_empty() {
            self.sum = sum;
        }
        self.chunk = Some(chunk);
        check_ratio(self.offset, taken, self.ratio)
    }

    /// Decodes without the index up to here.
    fn fall_back(&mut self) -> Result<()> {
        // The threads end.
        self.source = Source::End;
        let size = self.file.size().map_err(|e| Error::io("reading a layer", e))?;
        let (mut decoder, pool) = (Box::new(Decoder::new(size)), Pool::new(READ));
        let mut left = self.offset;
        while left > 0 {
            let mut chunk = pool.next();
            let room = chunk.room();
            let length = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match decoder.stream(&*self.file, &mut room[..length])? {
                0 => return Err(OTHER.into()),
                count => left -= count as u64,
            }
        }
        if self.offset > 0 && decoder.last() != self.sum {
            return Err(OTHER.into());
        }
        tracing::warn!("the index of a gzip blob is not used: it is damaged, or the blob is");
        self.source = Source::Serial(decoder, pool);
        Ok(())
    }
}

impl Read for IndexedGzip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let head = self.head()?;
        let count = buffer.len().min(head.len());
        buffer[..count].copy_from_slice(&head[..count]);
        self.at += count;
        Ok(count)
    }
}

impl fmt::Debug for IndexedGzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexedGzip")
            .field("index", &self.index)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}
