//! A plain tar in a file, of which nothing is hashed: content that is skipped is not read.

use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::sync::Arc;

use super::fault::LayerFault;
use super::piece::{Measured, Piece, Totals, check_size};
use super::pool::{CHUNK, Pool, READ};
use super::{Compression, LayerLimits};
use crate::{Error, Result};

/// Fewer bytes are read, and not skipped: that costs less.
const SKIP_MIN: u64 = 64 << 10;
/// What is read first behind what was skipped: mostly it is the header of a file that is skipped, too.
const FIRST: usize = 8 << 10;

trait Source: Read + Seek + Send {}

impl<T: Read + Seek + Send> Source for T {}

pub(super) struct Plain {
    source: Box<dyn Source>,
    /// In bytes, as it was at first.
    size: u64,
    limits: LayerLimits,
    pool: Pool,
    /// The place of the next byte.
    at: u64,
    /// How much is read next.
    step: usize,
}

impl Plain {
    pub(super) fn new(source: impl Read + Seek + Send + 'static, size: u64, limits: LayerLimits) -> Self {
        Self { source: Box::new(source), size, limits, pool: Pool::new(READ), at: 0, step: FIRST }
    }

    pub(super) fn next(&mut self) -> Result<Piece<Totals>> {
        let mut chunk = self.pool.take().ok_or(LayerFault::Thread)?;
        while chunk.len() < self.step {
            let wanted = self.step - chunk.len();
            match self.source.read(&mut chunk.room()[..wanted]) {
                Ok(0) => break,
                Ok(count) => chunk.filled(count),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(e)),
            }
        }
        self.at += chunk.len() as u64;
        check_size(self.at, &self.limits)?;
        self.step = (self.step * 2).min(CHUNK);
        if chunk.is_empty() {
            let measured = Measured { size: self.at, digest: None };
            return Ok(Piece::End(Totals {
                compression: Compression::None,
                blob: measured.clone(),
                tar: measured,
            }));
        }
        Ok(Piece::Data(Arc::new(chunk)))
    }

    /// Skips at most so many bytes, if there are enough of them; how many.
    pub(super) fn skip(&mut self, wanted: u64) -> Result<u64> {
        let count = wanted.min(self.size.saturating_sub(self.at));
        if count < SKIP_MIN {
            return Ok(0);
        }
        self.at += count;
        check_size(self.at, &self.limits)?;
        self.source.seek(SeekFrom::Start(self.at)).map_err(failed)?;
        self.step = FIRST;
        Ok(count)
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("reading a layer", error)
}
