//! The uncompressed bytes of a layer that several threads decode, with the help of an index.

use std::sync::Arc;

use super::gzip_index::IndexedGzip;
use super::hashes::{HashThread, Hashers, Hashes};
use super::piece::{Measured, Piece, Totals, check_size};
use super::{Compression, LayerOptions};
use crate::Result;

pub(super) struct Spans {
    decoded: IndexedGzip,
    hashes: Arc<Hashes>,
    /// `None` when nothing is hashed.
    hash_thread: Option<HashThread>,
    /// Uncompressed bytes so far.
    size: u64,
    options: LayerOptions,
}

impl Spans {
    pub(super) fn new(decoded: IndexedGzip, options: LayerOptions) -> Result<Self> {
        // The CRC-32 is compared where they are decoded: for the hashes they are a plain tar.
        let hashes = Hashes::new(Hashers::new(Compression::None, &options)?);
        let hash_thread = hashes.on_thread()?;
        Ok(Self { decoded, hashes, hash_thread, size: 0, options })
    }

    /// The next chunk, or the verified end.
    pub(super) fn next(&mut self) -> Result<Piece<Totals>> {
        let Some(chunk) = self.decoded.chunk()? else { return self.end().map(Piece::End) };
        self.size += chunk.len() as u64;
        check_size(self.size, &self.options.limits)?;
        if self.hash_thread.is_some() {
            self.hashes.add_tar(&chunk);
        }
        Ok(Piece::Data(chunk))
    }

    fn end(&mut self) -> Result<Totals> {
        let blob = Measured { size: self.decoded.taken(), digest: None };
        let tar = Measured { size: self.size, digest: self.hashes.finish()?.tar };
        Totals { compression: Compression::Gzip, blob, tar }.proved(&self.options)
    }
}
