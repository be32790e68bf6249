//! A superblock that is there already, read to be changed.

use plyfold_core::Result;

use crate::fault::Ext4Fault;
use crate::fields::{
    DIR_INDEX, DIR_NLINK, EA_INODE, EXT_ATTR, EXTENT, EXTRA_ISIZE, FILETYPE, FLEX_BG, HAS_JOURNAL, HUGE_FILE,
    IS_64BIT, LARGE_FILE, MAGIC, META_BG, METADATA_CSUM, RECOVER, S_BACKUP_BGS, S_BLOCKS_COUNT,
    S_BLOCKS_PER_GROUP, S_CHECKSUM, S_CLUSTERS_PER_GROUP, S_DESC_SIZE, S_FEATURE_COMPAT, S_FEATURE_INCOMPAT,
    S_FEATURE_RO_COMPAT, S_FIRST_DATA_BLOCK, S_FIRST_META_BG, S_FREE_BLOCKS_COUNT, S_FREE_INODES_COUNT,
    S_INODE_SIZE, S_INODES_COUNT, S_INODES_PER_GROUP, S_LAST_ORPHAN, S_LOG_BLOCK_SIZE, S_MAGIC,
    S_OVERHEAD_BLOCKS, S_STATE, S_UUID, SPARSE_SUPER2, STATE_CLEAN, STATE_ERROR,
};
use crate::format::{
    BLOCK_SIZE, BLOCKS_PER_GROUP, Checksum, DESCRIPTOR_SIZE, INODE_SIZE, crc32c, joined, le16, le32, put32,
    split,
};

/// The features that a file system may have here.
const COMPAT: u32 = HAS_JOURNAL | EXT_ATTR | DIR_INDEX | SPARSE_SUPER2;
const INCOMPAT: u32 = FILETYPE | META_BG | EXTENT | IS_64BIT | FLEX_BG | EA_INODE;
const RO_COMPAT: u32 = LARGE_FILE | HUGE_FILE | DIR_NLINK | EXTRA_ISIZE | METADATA_CSUM;
/// Those that it has to have.
const NEEDED: (u32, u32, u32) = (SPARSE_SUPER2, EXTENT | IS_64BIT | FLEX_BG, METADATA_CSUM);

/// The 1024 bytes (`super.rst`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Superblock([u8; 1024]);

impl Superblock {
    /// One that belongs to a file system that may be changed: clean, and with the features that this crate writes.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for what is no sound superblock;
    /// [`Config`](plyfold_core::ErrorKind::Config) for a file system that is mounted, was not unmounted, or has errors;
    /// [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for other features.
    pub(crate) fn parse(bytes: &[u8; 1024]) -> Result<Self> {
        let superblock = Self(*bytes);
        if superblock.u16(S_MAGIC) != MAGIC {
            return Err(Ext4Fault::NoFileSystem.into());
        }
        let features =
            [S_FEATURE_COMPAT, S_FEATURE_INCOMPAT, S_FEATURE_RO_COMPAT].map(|at| superblock.u32(at));
        if features[1] & RECOVER != 0 {
            return Err(Ext4Fault::Replay.into());
        }
        let (compat, incompat, ro_compat) = NEEDED;
        let unknown = [features[0] & !COMPAT, features[1] & !INCOMPAT, features[2] & !RO_COMPAT];
        let missing = [compat & !features[0], incompat & !features[1], ro_compat & !features[2]];
        if unknown != [0; 3] || missing != [0; 3] {
            return Err(Ext4Fault::Features(features[0], features[1], features[2]).into());
        }
        if superblock.sum() != superblock.u32(S_CHECKSUM) {
            return Err(Ext4Fault::Damaged("the superblock's checksum").into());
        }
        // An orphan is a file to be removed.
        let state = superblock.u16(S_STATE) & (STATE_CLEAN | STATE_ERROR);
        if state != STATE_CLEAN || superblock.u32(S_LAST_ORPHAN) != 0 {
            return Err(Ext4Fault::NotClean.into());
        }
        superblock.check_numbers()?;
        Ok(superblock)
    }

    fn check_numbers(&self) -> Result<()> {
        let sizes =
            (self.u32(S_LOG_BLOCK_SIZE), u32::from(self.u16(S_INODE_SIZE)), u32::from(self.u16(S_DESC_SIZE)));
        if sizes != (2, INODE_SIZE as u32, DESCRIPTOR_SIZE as u32)
            || (self.u32(S_BLOCKS_PER_GROUP), self.u32(S_CLUSTERS_PER_GROUP))
                != (BLOCKS_PER_GROUP, BLOCKS_PER_GROUP)
            || self.u32(S_FIRST_DATA_BLOCK) != 0
        {
            return Err(Ext4Fault::Shape.into());
        }
        let per_group = self.inodes_per_group();
        let groups = self.blocks().div_ceil(BLOCKS_PER_GROUP.into());
        if !(16..=8 * BLOCK_SIZE as u32).contains(&per_group)
            || !per_group.is_multiple_of(16)
            || !(1..=1 << 17).contains(&groups)
            || u64::from(self.u32(S_INODES_COUNT)) != groups * u64::from(per_group)
            || self.backup_groups()[1] != 0
            || self.backup_groups()[0] > 1
            || u64::from(self.first_meta_group().unwrap_or(0)) > groups.div_ceil(64)
            || self.first_meta_group() == Some(0)
        {
            return Err(Ext4Fault::Damaged("the number of groups or inodes").into());
        }
        Ok(())
    }

    /// The seed of checksums.
    pub(crate) fn checksum(&self) -> Checksum {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&self.0[S_UUID..S_UUID + 16]);
        Checksum::new(&uuid)
    }

    pub(crate) fn blocks(&self) -> u64 {
        joined(&self.0, S_BLOCKS_COUNT)
    }

    pub(crate) fn inodes_per_group(&self) -> u32 {
        self.u32(S_INODES_PER_GROUP)
    }

    /// The groups with backups (`s_backup_bgs`); 0 for none.
    pub(crate) fn backup_groups(&self) -> [u32; 2] {
        S_BACKUP_BGS.map(|at| self.u32(at))
    }

    /// The number of descriptor blocks that stand behind the superblock, if others stand elsewhere (`s_first_meta_bg`).
    pub(crate) fn first_meta_group(&self) -> Option<u32> {
        (self.u32(S_FEATURE_INCOMPAT) & META_BG != 0).then(|| self.u32(S_FIRST_META_BG))
    }

    /// Adds room, which so many blocks of have a use already.
    pub(crate) fn grow(&mut self, blocks: u64, overhead: u64, inodes: u32) -> Result<()> {
        let added = blocks - self.blocks();
        let free = joined(&self.0, S_FREE_BLOCKS_COUNT);
        let free_inodes = self.u32(S_FREE_INODES_COUNT).checked_add(inodes - self.u32(S_INODES_COUNT));
        let (Some(free_inodes), true) = (free_inodes, free <= self.blocks()) else {
            return Err(Ext4Fault::Damaged("the number of free blocks or inodes").into());
        };
        split(&mut self.0, S_BLOCKS_COUNT, blocks);
        split(&mut self.0, S_FREE_BLOCKS_COUNT, free + added - overhead);
        put32(&mut self.0, S_INODES_COUNT, inodes);
        put32(&mut self.0, S_FREE_INODES_COUNT, free_inodes);
        // 0 where it is to be counted.
        if self.u32(S_OVERHEAD_BLOCKS) != 0 {
            let all = self.u32(S_OVERHEAD_BLOCKS).checked_add(overhead as u32);
            put32(
                &mut self.0,
                S_OVERHEAD_BLOCKS,
                all.ok_or(Ext4Fault::Damaged("the number of blocks without files"))?,
            );
        }
        Ok(())
    }

    /// Notes that the descriptors of later groups stand in these.
    pub(crate) fn set_first_meta_group(&mut self, blocks: u32) {
        let features = self.u32(S_FEATURE_INCOMPAT) | META_BG;
        put32(&mut self.0, S_FEATURE_INCOMPAT, features);
        put32(&mut self.0, S_FIRST_META_BG, blocks);
    }

    pub(crate) fn set_backup_group(&mut self, group: u32) {
        put32(&mut self.0, S_BACKUP_BGS[0], group);
    }

    /// The copy for a group, with its checksum.
    pub(crate) fn copy(&self, group: u16) -> [u8; 1024] {
        let mut copy = self.clone();
        copy.0[0x5a..0x5c].copy_from_slice(&group.to_le_bytes()); // s_block_group_nr
        let sum = copy.sum();
        put32(&mut copy.0, S_CHECKSUM, sum);
        copy.0
    }

    fn sum(&self) -> u32 {
        crc32c(!0, &self.0[..S_CHECKSUM])
    }

    fn u16(&self, at: usize) -> u16 {
        le16(&self.0, at)
    }

    fn u32(&self, at: usize) -> u32 {
        le32(&self.0, at)
    }
}
