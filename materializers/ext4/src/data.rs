//! The data of regular files: which of it is holes, and its way from the image to the disk.
//!
//! What becomes a hole depends on the bytes alone: a run of blocks of zeros, of a length that grows with the file, so that
//! a file has at most 32,768 of them. Whether they were a hole before does not matter.

use plyfold_core::Result;
use plyfold_core::tree::{MergedTree, NodeId};

use crate::disk::Disk;
use crate::extents::Extents;
use crate::fault::Ext4Fault;
use crate::format::{BLOCK_SIZE, BLOCKS_PER_GROUP};

/// The largest file: its last block has a number of 32 bits that is not the largest (`ext4_max_size`).
pub(crate) const LARGEST_FILE: u64 = ((1 << 32) - 1) * BLOCK;
const BLOCK: u64 = BLOCK_SIZE as u64;
const ZEROS: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];
/// The shortest hole, in blocks: shorter ones cost more to find than they save.
const HOLE_MIN: u64 = 16;
/// The most holes of a file.
const HOLES_MAX: u64 = 1 << 15;
/// Bytes on their way from the image: whole blocks.
pub(crate) const BUFFER: usize = 1 << 20;

/// The shortest run of blocks of zeros that becomes a hole.
fn hole_blocks(size: u64) -> u64 {
    (size.div_ceil(BLOCK) / HOLES_MAX).next_power_of_two().max(HOLE_MIN)
}

/// The most blocks of a file with these runs of data, those of its extent tree included.
pub(crate) fn most_blocks(size: u64, runs: impl Iterator<Item = (u64, u64)>) -> u64 {
    let hole = hole_blocks(size);
    let (mut blocks, mut pieces, mut end) = (0, 1, 0);
    for (offset, length) in runs {
        let (first, last) = (offset / BLOCK, (offset + length).div_ceil(BLOCK));
        if first >= end + hole {
            pieces += 1;
        } else {
            blocks += first.saturating_sub(end);
        }
        blocks += last.saturating_sub(first.max(end));
        end = end.max(last);
    }
    let total = size.div_ceil(BLOCK);
    if total < end + hole {
        blocks += total.saturating_sub(end);
    }
    // A run that goes on in the next group is in two pieces there; more than half of a group is for files.
    pieces += blocks / u64::from(BLOCKS_PER_GROUP / 2) + 1;
    blocks + Extents::tree_blocks(pieces)
}

/// Copies a regular file of `size` bytes to the disk; where its blocks are. The buffer has [`BUFFER`] bytes.
pub(crate) fn copy(
    image: &MergedTree,
    (id, size): (NodeId, u64),
    disk: &mut Disk<'_>,
    buffer: &mut [u8],
) -> Result<Extents> {
    let mut file =
        Copied { disk, extents: Extents::default(), hole: hole_blocks(size), position: 0, zeros: 0 };
    let end = size.div_ceil(BLOCK);
    for extent in image.extents(id) {
        let (first, last) = (extent.offset / BLOCK, (extent.offset + extent.length).div_ceil(BLOCK));
        let gap = first.max(file.next()) - file.next();
        file.zeros += gap;
        while file.next() < last {
            let at = file.next();
            let count = ((last - at) * BLOCK).min(buffer.len() as u64) as usize;
            // The part of the last block that is behind the file's end.
            let bytes = &mut buffer[..count];
            let read = image.read_at(id, at * BLOCK, bytes)?;
            if read < count && at * BLOCK + (read as u64) < size {
                return Err(Ext4Fault::Short(size).into());
            }
            bytes[read..].fill(0);
            file.write(bytes)?;
        }
    }
    file.zeros += end.saturating_sub(file.next());
    file.finish()
}

struct Copied<'a, 'b> {
    disk: &'a mut Disk<'b>,
    extents: Extents,
    /// The shortest hole.
    hole: u64,
    /// Blocks written, holes included.
    position: u64,
    /// Blocks of zeros that come next, not yet known to be a hole.
    zeros: u64,
}

impl Copied<'_, '_> {
    /// The number of the next block.
    fn next(&self) -> u64 {
        self.position + self.zeros
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let is_zero = |block: &[u8]| *block == ZEROS;
        let mut start = 0;
        let mut at = 0;
        for block in bytes.chunks(BLOCK_SIZE) {
            if is_zero(block) {
                self.data(&bytes[start..at])?;
                self.zeros += 1;
                start = at + BLOCK_SIZE;
            }
            at += BLOCK_SIZE;
        }
        self.data(&bytes[start..])
    }

    /// Writes blocks that are not zeros.
    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.settle_zeros()?;
        self.disk.append(&mut self.extents, self.position, bytes)?;
        self.position += (bytes.len() / BLOCK_SIZE) as u64;
        Ok(())
    }

    /// Makes a hole of the zeros, or blocks if they are too few.
    fn settle_zeros(&mut self) -> Result<()> {
        if self.zeros > 0 && self.zeros < self.hole {
            self.disk.reserve(&mut self.extents, self.position, self.zeros)?;
        }
        self.position += self.zeros;
        self.zeros = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<Extents> {
        self.settle_zeros()?;
        Ok(self.extents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_count_from_64_kib_on_and_grow_with_the_file() {
        assert_eq!(most_blocks(0, [].into_iter()), 0);
        assert_eq!(most_blocks(5000, [(0, 5000)].into_iter()), 2);
        assert_eq!(most_blocks(1 << 40, [].into_iter()), 0);
        assert_eq!(most_blocks(20 * 4096, [(0, 1), (17 * 4096, 1)].into_iter()), 4);
        assert_eq!(most_blocks(20 * 4096, [(0, 1), (15 * 4096, 1)].into_iter()), 20);
        assert_eq!(hole_blocks(1 << 44), 1 << 17);
    }
}
