//! The index of one block of a compressed file.

use std::io::{Read, Seek};

use plyfold_core::Result;

use super::super::source::ImageBytes;
use super::header::{FileMap, Indexes};
use crate::compress::format::{BLOCKS, FULL_SIZE, FullIndex, NONHEAD, PARTIAL, Pack};
use crate::fault::ErofsFault;

/// Bits of an index in a pack that are no type.
const LOW_BITS: u32 = 12;

/// What an index says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BlockIndex {
    /// An extent starts in the block.
    Head {
        /// `PLAIN`, `HEAD1` or `HEAD2`.
        kind: u8,
        /// Where in the block.
        offset: u64,
        /// The first block of its cluster.
        block: u32,
        /// It has a part of its cluster.
        partial: bool,
    },
    /// It started so many blocks before.
    Inside(u64),
    /// It started in the block before, and its cluster has so many blocks.
    Second(u64),
}

impl FileMap {
    /// The index of a block, and where the next pack or index stands.
    pub(super) fn index<R: Read + Seek>(
        &self,
        source: &mut ImageBytes<R>,
        block: u64,
    ) -> Result<(BlockIndex, u64)> {
        let found = match self.indexes {
            Indexes::Compact(packs) if block < packs.total() => {
                let pack = packs.of(block);
                let mut bytes = [0; 32];
                source.metadata(pack.start, &mut bytes[..pack.size() as usize])?;
                let slot = (block - pack.first) as usize;
                (self.compact(&pack, &bytes, slot)?, pack.start + pack.size())
            }
            Indexes::Full(start) if block < self.blocks() => {
                let at = start + block * FULL_SIZE;
                (full(&source.record(at)?), at + FULL_SIZE)
            }
            _ => return Err(ErofsFault::Malformed("a compressed file has no index for a block").into()),
        };
        match found.0 {
            BlockIndex::Head { offset, .. } if offset >> self.block_bits != 0 => {
                Err(ErofsFault::Malformed("an extent starts behind its block").into())
            }
            BlockIndex::Second(_) if !self.big[0] && !self.big[1] => {
                Err(ErofsFault::Malformed("a file of small clusters has a big one").into())
            }
            _ => Ok(found),
        }
    }

    fn compact(&self, pack: &Pack, bytes: &[u8; 32], slot: usize) -> Result<BlockIndex> {
        let value = |slot: usize| value(pack, bytes, slot);
        let (kind, low) = value(slot);
        if kind == NONHEAD {
            if low & BLOCKS != 0 || slot + 1 != pack.count as usize {
                return Ok(inside(low));
            }
            // The last one has the distance to the next extent: the one before it says where this one started.
            let before = match value(slot - 1) {
                (NONHEAD, low) if low & BLOCKS != 0 => 1,
                (NONHEAD, low) => low.into(),
                _ => 0,
            };
            return Ok(BlockIndex::Inside(before + 1));
        }
        let base = &bytes[pack.size() as usize - 4..][..4];
        let base = base.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte));
        let before = self.blocks_before(slot, value)?;
        let block = base.wrapping_add(before);
        Ok(BlockIndex::Head { kind, offset: low.into(), block, partial: false })
    }

    /// Blocks of the clusters from the pack's base on to that of the extent which starts at `slot`.
    fn blocks_before(&self, slot: usize, value: impl Fn(usize) -> (u8, u16)) -> Result<u32> {
        let mut at = slot;
        if !self.big[0] {
            let mut blocks = 1;
            while let Some(before) = at.checked_sub(1) {
                let skip = match value(before) {
                    (NONHEAD, low) => usize::from(low),
                    _ => 0,
                };
                let Some(head) = before.checked_sub(skip) else { break };
                blocks += 1;
                at = head;
            }
            return Ok(blocks);
        }
        let mut blocks = 0;
        while let Some(before) = at.checked_sub(1) {
            at = match value(before) {
                (NONHEAD, low) if low & BLOCKS != 0 => {
                    blocks += u32::from(low & !BLOCKS);
                    before.saturating_sub(1)
                }
                // On to the block behind the first of the extent, which has the number of blocks.
                (NONHEAD, low @ 2..) => (before + 2).saturating_sub(low.into()),
                (NONHEAD, _) => return Err(ErofsFault::Malformed("a big cluster has no size").into()),
                _ => {
                    blocks += 1;
                    before
                }
            };
        }
        Ok(blocks)
    }
}

fn full(index: &FullIndex) -> BlockIndex {
    let advise = index.advise.get();
    let kind = (advise & 3) as u8;
    if kind != NONHEAD {
        let (offset, block) = (index.clusterofs.get().into(), index.location.get());
        return BlockIndex::Head { kind, offset, block, partial: advise & PARTIAL != 0 };
    }
    inside(index.location.get() as u16)
}

fn inside(distance: u16) -> BlockIndex {
    if distance & BLOCKS != 0 {
        BlockIndex::Second((distance & !BLOCKS).into())
    } else {
        BlockIndex::Inside(distance.into())
    }
}

/// Type and value of an index in a pack.
fn value(pack: &Pack, bytes: &[u8; 32], slot: usize) -> (u8, u16) {
    let at = slot * pack.bits() as usize;
    let part = bytes[at / 8..].iter().take(3).rev().fold(0, |number, byte| number << 8 | u32::from(*byte));
    let value = part >> (at % 8);
    ((value >> LOW_BITS & 3) as u8, (value & ((1 << LOW_BITS) - 1)) as u16)
}
