//! Where everything stands: block groups and the run of blocks that group 0 begins with.
//!
//! Each group holds its own bitmaps and inode table at its start, so a group's block bitmap follows from its
//! descriptor and the group can stay `BLOCK_UNINIT`. Two groups are not: group 0, where the directories and the
//! journal are, and the last one, which may be short.

use crate::format::{BLOCK_SIZE, BLOCKS_PER_GROUP, DESCRIPTOR_SIZE, INODE_SIZE, INODES_PER_GROUP};

/// Blocks of one group's inode table.
pub(crate) const INODE_TABLE_BLOCKS: u32 = INODES_PER_GROUP * INODE_SIZE as u32 / BLOCK_SIZE as u32;

/// Blocks of one group's bitmaps and inode table.
const GROUP_METADATA: u32 = 2 + INODE_TABLE_BLOCKS;

/// The arithmetic of one disk.
#[derive(Clone, Debug)]
pub(crate) struct DiskLayout {
    pub(crate) blocks: u64,
    pub(crate) groups: u32,
    /// Blocks of the group descriptor table.
    pub(crate) descriptor_blocks: u32,
    /// The journal's blocks, 0 without one.
    pub(crate) journal_blocks: u32,
    /// Blocks of extended attributes of `upper/`: 0 or 1.
    pub(crate) xattr_blocks: u32,
}

impl DiskLayout {
    /// The layout of a disk of `size` bytes.
    pub(crate) fn new(size: u64, journal: bool, xattr_block: bool) -> Self {
        let blocks = size / BLOCK_SIZE as u64;
        let groups = blocks.div_ceil(u64::from(BLOCKS_PER_GROUP)) as u32;
        Self {
            blocks,
            groups,
            descriptor_blocks: groups.div_ceil((BLOCK_SIZE / DESCRIPTOR_SIZE) as u32),
            journal_blocks: if journal { journal_blocks(blocks) } else { 0 },
            xattr_blocks: u32::from(xattr_block),
        }
    }

    /// The group with the one backup of superblock and descriptors: the second, where it is a whole one.
    pub(crate) fn backup_group(&self) -> Option<u32> {
        (self.blocks >= 2 * u64::from(BLOCKS_PER_GROUP)).then_some(1)
    }

    /// The first block of a group.
    pub(crate) fn group_start(group: u32) -> u64 {
        u64::from(group) * u64::from(BLOCKS_PER_GROUP)
    }

    /// Blocks in a group: the last one may be short.
    pub(crate) fn group_blocks(&self, group: u32) -> u32 {
        (self.blocks - Self::group_start(group)).min(u64::from(BLOCKS_PER_GROUP)) as u32
    }

    /// Whether the group is the last, and too short for its own bitmaps and inode table: group 0 takes them in.
    fn is_guest(&self, group: u32) -> bool {
        self.group_blocks(group) < GROUP_METADATA
    }

    /// Blocks at a group's start that hold a superblock and the descriptors.
    fn superblock_span(&self, group: u32) -> u32 {
        if group == 0 || self.backup_group() == Some(group) { 1 + self.descriptor_blocks } else { 0 }
    }

    /// The block of a group's block bitmap.
    pub(crate) fn block_bitmap(&self, group: u32) -> u64 {
        if self.is_guest(group) {
            u64::from(self.superblock_span(0) + GROUP_METADATA)
        } else {
            Self::group_start(group) + u64::from(self.superblock_span(group))
        }
    }

    /// The block of a group's inode bitmap.
    pub(crate) fn inode_bitmap(&self, group: u32) -> u64 {
        self.block_bitmap(group) + 1
    }

    /// The first block of a group's inode table.
    pub(crate) fn inode_table(&self, group: u32) -> u64 {
        self.block_bitmap(group) + 2
    }

    /// The first of group 0's blocks that belong to files: the four directories, one block each.
    pub(crate) fn directories(&self) -> u64 {
        let guest = if self.is_guest(self.groups - 1) { GROUP_METADATA } else { 0 };
        u64::from(self.superblock_span(0) + GROUP_METADATA + guest)
    }

    /// The block of extended attributes, if there is one.
    pub(crate) fn xattr_block(&self) -> u64 {
        self.directories() + 4
    }

    /// The journal's first block, if there is one.
    pub(crate) fn journal(&self) -> u64 {
        self.xattr_block() + u64::from(self.xattr_blocks)
    }

    /// Blocks in use in a group: a run from its start.
    pub(crate) fn used_blocks(&self, group: u32) -> u32 {
        if group == 0 {
            self.journal() as u32 + self.journal_blocks
        } else if self.is_guest(group) {
            0
        } else {
            self.superblock_span(group) + GROUP_METADATA
        }
    }

    /// Free blocks of the whole disk.
    pub(crate) fn free_blocks(&self) -> u64 {
        (0..self.groups).map(|group| u64::from(self.group_blocks(group) - self.used_blocks(group))).sum()
    }

    /// Blocks that no file can ever use: all that is in use but directories and their attributes.
    pub(crate) fn overhead(&self) -> u64 {
        self.blocks - self.free_blocks() - 4 - u64::from(self.xattr_blocks)
    }
}

/// mke2fs' size classes up to 64 MiB. The larger journals that it gives to larger disks gain an upper nothing,
/// and a journal is written round and round: all of it becomes allocated on the host.
pub(crate) fn journal_blocks(blocks: u64) -> u32 {
    match blocks {
        0..0x8000 => 1024,
        0x8000..0x4_0000 => 4096,
        0x4_0000..0x8_0000 => 8192,
        _ => 16384,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MAX_SIZE, MIN_SIZE};

    /// Group 0 holds everything that is not repeated in each group, at any size.
    #[test]
    fn group_0_holds_the_journal_at_every_size() {
        for size in [MIN_SIZE, 128 << 20, (128 << 20) + 4096, 1 << 30, 1 << 40, MAX_SIZE - 4096, MAX_SIZE] {
            let layout = DiskLayout::new(size, true, true);
            assert!(layout.used_blocks(0) < layout.group_blocks(0), "{size}: {layout:?}");
        }
    }

    #[test]
    fn a_short_last_group_is_the_guest_of_group_0() {
        let alone = DiskLayout::new(128 << 20, true, false);
        let guest = DiskLayout::new((128 << 20) + 4096, true, false);
        assert_eq!(guest.used_blocks(0) - alone.used_blocks(0), GROUP_METADATA);
        assert_eq!((guest.used_blocks(1), guest.group_blocks(1)), (0, 1));
        assert!(guest.inode_table(1) + u64::from(INODE_TABLE_BLOCKS) <= guest.directories());

        let own = DiskLayout::new((128 << 20) + 4096 * u64::from(GROUP_METADATA), true, false);
        assert_eq!(own.used_blocks(1), GROUP_METADATA);
        assert_eq!(own.block_bitmap(1), u64::from(BLOCKS_PER_GROUP));
    }

    #[test]
    fn the_backup_is_in_a_whole_second_group_only() {
        assert_eq!(DiskLayout::new((256 << 20) - 4096, true, false).backup_group(), None);
        assert_eq!(DiskLayout::new(256 << 20, true, false).backup_group(), Some(1));
    }
}
