//! The inode tables, written in the order of the inodes' numbers.

use plyfold_core::Result;

use crate::disk::Disk;
use crate::fields::{S_IFDIR, S_IFMT};
use crate::format::{BLOCK_SIZE, Checksum, INODE_SIZE, Inode, put};
use crate::geometry::Geometry;

/// Inodes of the first block, which come in any order: the reserved ones are among them.
const FIRST: u32 = (BLOCK_SIZE / INODE_SIZE) as u32;
/// Bytes gathered before they are written: whole blocks.
const GATHER: usize = 1 << 20;

/// The tables of all groups.
pub(crate) struct InodeTable {
    geometry: Geometry,
    checksum: Checksum,
    first: Vec<u8>,
    /// Inodes that follow each other, from the number `start` on, all of one group.
    gathered: Vec<u8>,
    start: u32,
    /// Directories in each group.
    directories: Vec<u32>,
}

impl InodeTable {
    pub(crate) fn new(geometry: Geometry, checksum: Checksum) -> Self {
        Self {
            geometry,
            checksum,
            first: vec![0; BLOCK_SIZE],
            gathered: Vec::with_capacity(GATHER),
            start: FIRST + 1,
            directories: vec![0; geometry.groups as usize],
        }
    }

    /// Adds an inode: one of the first block, or the next one.
    pub(crate) fn add(&mut self, inode: &Inode, disk: &mut Disk<'_>) -> Result<()> {
        let group = (inode.number - 1) / self.geometry.inodes_per_group;
        self.directories[group as usize] += u32::from(inode.mode & S_IFMT == S_IFDIR);
        let bytes = inode.encode(self.checksum);
        if inode.number <= FIRST {
            put(&mut self.first, (inode.number - 1) as usize * INODE_SIZE, &bytes);
            return Ok(());
        }
        self.gathered.extend_from_slice(&bytes);
        if self.gathered.len() == GATHER || inode.number.is_multiple_of(self.geometry.inodes_per_group) {
            self.flush(disk)?;
        }
        Ok(())
    }

    /// Writes what is gathered. The rest of its last block is zeros, or comes never: inodes come in whole blocks but for
    /// the last ones.
    fn flush(&mut self, disk: &mut Disk<'_>) -> Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let (group, place) = (
            (self.start - 1) / self.geometry.inodes_per_group,
            (self.start - 1) % self.geometry.inodes_per_group,
        );
        let block = self.geometry.inode_table(group) + u64::from(place / FIRST);
        self.start += (self.gathered.len() / INODE_SIZE) as u32;
        self.gathered.resize(self.gathered.len().next_multiple_of(BLOCK_SIZE), 0);
        disk.put(block, &self.gathered)?;
        self.gathered.clear();
        Ok(())
    }

    /// Writes the rest; the number of directories in each group.
    pub(crate) fn finish(mut self, disk: &mut Disk<'_>) -> Result<Vec<u32>> {
        self.flush(disk)?;
        disk.put(self.geometry.inode_table(0), &self.first)?;
        Ok(self.directories)
    }
}
