//! Pieces of a layer's tar, and its sizes and digests, which come last.

use std::sync::Arc;

use super::fault::LayerFault;
use super::pool::Chunk;
use super::{Compression, LayerLimits};
use crate::{Digest, Result, Size};

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

/// A stream's length and digest, if it was hashed.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) size: u64,
    pub(super) digest: Option<Digest>,
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
