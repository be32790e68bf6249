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
/// Files from so many bytes on are copied by the kernel where that can be: smaller ones take longer that way.
const COPY_MIN: u64 = 64 << 10;
/// Bytes on their way from the image: whole blocks.
pub(crate) const BUFFER: usize = 1 << 20;

/// The shortest run of blocks of zeros that becomes a hole.
fn hole_blocks(size: u64) -> u64 {
    (size.div_ceil(BLOCK) / HOLES_MAX).next_power_of_two().max(HOLE_MIN)
}

/// The most blocks that a regular file of `size` bytes takes, those of its extent tree included. The buffer has
/// [`BUFFER`] bytes.
pub(crate) fn most_blocks(image: &MergedTree, (id, size): (NodeId, u64), buffer: &mut [u8]) -> Result<u64> {
    let mut counted = Counted::default();
    if has_no_holes(image, id, size)? {
        counted.add(0, size.div_ceil(BLOCK));
    } else {
        for_each_run(image, (id, size), buffer, &mut counted)?;
    }
    Ok(counted.most())
}

/// Copies a regular file of `size` bytes to the disk; where its blocks are. The buffer has [`BUFFER`] bytes.
pub(crate) fn copy(
    image: &MergedTree,
    (id, size): (NodeId, u64),
    disk: &mut Disk<'_>,
    buffer: &mut [u8],
) -> Result<Extents> {
    let mut copied = Copied { disk, extents: Extents::default() };
    if size >= COPY_MIN && has_no_holes(image, id, size)? {
        copied.disk.copy(&mut copied.extents, image, (id, size))?;
    } else {
        for_each_run(image, (id, size), buffer, &mut copied)?;
    }
    Ok(copied.extents)
}

/// Whether it is certain that no block of the file becomes a hole.
fn has_no_holes(image: &MergedTree, id: NodeId, size: u64) -> Result<bool> {
    Ok(!image.may_have_holes(id, hole_blocks(size))?)
}

/// What takes the blocks of a file that are no hole, in order.
trait Blocks {
    /// Blocks that are not zeros, from the file's block `logical` on.
    fn data(&mut self, logical: u64, bytes: &[u8]) -> Result<()>;

    /// Blocks of zeros that are too few for a hole.
    fn zeros(&mut self, logical: u64, blocks: u64) -> Result<()>;
}

/// Reads a file, and finds the holes in it by its bytes.
fn for_each_run(
    image: &MergedTree,
    (id, size): (NodeId, u64),
    buffer: &mut [u8],
    out: &mut dyn Blocks,
) -> Result<()> {
    let mut file = Runs { out, hole: hole_blocks(size), position: 0, zeros: 0 };
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
    file.settle_zeros()
}

struct Runs<'a> {
    out: &'a mut dyn Blocks,
    /// The shortest hole.
    hole: u64,
    /// Blocks written, holes included.
    position: u64,
    /// Blocks of zeros that come next, not yet known to be a hole.
    zeros: u64,
}

impl Runs<'_> {
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
        self.out.data(self.position, bytes)?;
        self.position += (bytes.len() / BLOCK_SIZE) as u64;
        Ok(())
    }

    /// Makes a hole of the zeros, or blocks if they are too few.
    fn settle_zeros(&mut self) -> Result<()> {
        if self.zeros > 0 && self.zeros < self.hole {
            self.out.zeros(self.position, self.zeros)?;
        }
        self.position += self.zeros;
        self.zeros = 0;
        Ok(())
    }
}

/// Blocks on their way to the disk.
struct Copied<'a, 'b> {
    disk: &'a mut Disk<'b>,
    extents: Extents,
}

impl Blocks for Copied<'_, '_> {
    fn data(&mut self, logical: u64, bytes: &[u8]) -> Result<()> {
        self.disk.append(&mut self.extents, logical, bytes)
    }

    fn zeros(&mut self, logical: u64, blocks: u64) -> Result<()> {
        self.disk.reserve(&mut self.extents, logical, blocks)
    }
}

/// Blocks that are counted.
#[derive(Default)]
struct Counted {
    blocks: u64,
    /// Runs with a hole before them, or at the start of the file.
    pieces: u64,
    /// The block behind the last one.
    end: u64,
}

impl Counted {
    fn add(&mut self, logical: u64, blocks: u64) {
        if self.blocks == 0 || logical > self.end {
            self.pieces += 1;
        }
        self.blocks += blocks;
        self.end = logical + blocks;
    }

    fn most(&self) -> u64 {
        // A run that goes on in the next group is in two pieces there; more than half of a group is for files.
        let pieces = self.pieces + self.blocks / u64::from(BLOCKS_PER_GROUP / 2) + 1;
        self.blocks + Extents::tree_blocks(pieces)
    }
}

impl Blocks for Counted {
    fn data(&mut self, logical: u64, bytes: &[u8]) -> Result<()> {
        self.add(logical, (bytes.len() / BLOCK_SIZE) as u64);
        Ok(())
    }

    fn zeros(&mut self, logical: u64, blocks: u64) -> Result<()> {
        self.add(logical, blocks);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_count_from_64_kib_on_and_grow_with_the_file() {
        let most = |runs: &[(u64, u64)]| {
            let mut counted = Counted::default();
            for (logical, blocks) in runs {
                counted.add(*logical, *blocks);
            }
            counted.most()
        };
        assert_eq!(most(&[]), 0);
        assert_eq!(most(&[(0, 1), (1, 1)]), 2);
        assert_eq!(most(&[(0, 1), (17, 1)]), 2);
        assert_eq!(most(&[(0, 1), (17, 1), (40, 2), (60, 3), (100, 1)]), 8 + 1);
        assert_eq!(hole_blocks(1 << 30), 16);
        assert_eq!(hole_blocks(1 << 44), 1 << 17);
    }
}
