//! What is known of the blocks of a file while it is written.

use std::ops::Range;

use super::segments::{BLOCK, Segments, UNKNOWN, ZEROS, add_zeros, blocks_of, of_zeros, sum_of};
use crate::xxh3::Xxh3;

/// So many blocks can be written to in turn, each from its start on, and none of them has to be read.
const OPEN: usize = 8;

/// What is known of blocks while they are written.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    sums: Segments,
    /// Those that are being written, the last one used last. In `sums` they are zeros.
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    block: u64,
    /// The bytes that are hashed; those behind them are zeros.
    filled: u64,
    xxh3: Xxh3,
}

impl Blocks {
    /// Bytes were written.
    pub(super) fn write(&mut self, mut at: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = BLOCK - at % BLOCK;
            let (part, rest) = bytes.split_at(bytes.len().min(room as usize));
            self.write_part(at / BLOCK, at % BLOCK, part);
            at += part.len() as u64;
            bytes = rest;
        }
    }

    /// Bytes of one block were written.
    fn write_part(&mut self, block: u64, at: u64, bytes: &[u8]) {
        let found =
            self.open.iter().position(|open| open.block == block).map(|place| self.open.remove(place));
        let is_all = bytes.len() as u64 == BLOCK;
        let mut open = match found {
            Some(open) if open.filled <= at => open,
            _ if is_all => Open { block, filled: 0, xxh3: Xxh3::default() },
            None if self.sums.get(block) == ZEROS => Open { block, filled: 0, xxh3: Xxh3::default() },
            _ => return self.sums.set(block, UNKNOWN),
        };
        add_zeros(&mut open.xxh3, at - open.filled);
        open.xxh3.update(bytes);
        open.filled = at + bytes.len() as u64;
        if open.filled == BLOCK {
            return self.sums.set(block, sum_of(&open.xxh3));
        }
        if self.open.len() == OPEN {
            let oldest = self.open.remove(0);
            self.finish(oldest, BLOCK);
        }
        self.open.push(open);
    }

    /// What is in this range is unknown by now.
    pub(super) fn forget(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let blocks = range.start / BLOCK..blocks_of(range.end);
        self.open.retain(|open| !blocks.contains(&open.block));
        blocks.for_each(|block| self.sums.set(block, UNKNOWN));
    }

    /// The file was cut, or lengthened by zeros.
    pub(super) fn cut(&mut self, length: u64) {
        let (last, rest) = (length / BLOCK, length % BLOCK);
        let is_known = self.sums.get(last) == ZEROS;
        self.sums.cut(last);
        let is_kept = |open: &Open| open.block < last || (open.block == last && open.filled <= rest);
        let was_open = self.open.iter().any(|open| open.block == last && !is_kept(open));
        self.open.retain(is_kept);
        if rest > 0 && (was_open || !is_known) {
            self.sums.set(last, UNKNOWN);
        }
    }

    /// The checksums of a file of this size, and the blocks that have to be read.
    pub(super) fn close(mut self, size: u64) -> (Segments, Vec<u64>) {
        let (last, rest) = (size / BLOCK, size % BLOCK);
        if rest > 0 && self.open.iter().all(|open| open.block != last) {
            // Of a last block that is incomplete, the bytes that there are.
            let sum = if self.sums.get(last) == ZEROS { of_zeros(rest) } else { UNKNOWN };
            self.sums.set(last, sum);
        }
        for open in std::mem::take(&mut self.open) {
            let length = BLOCK.min(size.saturating_sub(open.block * BLOCK));
            self.finish(open, length);
        }
        let unknown = self.sums.unknown(blocks_of(size));
        (self.sums, unknown)
    }

    /// A block that is written no further, and has so many bytes.
    fn finish(&mut self, mut open: Open, length: u64) {
        add_zeros(&mut open.xxh3, length.saturating_sub(open.filled));
        self.sums.set(open.block, sum_of(&open.xxh3));
    }
}
