//! The places of a gzip stream from which it can be decoded.

use zstd::bulk::Compressor;

use crate::Result;
use crate::layer::fault::LayerFault;
use crate::layer::gunzip::{Members, Sum, WINDOW};

/// A place from which a stream can be decoded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Point {
    /// Where its first bit is in the blob.
    pub(super) bit: u64,
    /// How many bytes come before it, uncompressed.
    pub(super) offset: u64,
    /// The part of a member before it; `None` where a member begins here.
    pub(super) within: Option<Within>,
}

/// What a decoder has to know of the part of a member that comes before a block of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Within {
    pub(super) sum: Sum,
    /// Bytes of the window, uncompressed.
    pub(super) length: u32,
    /// The last 32 KiB before, or all if there are fewer, as a frame of zstd.
    pub(super) window: Box<[u8]>,
}

impl Within {
    pub(super) fn new(sum: Sum, window: &[u8], compressor: &mut Compressor<'_>) -> Result<Self> {
        let compressed = compressor.compress(window).map_err(|_| LayerFault::NoMemory)?;
        Ok(Self { sum, length: window.len() as u32, window: compressed.into() })
    }

    fn window(&self) -> Result<Vec<u8>> {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        if length > WINDOW {
            return Err(LayerFault::GzipIndex("a window is longer than 32 KiB").into());
        }
        let window = zstd::bulk::decompress(&self.window, length);
        let window = window.ok().filter(|window| window.len() == length);
        window.ok_or_else(|| LayerFault::GzipIndex("a window is broken").into())
    }
}

impl Point {
    /// The first byte of a stream.
    pub(super) const START: Self = Self { bit: 0, offset: 0, within: None };

    /// Bytes that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        64 + self.within.as_ref().map_or(0, |within| within.window.len())
    }

    /// Where the byte with its first bit is in the blob.
    pub(super) fn byte(&self) -> u64 {
        self.bit / 8
    }

    /// Sets a decoder to this place, of whose first byte some bits may belong to what comes before; the place of the next
    /// byte that it takes.
    pub(super) fn enter(&self, members: &mut Members, first: u8) -> Result<u64> {
        let Some(within) = &self.within else {
            members.restart();
            return Ok(self.byte());
        };
        let bit = (self.bit % 8) as u8;
        members.resume(&within.window()?, within.sum, bit, first)?;
        Ok(self.byte() + u64::from(bit != 0))
    }
}
