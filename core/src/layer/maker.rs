//! A layer's uncompressed bytes, made chunk by chunk: read, inflated, and put up for hashing.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use super::codec::Codec;
use super::fault::LayerFault;
use super::hashes::{HashThread, Hashers, Hashes, Part};
use super::link::Link;
use super::piece::{Measured, Piece, Totals, check_ratio, check_size};
use super::pool::{Chunk, INFLATED, Pool, READ};
use super::{Compression, LayerOptions};
use crate::{Digest, Error, Mismatch, Result};

/// How long another thread is left to hash what is there.
const TURN: Duration = Duration::from_millis(1);

/// What makes the chunks of one layer.
pub(super) struct ChunkMaker {
    source: Source,
    hashes: Arc<Hashes>,
    _hash_thread: Option<HashThread>,
    compression: Compression,
    /// `None` for a tar that is not compressed.
    codec: Option<Codec>,
    /// The bytes at hand as they came, and how many of them are used.
    input: Arc<Chunk>,
    at: usize,
    /// Whether the decoder may hold bytes back, because the last buffer was full.
    is_holding: bool,
    output: Pool,
    /// Bytes that were used before those at hand.
    taken: u64,
    /// Uncompressed bytes that were handed over.
    size: u64,
    options: LayerOptions,
}

/// A layer's bytes as they come.
pub(super) struct Source {
    reader: Box<dyn Read + Send>,
    pool: Pool,
    size: u64,
}

impl Source {
    pub(super) fn new(reader: Box<dyn Read + Send>) -> Self {
        Self { reader, pool: Pool::new(READ), size: 0 }
    }

    /// Fills a buffer; not to its end at the end of the layer.
    fn fill(&mut self, mut chunk: Chunk, options: &LayerOptions, link: &Link) -> Result<Arc<Chunk>> {
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
        self.size += chunk.len() as u64;
        match &options.blob {
            Some(blob) if self.size > blob.size() => Err(Mismatch::of(blob, None, self.size).into()),
            _ => Ok(Arc::new(chunk)),
        }
    }
}

impl ChunkMaker {
    /// Reads the first bytes, which tell how the layer is compressed. If there are more and they are not compressed,
    /// another thread hashes them.
    ///
    /// # Errors
    /// Those of the source; `Io` when no thread can be started.
    pub(super) fn new(mut source: Source, options: LayerOptions, link: &Link) -> Result<Self> {
        let buffer = source.pool.take().ok_or(LayerFault::Thread)?;
        let input = source.fill(buffer, &options, link)?;
        let compression = Compression::by_magic(&input);
        let hashes = Hashes::new(Hashers::new(compression, &options)?);
        let codec = Codec::new(compression)?;
        hashes.add(if codec.is_some() { Part::Blob } else { Part::Both }, &input);
        // What inflates and what reads take turns at hashing; what is not inflated is all hash.
        let is_apart = codec.is_none() && input.is_full();
        let thread = if is_apart { hashes.on_thread()? } else { None };
        let (at, is_holding, output, taken, size) = (0, false, Pool::new(INFLATED), 0, 0);
        Ok(Self {
            source,
            hashes,
            _hash_thread: thread,
            compression,
            codec,
            input,
            at,
            is_holding,
            output,
            taken,
            size,
            options,
        })
    }

    /// The hashes, which the reader of the chunks goes on with.
    pub(super) fn hashes(&self) -> &Arc<Hashes> {
        &self.hashes
    }

    /// Whether what is left to do is work for a thread of its own.
    pub(super) fn is_long(&self) -> bool {
        self.codec.is_some() && self.input.is_full()
    }

    /// The next chunk, or the verified end.
    pub(super) fn next(&mut self, link: &Link) -> Result<Piece<Totals>> {
        let chunk = if self.codec.is_some() { self.inflated(link)? } else { self.plain(link)? };
        chunk.map_or_else(|| self.end().map(Piece::End), |chunk| Ok(Piece::Data(chunk)))
    }

    /// The bytes of a tar that is not compressed.
    fn plain(&mut self, link: &Link) -> Result<Option<Arc<Chunk>>> {
        if self.at > 0 && !self.read(Part::Both, link)? {
            return Ok(None);
        }
        self.at = self.input.len();
        self.size += self.input.len() as u64;
        check_size(self.size, &self.options.limits)?;
        Ok((!self.input.is_empty()).then(|| self.input.clone()))
    }

    /// A buffer of inflated bytes; only the last one is not full.
    fn inflated(&mut self, link: &Link) -> Result<Option<Arc<Chunk>>> {
        let mut output = buffer(&self.output, &self.hashes, link)?;
        while !output.is_full() {
            if self.at == self.input.len() && !self.is_holding && !self.read(Part::Blob, link)? {
                self.codec.as_ref().map_or(Ok(()), Codec::finish)?;
                break;
            }
            let Some(codec) = &mut self.codec else { break };
            let step = codec.step(&self.input[self.at..], output.room())?;
            self.at += step.read;
            output.filled(step.written);
            self.is_holding = output.is_full();
        }
        self.size += output.len() as u64;
        check_size(self.size, &self.options.limits)?;
        check_ratio(self.size, self.taken + self.at as u64, self.options.limits.ratio)?;
        if output.is_empty() {
            return Ok(None);
        }
        let output = Arc::new(output);
        self.hashes.add(Part::Tar, &output);
        Ok(Some(output))
    }

    /// Reads the next bytes as they come; `false` when there are none.
    fn read(&mut self, part: Part, link: &Link) -> Result<bool> {
        if !self.input.is_full() {
            return Ok(false);
        }
        self.taken += self.input.len() as u64;
        let buffer = buffer(&self.source.pool, &self.hashes, link)?;
        self.input = self.source.fill(buffer, &self.options, link)?;
        self.at = 0;
        if !self.input.is_empty() {
            self.hashes.add(part, &self.input);
        }
        Ok(!self.input.is_empty())
    }

    /// Size and digests, if they are what was promised.
    fn end(&mut self) -> Result<Totals> {
        let digests = self.hashes.finish()?;
        let blob = Measured { size: self.source.size, digest: digests.blob };
        let tar = Measured { size: self.size, digest: digests.tar };
        if let Some(expected) = &self.options.blob {
            check(&blob, expected.digest(), Some(expected.size()))?;
        }
        if let Some(diff_id) = &self.options.diff_id {
            check(&tar, diff_id, None).map_err(|e| e.with_context("checking", "diff_id"))?;
        }
        Ok(Totals { compression: self.compression, blob, tar })
    }
}

/// A buffer of a pool. While none is here, chunks are hashed, which brings buffers back.
fn buffer(pool: &Pool, hashes: &Hashes, link: &Link) -> Result<Chunk> {
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

fn check(measured: &Measured, expected: &Digest, expected_size: Option<u64>) -> Result<()> {
    let complete = expected_size.is_none_or(|size| size == measured.size);
    if complete && measured.digest.as_ref() == Some(expected) {
        return Ok(());
    }
    Err(Error::from(Mismatch {
        expected: expected.clone(),
        actual: measured.digest.clone().filter(|_| complete),
        expected_size,
        actual_size: measured.size,
    }))
}
