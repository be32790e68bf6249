//! Where a file's blocks are: runs of blocks, and the tree that holds them (`ifork.rst`, "Extent Tree").

use plyfold_core::Result;

use crate::fields::{
    EE_BLOCK, EE_LEN, EE_START_HI, EE_START_LO, EH_DEPTH, EH_ENTRIES, EH_MAGIC, EH_MAX, EI_BLOCK, EI_LEAF_HI,
    EI_LEAF_LO, EXTENT_ENTRY as ENTRY, EXTENT_LONGEST, EXTENT_MAGIC,
};
use crate::format::{BLOCK_SIZE, Block, Body, Checksum, put, put16, put32};

const LONGEST: u64 = EXTENT_LONGEST as u64;
/// Entries of the root, which is in the inode.
const IN_INODE: usize = 4;
/// Entries of a node that is a block, before its checksum.
const IN_BLOCK: usize = (BLOCK_SIZE - ENTRY) / ENTRY;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Extent {
    /// The first block's number in the file.
    logical: u64,
    start: u64,
    blocks: u64,
}

/// The runs of one file, in order. What lies between them is holes.
#[derive(Debug, Default)]
pub(crate) struct Extents {
    extents: Vec<Extent>,
    blocks: u64,
}

impl Extents {
    /// Adds blocks behind those that are there.
    pub(crate) fn push(&mut self, mut logical: u64, mut start: u64, mut blocks: u64) {
        self.blocks += blocks;
        if let Some(last) = self.extents.last_mut()
            && last.logical + last.blocks == logical
            && last.start + last.blocks == start
        {
            let taken = blocks.min(LONGEST - last.blocks);
            last.blocks += taken;
            (logical, start, blocks) = (logical + taken, start + taken, blocks - taken);
        }
        while blocks > 0 {
            let taken = blocks.min(LONGEST);
            self.extents.push(Extent { logical, start, blocks: taken });
            (logical, start, blocks) = (logical + taken, start + taken, blocks - taken);
        }
    }

    /// Blocks of the file's data.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The blocks outside of the inode that the tree of so many extents takes.
    pub(crate) fn tree_blocks(extents: u64) -> u64 {
        let (mut entries, mut blocks) = (extents, 0);
        while entries > IN_INODE as u64 {
            entries = entries.div_ceil(IN_BLOCK as u64);
            blocks += entries;
        }
        blocks
    }

    /// The root of the tree of the inode `number`, and the blocks that the tree has besides: `write` gives each a place.
    pub(crate) fn finish(
        &self,
        number: u32,
        checksum: Checksum,
        mut write: impl FnMut(&Block) -> Result<u64>,
    ) -> Result<(Body, u64)> {
        let mut entries: Vec<(u64, [u8; ENTRY])> = self.extents.iter().map(Extent::encode).collect();
        let (mut depth, mut blocks) = (0, 0);
        while entries.len() > IN_INODE {
            let mut above = Vec::with_capacity(entries.len().div_ceil(IN_BLOCK));
            for node in entries.chunks(IN_BLOCK) {
                let mut block = [0; BLOCK_SIZE];
                fill(&mut block, node, IN_BLOCK, depth);
                let end = ENTRY * (1 + IN_BLOCK);
                let sum = checksum.over(&[&number.to_le_bytes(), &[0; 4], &block[..end]]);
                put32(&mut block, end, sum); // et_checksum
                let place = write(&block)?;
                above.push((node[0].0, index(node[0].0, place)));
                blocks += 1;
            }
            entries = above;
            depth += 1;
        }
        let mut body = Body::default();
        fill(&mut body.0, &entries, IN_INODE, depth);
        Ok((body, blocks))
    }
}

impl Extent {
    fn encode(&self) -> (u64, [u8; ENTRY]) {
        let mut entry = [0; ENTRY];
        put32(&mut entry, EE_BLOCK, self.logical as u32);
        put16(&mut entry, EE_LEN, self.blocks as u16);
        put16(&mut entry, EE_START_HI, (self.start >> 32) as u16);
        put32(&mut entry, EE_START_LO, self.start as u32);
        (self.logical, entry)
    }
}

/// The entry for a node below.
fn index(logical: u64, place: u64) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    put32(&mut entry, EI_BLOCK, logical as u32);
    put32(&mut entry, EI_LEAF_LO, place as u32);
    put16(&mut entry, EI_LEAF_HI, (place >> 32) as u16);
    entry
}

fn fill(node: &mut [u8], entries: &[(u64, [u8; ENTRY])], most: usize, depth: u16) {
    put16(node, EH_MAGIC, EXTENT_MAGIC);
    put16(node, EH_ENTRIES, entries.len() as u16);
    put16(node, EH_MAX, most as u16);
    put16(node, EH_DEPTH, depth);
    for (at, (_, entry)) in entries.iter().enumerate() {
        put(node, ENTRY * (1 + at), entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_extent_of_at_most_128_mib() {
        let mut extents = Extents::default();
        extents.push(0, 100, 10);
        extents.push(10, 110, 40_000);
        extents.push(50_000, 40_110, 1);
        let runs: Vec<_> = extents.extents.iter().map(|e| (e.logical, e.start, e.blocks)).collect();
        assert_eq!(runs, [(0, 100, 32_768), (32_768, 32_868, 7_242), (50_000, 40_110, 1)]);
        assert_eq!(extents.blocks(), 40_011);
    }

    #[test]
    fn a_tree_grows_by_levels() {
        for (count, blocks, depth) in [(0, 0, 0), (4, 0, 0), (5, 1, 1), (1360, 4, 1), (1361, 6, 2)] {
            let mut extents = Extents::default();
            (0..count).for_each(|number| extents.push(number * 2, number * 3 + 7, 1));
            let mut written = Vec::new();
            let write = |block: &Block| {
                written.push(*block);
                Ok(1000 + written.len() as u64)
            };
            let (body, taken) = extents.finish(12, Checksum::new(&[0; 16]), write).unwrap();
            assert_eq!((taken, body.0[6], Extents::tree_blocks(count)), (blocks, depth, blocks), "{count}");
            assert_eq!(written.len() as u64, blocks);
        }
    }
}
