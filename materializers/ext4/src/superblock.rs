//! A superblock that is there already, read to be changed.

use plyfold_core::Result;

use crate::fault::Ext4Fault;
use crate::format::{
    BLOCK_SIZE, BLOCKS_PER_GROUP, Checksum, DESCRIPTOR_SIZE, INODE_SIZE, crc32c, put32, split,
};

/// `s_feature_incompat`: the journal has to be replayed.
const RECOVER: u32 = 0x4;
/// `s_feature_incompat`: descriptors of later groups stand in these groups.
const META_BG: u32 = 0x10;
// What a file system may have here: has_journal ext_attr dir_index sparse_super2; filetype meta_bg extent 64bit flex_bg
// ea_inode; large_file huge_file dir_nlink extra_isize metadata_csum.
const COMPAT: u32 = 0x4 | 0x8 | 0x20 | 0x200;
const INCOMPAT: u32 = 0x2 | META_BG | 0x40 | 0x80 | 0x200 | 0x400;
const RO_COMPAT: u32 = 0x2 | 0x8 | 0x20 | 0x40 | 0x400;
// What it has to have: sparse_super2; extent 64bit flex_bg; metadata_csum.
const NEEDED: (u32, u32, u32) = (0x200, 0x40 | 0x80 | 0x200, 0x400);

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
        if superblock.u16(0x38) != 0xef53 {
            return Err(Ext4Fault::NoFileSystem.into());
        }
        let features = [0x5c, 0x60, 0x64].map(|at| superblock.u32(at));
        if features[1] & RECOVER != 0 {
            return Err(Ext4Fault::Replay.into());
        }
        let (compat, incompat, ro_compat) = NEEDED;
        let unknown = [features[0] & !COMPAT, features[1] & !INCOMPAT, features[2] & !RO_COMPAT];
        let missing = [compat & !features[0], incompat & !features[1], ro_compat & !features[2]];
        if unknown != [0; 3] || missing != [0; 3] {
            return Err(Ext4Fault::Features(features[0], features[1], features[2]).into());
        }
        if superblock.sum() != superblock.u32(0x3fc) {
            return Err(Ext4Fault::Damaged("the superblock's checksum").into());
        }
        // s_state: clean, without errors; s_last_orphan: no file to be removed
        if superblock.u16(0x3a) & 3 != 1 || superblock.u32(0xe8) != 0 {
            return Err(Ext4Fault::NotClean.into());
        }
        superblock.check_numbers()?;
        Ok(superblock)
    }

    fn check_numbers(&self) -> Result<()> {
        let sizes = (self.u32(0x18), u32::from(self.u16(0x58)), u32::from(self.u16(0xfe)));
        if sizes != (2, INODE_SIZE as u32, DESCRIPTOR_SIZE as u32)
            || (self.u32(0x20), self.u32(0x24)) != (BLOCKS_PER_GROUP, BLOCKS_PER_GROUP)
            || self.u32(0x14) != 0
        {
            return Err(Ext4Fault::Shape.into());
        }
        let per_group = self.inodes_per_group();
        let groups = self.blocks().div_ceil(BLOCKS_PER_GROUP.into());
        if !(16..=8 * BLOCK_SIZE as u32).contains(&per_group)
            || !per_group.is_multiple_of(16)
            || !(1..=1 << 17).contains(&groups)
            || u64::from(self.u32(0x00)) != groups * u64::from(per_group)
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
        uuid.copy_from_slice(&self.0[0x68..0x78]);
        Checksum::new(&uuid)
    }

    pub(crate) fn blocks(&self) -> u64 {
        u64::from(self.u32(0x04)) | u64::from(self.u32(0x150)) << 32
    }

    pub(crate) fn inodes_per_group(&self) -> u32 {
        self.u32(0x28)
    }

    /// The groups with backups (`s_backup_bgs`); 0 for none.
    pub(crate) fn backup_groups(&self) -> [u32; 2] {
        [self.u32(0x24c), self.u32(0x250)]
    }

    /// The number of descriptor blocks that stand behind the superblock, if others stand elsewhere (`s_first_meta_bg`).
    pub(crate) fn first_meta_group(&self) -> Option<u32> {
        (self.u32(0x60) & META_BG != 0).then(|| self.u32(0x104))
    }

    /// Adds room, which so many blocks of have a use already.
    pub(crate) fn grow(&mut self, blocks: u64, overhead: u64, inodes: u32) -> Result<()> {
        let added = blocks - self.blocks();
        let free = u64::from(self.u32(0x0c)) | u64::from(self.u32(0x158)) << 32;
        let free_inodes = self.u32(0x10).checked_add(inodes - self.u32(0x00));
        let (Some(free_inodes), true) = (free_inodes, free <= self.blocks()) else {
            return Err(Ext4Fault::Damaged("the number of free blocks or inodes").into());
        };
        split(&mut self.0, 0x04, 0x150, blocks);
        split(&mut self.0, 0x0c, 0x158, free + added - overhead);
        put32(&mut self.0, 0x00, inodes);
        put32(&mut self.0, 0x10, free_inodes);
        // s_overhead_blocks: 0 where it is to be counted
        if self.u32(0x248) != 0 {
            let all = self.u32(0x248).checked_add(overhead as u32);
            put32(&mut self.0, 0x248, all.ok_or(Ext4Fault::Damaged("the number of blocks without files"))?);
        }
        Ok(())
    }

    /// Notes that the descriptors of later groups stand in these.
    pub(crate) fn set_first_meta_group(&mut self, blocks: u32) {
        let features = self.u32(0x60) | META_BG;
        put32(&mut self.0, 0x60, features);
        put32(&mut self.0, 0x104, blocks);
    }

    pub(crate) fn set_backup_group(&mut self, group: u32) {
        put32(&mut self.0, 0x24c, group);
    }

    /// The copy for a group, with its checksum.
    pub(crate) fn copy(&self, group: u16) -> [u8; 1024] {
        let mut copy = self.clone();
        copy.0[0x5a..0x5c].copy_from_slice(&group.to_le_bytes()); // s_block_group_nr
        let sum = copy.sum();
        put32(&mut copy.0, 0x3fc, sum);
        copy.0
    }

    fn sum(&self) -> u32 {
        crc32c(!0, &self.0[..0x3fc])
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }
}
