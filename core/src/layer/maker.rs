//! A layer's uncompressed bytes, made chunk by chunk: read, inflated, and put up for hashing.

use std::sync::Arc;

use zlib_rs::crc32::crc32;

use super::codec::Codec;
use super::fault::LayerFault;
use super::gunzip::Edge;
use super::hashes::{HashThread, Hashers, Hashes};
use super::input::{Input, buffer};
use super::link::Link;
use super::piece::{Measured, Piece, Totals, check_ratio, check_size};
use super::pool::{Chunk, INFLATED, Pool};
use super::{Compression, LayerOptions};
use crate::Result;

/// Bytes of a compressed layer that are inflated by the thread that reads them: it takes some milliseconds.
const SHORT: u64 = 2 << 20;

/// What makes the chunks of one layer.
pub(super) struct ChunkMaker {
    source: Arc<Input>,
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

impl ChunkMaker {
    /// Reads the first bytes, which tell how the layer is compressed. If there are more and they are not compressed,
    /// another thread hashes them.
    ///
    /// # Errors
    /// Those of the source; `Io` when no thread can be started.
    pub(super) fn new(source: Input, options: LayerOptions, link: &Link) -> Result<Self> {
        let input = source.first(link)?;
        let compression = Compression::by_magic(&input);
        let hashes = Hashes::new(Hashers::new(compression, &options)?);
        let codec = Codec::new(compression)?;
        // What inflates and what reads take turns at hashing; what is not inflated is all hash.
        let is_apart = codec.is_none() && input.is_full();
        let thread = if is_apart { hashes.on_thread()? } else { None };
        let (at, is_holding, output, taken, size) = (0, false, Pool::new(INFLATED), 0, 0);
        let maker = Self {
            source: Arc::new(source),
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
        };
        maker.hash_input();
        Ok(maker)
    }

    /// Puts up the bytes at hand, as they came, for hashing.
    fn hash_input(&self) {
        if self.codec.is_some() {
            self.hashes.add_blob(&self.input);
        } else {
            self.hashes.add_tar(&self.input);
        }
    }

    /// The hashes, which the reader of the chunks goes on with.
    pub(super) fn hashes(&self) -> &Arc<Hashes> {
        &self.hashes
    }

    /// The bytes as they come, which the reader of the chunks goes on with, too.
    pub(super) fn source(&self) -> &Arc<Input> {
        &self.source
    }

    /// Whether so much was inflated that what is left is likely to be work for a thread of its own.
    pub(super) fn is_long(&self) -> bool {
        let is_short = self.taken < SHORT && self.size < 2 * SHORT;
        self.codec.is_some() && !is_short && self.input.is_full()
    }

    /// Hashes what was inflated, on this thread.
    pub(super) fn hash(&self) {
        while self.codec.is_some() && self.hashes.help(0) {}
    }

    /// The next chunk, or the verified end.
    pub(super) fn next(&mut self, link: &Link) -> Result<Piece<Totals>> {
        let chunk = if self.codec.is_some() { self.inflated(link) } else { self.plain(link) };
        let chunk = chunk.or_else(|e| {
            // Of what is given up, no error is wanted.
            let before = if link.is_closed() { Ok(()) } else { self.hashes.check() };
            before.and(Err(e))
        })?;
        chunk.map_or_else(|| self.end().map(Piece::End), |chunk| Ok(Piece::Data(chunk)))
    }

    /// The bytes of a tar that is not compressed.
    fn plain(&mut self, link: &Link) -> Result<Option<Arc<Chunk>>> {
        if self.at > 0 && !self.read(link)? {
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
        let filled = self.fill(&mut output, link);
        let output = Arc::new(output);
        // An empty one may still have the end of a member.
        self.hashes.add_tar(&output);
        filled?;
        self.size += output.len() as u64;
        check_size(self.size, &self.options.limits)?;
        check_ratio(self.size, self.taken + self.at as u64, self.options.limits.ratio)?;
        Ok((!output.is_empty()).then_some(output))
    }

    /// Inflates until a buffer is full, or the layer ends.
    fn fill(&mut self, output: &mut Chunk, link: &Link) -> Result<()> {
        while !output.is_full() {
            if self.at == self.input.len() && !self.is_holding && !self.read(link)? {
                return self.codec.as_ref().map_or(Ok(()), Codec::finish);
            }
            let Some(codec) = &mut self.codec else { break };
            let step = codec.step(&self.input[self.at..], output.room())?;
            self.at += step.read;
            output.filled(step.written);
            self.is_holding = output.is_full();
            match step.edge {
                None => {}
                Some(Edge::Begin) => output.members.begin = Some(output.len()),
                Some(Edge::End(crc)) => match output.members.begin.take() {
                    // The number of members is bounded by nothing: those within a chunk are not noted.
                    Some(begin) if crc32(0, &output[begin..]) != crc => {
                        return Err(LayerFault::GZIP_BROKEN.into());
                    }
                    Some(_) => {}
                    None => output.members.end = Some((output.len(), crc)),
                },
            }
        }
        Ok(())
    }

    /// Reads the next bytes as they come; `false` when there are none.
    fn read(&mut self, link: &Link) -> Result<bool> {
        if !self.input.is_full() {
            return Ok(false);
        }
        self.taken += self.input.len() as u64;
        self.input = self.source.next(&self.hashes, link)?;
        self.at = 0;
        if !self.input.is_empty() {
            self.hash_input();
        }
        Ok(!self.input.is_empty())
    }

    /// Size and digests, if they are what was promised.
    fn end(&mut self) -> Result<Totals> {
        let digests = self.hashes.finish()?;
        let blob = Measured { size: self.source.size()?, digest: digests.blob };
        let tar = Measured { size: self.size, digest: digests.tar };
        Totals { compression: self.compression, blob, tar }.proved(&self.options)
    }
}
