//! Pieces of a layer's tar, and its sizes and digests, which come last.

use std::sync::Arc;

use super::fault::LayerFault;
use super::pool::Chunk;
use super::{Compression, LayerLimits, LayerOptions};
use crate::{Digest, Error, Mismatch, Result, Size};

/// What one thread hands to the next; an end is always explicit.
pub(super) enum Piece<E> {
    Data(Arc<Chunk>),
    End(E),
}

/// Size and digests of a whole layer.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    pub(super) compression: Compression,
    pub(super) blob: Measured,
    pub(super) tar: Measured,
}

impl Totals {
    /// The same, if they are what was promised.
    ///
    /// # Errors
    /// `Corrupt` with a [`Mismatch`].
    pub(super) fn proved(self, options: &LayerOptions) -> Result<Self> {
        if let Some(expected) = &options.blob {
            self.blob.check(expected.digest(), Some(expected.size()))?;
        }
        if let Some(diff_id) = &options.diff_id {
            self.tar.check(diff_id, None).map_err(|e| e.with_context("checking", "diff_id"))?;
        }
        Ok(self)
    }
}

/// A stream's length and digest, if it was hashed.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) size: u64,
    pub(super) digest: Option<Digest>,
}

impl Measured {
    fn check(&self, expected: &Digest, expected_size: Option<u64>) -> Result<()> {
        let complete = expected_size.is_none_or(|size| size == self.size);
        if complete && self.digest.as_ref() == Some(expected) {
            return Ok(());
        }
        Err(Error::from(Mismatch {
            expected: expected.clone(),
            actual: self.digest.clone().filter(|_| complete),
            expected_size,
            actual_size: self.size,
        }))
    }
}

/// The ratio is not checked below this size of the output: a layer of zeros of this size does no harm.
const RATIO_FLOOR: u64 = 1 << 30;

/// Refuses a tar that was compressed too much.
pub(super) fn check_ratio(size: u64, compressed: u64, ratio: u64) -> Result<()> {
    if size <= RATIO_FLOOR || size / ratio.max(1) <= compressed {
        return Ok(());
    }
    Err(LayerFault::Ratio(Size(compressed), Size(size), ratio).into())
}

/// Refuses a tar that is larger than it may be.
pub(super) fn check_size(size: u64, limits: &LayerLimits) -> Result<()> {
    if size <= limits.uncompressed {
        return Ok(());
    }
    Err(LayerFault::Large(Size(limits.uncompressed)).into())
}
