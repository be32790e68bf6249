//! Where inodes stand in the metadata area, each with what stands right behind it.

use crate::format::SLOT;

/// How inodes are packed into blocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Packing {
    /// One after the other; what must stand in one block and does not fit moves to the next one.
    InOrder,
    /// Each into the fullest block that has room for it: inodes with the last parts of files would leave a fifth of
    /// their blocks empty otherwise.
    BestFit,
}

/// Finds places, one after the other. The first slot stays empty: inode number 0 means "none" to readers of
/// directories.
#[derive(Debug)]
pub(crate) struct Places {
    block_size: u64,
    /// The end of what is taken, in bytes; with open blocks a multiple of the block size.
    end: u64,
    /// Blocks with room, by the slots that are left in them, the last one opened last.
    open: Option<Vec<Vec<u32>>>,
}

impl Places {
    pub(crate) fn new(packing: Packing, block_size: u64) -> Self {
        if packing == Packing::InOrder {
            return Self { block_size, end: SLOT, open: None };
        }
        let slots = (block_size / SLOT) as usize;
        let mut open = vec![Vec::new(); slots + 1];
        open[slots - 1].push(0);
        Self { block_size, end: block_size, open: Some(open) }
    }

    /// A place for `length` bytes, of which the first `within` must stand in one block.
    pub(crate) fn take(&mut self, within: u64, length: u64) -> u64 {
        let block_size = self.block_size;
        let Some(open) = &mut self.open else {
            let mut offset = self.end.next_multiple_of(SLOT);
            if offset % block_size + within > block_size {
                offset = offset.next_multiple_of(block_size);
            }
            self.end = offset + length;
            return offset;
        };
        let slots = length.div_ceil(SLOT) as usize;
        let found = (slots..open.len()).find_map(|room| Some((open[room].pop()?, room)));
        let (offset, left) = if let Some((block, room)) = found {
            let full = open.len() - 1 - room;
            (u64::from(block) * block_size + full as u64 * SLOT, room - slots)
        } else {
            let offset = self.end;
            self.end += length.next_multiple_of(block_size).max(block_size);
            (offset, ((self.end - offset) / SLOT) as usize - slots)
        };
        if left > 0 {
            open[left].push(((offset + length - 1) / block_size) as u32);
        }
        offset
    }

    /// The end of all places, in bytes.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::{Packing, Places};

    #[test]
    fn the_fullest_block_with_room_is_taken() {
        let mut places = Places::new(Packing::BestFit, 4096);
        assert_eq!(places.take(64, 64), 32);
        // 4000 bytes are left in the first block.
        assert_eq!(places.take(4064, 4064), 4096);
        assert_eq!(places.take(2000, 2000), 96);
        // The second block has one slot, the first one 1952 bytes after its 63 slots.
        assert_eq!(places.take(32, 32), 4096 + 4064);
        assert_eq!(places.take(1952, 1952), 96 + 2016);
        assert_eq!(places.take(64, 64), 8192);
        // More than a block, and what stands behind it.
        assert_eq!(places.take(64, 5000), 12288);
        assert_eq!(places.take(3000, 3000), 12288 + 5024);
        assert_eq!(places.end(), 12288 + 8192);
    }

    #[test]
    fn places_never_overlap_and_never_cross_a_block() {
        for block_size in [512, 1024, 4096] {
            let mut places = Places::new(Packing::BestFit, block_size);
            let mut taken = vec![(0, 32)];
            let mut length = 7;
            for _ in 0..2000 {
                length = length * 31 % (block_size * 2 + 77);
                let offset = places.take(length.min(block_size), length.max(1));
                let end = offset + length.max(1);
                assert!(
                    offset.is_multiple_of(32)
                        && (length > block_size || offset / block_size == (end - 1) / block_size)
                );
                taken.push((offset, end));
            }
            taken.sort_unstable();
            assert!(taken.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            assert!(taken.iter().all(|place| place.1 <= places.end()));
        }
    }
}
