//! The checksums of a file's blocks, and what they show.

use std::io::{self, Read};
use std::ops::Range;

use super::blocks::Blocks;
use super::checksum::Checksum;
use super::segments::{BLOCK, Segments, blocks_of, of_zeros};
use crate::digest::read_all;

/// The checksums of a file's blocks. Blocks of zeros take no memory and, in a row, 16 bytes as [bytes](Self::to_bytes); every other
/// one takes 8 bytes.
#[derive(Clone, Debug)]
pub struct BlockSums {
    pub(super) size: u64,
    pub(super) sums: Segments,
}

impl BlockSums {
    /// Those of all that a reader still has.
    ///
    /// # Errors
    /// Those of the reader, but an interruption by a signal.
    ///
    /// ```
    /// use plyfold_core::block_sums::BlockSums;
    ///
    /// let sums = BlockSums::read_all(&b"content"[..])?;
    /// assert_eq!((sums.size(), sums.to_bytes().len()), (7, 8));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn read_all(reader: impl Read) -> io::Result<Self> {
        let mut sums = SumsInOrder::default();
        read_all(reader, |bytes| sums.update(bytes))?;
        Ok(sums.finish())
    }

    /// The bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// One checksum of all: of the size and of the checksums of the blocks.
    pub fn checksum(&self) -> Checksum {
        Checksum::of(self.size, &self.to_bytes())
    }

    /// The checksums as bytes: 8 for each block, the lowest first; 8 zeros in front of a number stand for so many blocks of zeros.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.sums.to_bytes(blocks_of(self.size))
    }

    /// What [`to_bytes`](Self::to_bytes) has made, of a file of this size; `None` for anything else.
    pub fn parse(size: u64, bytes: &[u8]) -> Option<Self> {
        Some(Self { size, sums: Segments::parse(bytes, blocks_of(size))? })
    }

    /// What is wrong with a file that has these other checksums, in a few words; `None` when they are the same.
    pub fn differences(&self, found: &Self) -> Option<String> {
        let (expected, size) = (self.size, found.size);
        if expected != size {
            return Some(format!("size mismatch: recorded with {expected} bytes, it has {size}"));
        }
        let other = (0..blocks_of(size)).filter(|block| self.of_block(*block) != found.of_block(*block));
        mismatch(&joined(other, size))
    }

    /// Whether these are all bytes of a block, the first one being 0.
    ///
    /// ```
    /// use plyfold_core::block_sums::BlockSums;
    ///
    /// let sums = BlockSums::read_all(&b"content"[..])?;
    /// assert!(sums.is_block(0, b"content"));
    /// assert!(!sums.is_block(0, b"CONTENT") && !sums.is_block(0, b"conten") && !sums.is_block(1, b""));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn is_block(&self, block: u64, bytes: &[u8]) -> bool {
        let mut alone = SumsInOrder::default();
        alone.update(bytes);
        self.has_block(block, &alone.finish())
    }

    /// Whether these are the checksums of all bytes of a block, the first one being 0: for bytes that come in pieces.
    ///
    /// ```
    /// use plyfold_core::block_sums::{BlockSums, SumsInOrder};
    ///
    /// let sums = BlockSums::read_all(&b"content"[..])?;
    /// let mut block = SumsInOrder::default();
    /// for piece in [b"con", &b"tent"[..]] {
    ///     block.update(piece);
    /// }
    /// assert!(sums.has_block(0, &block.finish()));
    /// assert!(!sums.has_block(0, &SumsInOrder::default().finish()));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn has_block(&self, block: u64, alone: &Self) -> bool {
        let length = block.checked_mul(BLOCK).and_then(|start| self.size.checked_sub(start));
        length.is_some_and(|left| left > 0 && alone.size == left.min(BLOCK))
            && alone.of_block(0) == self.of_block(block)
    }

    /// Whether a block has zeros alone, the first one being 0: its bytes need not be read then.
    ///
    /// ```
    /// use plyfold_core::block_sums::BlockSums;
    ///
    /// assert!(BlockSums::read_all(&[0; 7][..])?.is_zeros(0));
    /// assert!(!BlockSums::read_all(&b"content"[..])?.is_zeros(0));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn is_zeros(&self, block: u64) -> bool {
        let start = block.saturating_mul(BLOCK);
        start < self.size && self.of_block(block) == of_zeros(BLOCK.min(self.size - start))
    }

    /// The checksum of a block.
    pub(super) fn of_block(&self, block: u64) -> u64 {
        self.sums.get(block)
    }
}

/// [`BlockSums`] of bytes that come in order.
#[derive(Debug, Default)]
pub struct SumsInOrder {
    blocks: Blocks,
    size: u64,
}

impl SumsInOrder {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.blocks.write(self.size, bytes);
        self.size += bytes.len() as u64;
    }

    /// The checksums of all bytes so far.
    pub fn finish(self) -> BlockSums {
        let Self { blocks, size } = self;
        // What comes in order leaves nothing to be read again.
        BlockSums { size, sums: blocks.close(size).0 }
    }
}

/// That these ranges of a file are damaged, in words: how many bytes, and from which byte on, of many the first ones. `None`
/// without ranges.
pub fn mismatch(ranges: &[Range<u64>]) -> Option<String> {
    const SHOWN: usize = 4;
    let words = |range: &Range<u64>| format!("{} bytes at {}", range.end - range.start, range.start);
    let text = ranges.iter().take(SHOWN).map(words).collect::<Vec<_>>().join(", ");
    let more = match ranges.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and in {more} more places"),
    };
    (!ranges.is_empty()).then(|| format!("checksum mismatch: {text}{more}"))
}

/// Blocks of a file of this size as ranges, neighbours together.
pub(super) fn joined(blocks: impl IntoIterator<Item = u64>, size: u64) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for block in blocks {
        let (start, end) = (block * BLOCK, (block + 1).saturating_mul(BLOCK).min(size));
        match ranges.last_mut().filter(|before| before.end == start) {
            Some(before) => before.end = end,
            None => ranges.push(start..end),
        }
    }
    ranges
}
