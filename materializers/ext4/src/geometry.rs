//! The block groups of a file system with content: how many, of how many inodes, and where their parts are.
//!
//! Each group holds its own bitmaps and inode table at its start, so a group's block bitmap follows from its
//! descriptor and a group without files can stay `BLOCK_UNINIT`. Groups 0 and 1 begin with the superblock and the
//! descriptors.

use crate::format::{BLOCK_SIZE, BLOCKS_PER_GROUP, DESCRIPTOR_SIZE, INODE_SIZE, INODES_PER_GROUP};

/// Descriptors in a block.
const DESCRIPTORS: u32 = (BLOCK_SIZE / DESCRIPTOR_SIZE) as u32;
/// Inodes in a block.
const INODES_PER_BLOCK: u32 = (BLOCK_SIZE / INODE_SIZE) as u32;
/// The most inodes of a group: one block of bitmap.
const MOST_INODES: u64 = 8 * BLOCK_SIZE as u64;
/// The most groups: those of 16 TiB.
const MOST_GROUPS: u64 = 1 << 17;

/// The arithmetic of one file system.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Geometry {
    pub(crate) blocks: u64,
    pub(crate) groups: u32,
    pub(crate) inodes_per_group: u32,
    /// Blocks of the group descriptor table.
    pub(crate) descriptor_blocks: u32,
}

impl Geometry {
    /// The least that holds so many inodes and blocks of files. `None` if that is more than 16 TiB.
    pub(crate) fn least(inodes: u64, data: u64) -> Option<Self> {
        let per_group = u64::from(BLOCKS_PER_GROUP);
        let first = data.div_ceil(per_group).max(inodes.div_ceil(MOST_INODES)).max(1);
        (first..=MOST_GROUPS).find_map(|groups| {
            let full =
                Self::of(groups * per_group, inodes).filter(|full| u64::from(full.groups) == groups)?;
            let spare = full.data_blocks().checked_sub(data)?;
            // The last group keeps a block of data: without one it would not be there.
            let last = u64::from(BLOCKS_PER_GROUP - full.metadata(full.groups - 1));
            Self::of(full.blocks - spare.min(last - 1), inodes)
        })
    }

    /// That of a disk of so many blocks, with room for so many inodes; `None` if that is too small. Blocks at its end
    /// that make no group are left out.
    pub(crate) fn of(blocks: u64, inodes: u64) -> Option<Self> {
        let mut groups = blocks.div_ceil(u64::from(BLOCKS_PER_GROUP)).min(MOST_GROUPS);
        while groups > 0 {
            let per_group = inodes.div_ceil(groups).next_multiple_of(INODES_PER_BLOCK.into());
            let per_group = per_group.max(INODES_PER_GROUP.into());
            if per_group > MOST_INODES || groups * per_group > u32::MAX.into() {
                return None;
            }
            let geometry = Self {
                blocks: blocks.min(groups * u64::from(BLOCKS_PER_GROUP)),
                groups: groups as u32,
                inodes_per_group: per_group as u32,
                descriptor_blocks: (groups as u32).div_ceil(DESCRIPTORS),
            };
            if geometry.metadata(geometry.groups - 1) < geometry.last_blocks() {
                return Some(geometry);
            }
            groups -= 1;
        }
        None
    }

    fn last_blocks(&self) -> u32 {
        self.group_blocks(self.groups - 1)
    }

    /// The group with the one backup of superblock and descriptors.
    pub(crate) fn backup_group(&self) -> Option<u32> {
        (self.groups > 1).then_some(1)
    }

    /// The first block of a group.
    pub(crate) fn group_start(group: u32) -> u64 {
        u64::from(group) * u64::from(BLOCKS_PER_GROUP)
    }

    /// Blocks in a group: the last one may be short.
    pub(crate) fn group_blocks(&self, group: u32) -> u32 {
        (self.blocks - Self::group_start(group)).min(u64::from(BLOCKS_PER_GROUP)) as u32
    }

    /// Blocks at a group's start that hold a superblock and the descriptors.
    fn superblock_span(&self, group: u32) -> u32 {
        if group == 0 || self.backup_group() == Some(group) { 1 + self.descriptor_blocks } else { 0 }
    }

    /// Blocks at a group's start that are not for files.
    pub(crate) fn metadata(&self, group: u32) -> u32 {
        self.superblock_span(group) + 2 + self.inodes_per_group / INODES_PER_BLOCK
    }

    /// The block of a group's block bitmap. Its inode bitmap and its inode table stand behind it.
    pub(crate) fn block_bitmap(&self, group: u32) -> u64 {
        Self::group_start(group) + u64::from(self.superblock_span(group))
    }

    /// The first block of a group's inode table.
    pub(crate) fn inode_table(&self, group: u32) -> u64 {
        self.block_bitmap(group) + 2
    }

    /// The first block of a group that is for files.
    pub(crate) fn data_start(&self, group: u32) -> u64 {
        Self::group_start(group) + u64::from(self.metadata(group))
    }

    /// The end of a group.
    pub(crate) fn group_end(&self, group: u32) -> u64 {
        Self::group_start(group) + u64::from(self.group_blocks(group))
    }

    /// Blocks of all groups that are not for files.
    pub(crate) fn overhead(&self) -> u64 {
        let of = |group| u64::from(self.metadata(group));
        // All but the first two are alike.
        (0..self.groups.min(2)).map(of).sum::<u64>() + of(2) * u64::from(self.groups.saturating_sub(2))
    }

    /// Blocks of all groups that are for files.
    pub(crate) fn data_blocks(&self) -> u64 {
        self.blocks - self.overhead()
    }

    pub(crate) fn inodes(&self) -> u32 {
        self.groups * self.inodes_per_group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_holds_what_it_is_for_and_no_less_does() {
        for inodes in [12, 8_192, 8_193, 32_768, 32_769, 500_000, 4_000_000] {
            for data in [1, 2, 30_000, 32_253, 32_254, 32_255, 64_508, 64_509, 2_000_000, 100_000_000] {
                let least = Geometry::least(inodes, data).unwrap();
                assert!(least.data_blocks() >= data && u64::from(least.inodes()) >= inodes, "{least:?}");
                let less = Geometry::of(least.blocks - 1, inodes);
                assert!(less.is_none_or(|less| less.data_blocks() < data), "{inodes} {data}: {least:?}");
                for more in [1, 500, 514, 2_000, 32_768, 100_000] {
                    let more = Geometry::of(least.blocks + more, inodes).unwrap();
                    assert!(more.data_blocks() >= data && u64::from(more.inodes()) >= inodes, "{more:?}");
                    assert!(more.metadata(more.groups - 1) < more.last_blocks());
                }
            }
        }
        assert_eq!(Geometry::least(12, 1 << 32), None);
        assert_eq!(Geometry::of(500, 12), None);
    }

    #[test]
    fn sixteen_tib_have_inodes_that_can_be_counted() {
        let whole = Geometry::of(1 << 32, 4_000_000_000).unwrap();
        assert_eq!((whole.groups, whole.inodes_per_group), (1 << 17, 30_528));
        assert_eq!(whole.inodes(), (1 << 17) * 30_528);
    }
}
