//! The compact indexes of a file, out of its extents.

use super::algorithm::BLOCK;
use super::extents::Extent;
use super::format::{BLOCKS, HEAD1, NONHEAD, PLAIN, Packs};

/// The largest distance that an index has: the next bit has another meaning.
const DISTANCE_MAX: u64 = BLOCKS as u64 - 1;
/// Bits of an index that are no type.
const LOW_BITS: u32 = 12;

/// The index of one block of the file.
#[derive(Clone, Copy)]
enum Index {
    /// An extent starts in the block, and its cluster at a block of the image.
    Head { is_plain: bool, offset: u16, block: u32 },
    /// An extent goes on: the distance from its start, and that to the next start. In the second block the size of the
    /// cluster may stand in place of the distance.
    Inside { from: u64, to: u64, blocks: Option<u16> },
}

/// Makes the packs, one after the other.
pub(crate) struct IndexWriter<'a> {
    packs: Packs,
    /// Clusters may have more than one block.
    big: bool,
    /// The bytes of the file so far, and the block of the next cluster.
    position: u64,
    block: u32,
    /// How many indexes there were.
    number: u64,
    /// Those of the pack that is being filled.
    pending: Vec<Index>,
    out: &'a mut Vec<u8>,
}

impl<'a> IndexWriter<'a> {
    pub(crate) fn new(packs: Packs, big: bool, block: u32, out: &'a mut Vec<u8>) -> Self {
        Self { packs, big, position: 0, block, number: 0, pending: Vec::with_capacity(16), out }
    }

    pub(crate) fn extent(&mut self, extent: Extent) {
        let block_size = u64::from(BLOCK);
        let (first, offset) = (self.position / block_size, (self.position % block_size) as u16);
        self.push(Index::Head { is_plain: extent.is_plain, offset, block: self.block });
        self.position += u64::from(extent.length);
        let next = self.position / block_size;
        for index in first + 1..next {
            let from = index - first;
            let blocks = (self.big && from == 1).then_some(extent.blocks);
            self.push(Index::Inside { from, to: next - index, blocks });
        }
        self.block = self.block.wrapping_add(extent.blocks.into());
    }

    /// Ends the file.
    pub(crate) fn finish(mut self) {
        // In its last block the end of the file looks like the start of an extent.
        if self.number < self.packs.total() {
            let offset = (self.position % u64::from(BLOCK)) as u16;
            self.push(Index::Head { is_plain: true, offset, block: self.block });
        }
        if !self.pending.is_empty() {
            self.flush();
        }
    }

    fn push(&mut self, index: Index) {
        self.pending.push(index);
        self.number += 1;
        if self.pending.len() as u64 == self.packs.of(self.number - 1).count {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let pack = self.packs.of(self.number - 1);
        let mut bytes = [0; 32];
        let size = pack.size() as usize;
        for (slot, index) in self.pending.iter().enumerate() {
            let (kind, low) = match *index {
                Index::Head { is_plain, offset, .. } => (if is_plain { PLAIN } else { HEAD1 }, offset),
                Index::Inside { blocks: Some(blocks), .. } => (NONHEAD, BLOCKS | blocks),
                // The last one in a pack says how far it is to the next extent.
                Index::Inside { to, .. } if slot as u64 + 1 == pack.count => (NONHEAD, capped(to)),
                Index::Inside { from, .. } => (NONHEAD, capped(from)),
            };
            let at = slot * pack.bits() as usize;
            let value = (u32::from(kind) << LOW_BITS | u32::from(low)) << (at % 8);
            for (byte, part) in bytes[at / 8..].iter_mut().zip(value.to_le_bytes()).take(3) {
                *byte |= part;
            }
        }
        bytes[size - 4..size].copy_from_slice(&self.base().to_le_bytes());
        self.out.extend_from_slice(&bytes[..size]);
        self.pending.clear();
    }

    /// The block from which the pack's blocks are counted.
    fn base(&self) -> u32 {
        // Of clusters that started in the pack before, and have their sizes here.
        let mut before = 0;
        for index in &self.pending {
            match *index {
                Index::Head { block, .. } if self.big => return block.wrapping_sub(before),
                // With clusters of one block, each start counts one before its own.
                Index::Head { block, .. } => return block.wrapping_sub(1),
                Index::Inside { blocks, .. } => before += u32::from(blocks.unwrap_or(0)),
            }
        }
        0
    }
}

fn capped(distance: u64) -> u16 {
    distance.min(DISTANCE_MAX) as u16
}
