//! What describes a file system and its block groups: superblock and group descriptors.

use plyfold_core::layer::Timestamp;

use crate::fields::{
    BG_BLOCK_BITMAP, BG_BLOCK_BITMAP_CSUM, BG_CHECKSUM, BG_FLAGS, BG_FREE_BLOCKS_COUNT_LO, BG_INODE_BITMAP,
    BG_INODE_TABLE, BLOCK_UNINIT, DIR_INDEX, DIR_NLINK, EA_INODE, EXT_ATTR, EXTENT, EXTRA_ISIZE, FILETYPE,
    FLEX_BG, HAS_JOURNAL, HUGE_FILE, IS_64BIT, LARGE_FILE, MAGIC, METADATA_CSUM, S_BACKUP_BGS,
    S_BLOCKS_COUNT, S_BLOCKS_PER_GROUP, S_CHECKSUM, S_CLUSTERS_PER_GROUP, S_DESC_SIZE, S_FEATURE_COMPAT,
    S_FEATURE_INCOMPAT, S_FEATURE_RO_COMPAT, S_FREE_BLOCKS_COUNT, S_FREE_INODES_COUNT, S_INODE_SIZE,
    S_INODES_COUNT, S_INODES_PER_GROUP, S_LOG_BLOCK_SIZE, S_LOG_CLUSTER_SIZE, S_MAGIC, S_OVERHEAD_BLOCKS,
    S_REV_LEVEL, S_STATE, S_UUID, S_VOLUME_NAME, SPARSE_SUPER2, STATE_CLEAN,
};
use crate::format::{
    BLOCKS_PER_GROUP, Body, Checksum, DESCRIPTOR_SIZE, INODE_SIZE, JOURNAL_INODE, crc32c, put, put16, put32,
    split, split16,
};

/// What a superblock says.
#[derive(Clone, Debug)]
pub(crate) struct Volume<'a> {
    pub(crate) uuid: [u8; 16],
    pub(crate) hash_seed: [u8; 16],
    pub(crate) label: &'a str,
    pub(crate) blocks: u64,
    pub(crate) free_blocks: u64,
    /// Blocks that no file can ever use.
    pub(crate) overhead: u64,
    pub(crate) inodes: u32,
    pub(crate) free_inodes: u32,
    pub(crate) inodes_per_group: u32,
    /// The group with the one backup of superblock and descriptors.
    pub(crate) backup_group: Option<u32>,
    pub(crate) time: Timestamp,
    /// The body and the size of the journal's inode.
    pub(crate) journal: Option<(Body, u64)>,
    /// Whether a value of an extended attribute has an inode of its own.
    pub(crate) large_values: bool,
}

impl Volume<'_> {
    /// The 1024 bytes of the superblock for the copy in `group` (`super.rst`).
    pub(crate) fn superblock(&self, group: u16) -> [u8; 1024] {
        // The fields that stay zero are not needed: no mount, no error, no quota, no RAID.
        let mut sb = [0; 1024];
        put32(&mut sb, S_INODES_COUNT, self.inodes);
        split(&mut sb, S_BLOCKS_COUNT, self.blocks);
        split(&mut sb, S_FREE_BLOCKS_COUNT, self.free_blocks);
        put32(&mut sb, S_FREE_INODES_COUNT, self.free_inodes);
        put32(&mut sb, S_LOG_BLOCK_SIZE, 2); // 4 KiB
        put32(&mut sb, S_LOG_CLUSTER_SIZE, 2);
        put32(&mut sb, S_BLOCKS_PER_GROUP, BLOCKS_PER_GROUP);
        put32(&mut sb, S_CLUSTERS_PER_GROUP, BLOCKS_PER_GROUP);
        put32(&mut sb, S_INODES_PER_GROUP, self.inodes_per_group);
        put16(&mut sb, 0x36, u16::MAX); // s_max_mnt_count: no check by count
        put16(&mut sb, S_MAGIC, MAGIC);
        put16(&mut sb, S_STATE, STATE_CLEAN);
        put16(&mut sb, 0x3c, 1); // s_errors: continue
        put32(&mut sb, S_REV_LEVEL, 1); // dynamic
        put32(&mut sb, 0x54, 11); // s_first_ino
        put16(&mut sb, S_INODE_SIZE, INODE_SIZE as u16);
        put16(&mut sb, 0x5a, group); // s_block_group_nr
        let has_journal = if self.journal.is_some() { HAS_JOURNAL } else { 0 };
        put32(&mut sb, S_FEATURE_COMPAT, has_journal | EXT_ATTR | DIR_INDEX | SPARSE_SUPER2);
        let ea_inode = if self.large_values { EA_INODE } else { 0 };
        put32(&mut sb, S_FEATURE_INCOMPAT, FILETYPE | EXTENT | IS_64BIT | FLEX_BG | ea_inode);
        let ro_compat = LARGE_FILE | HUGE_FILE | DIR_NLINK | EXTRA_ISIZE | METADATA_CSUM;
        put32(&mut sb, S_FEATURE_RO_COMPAT, ro_compat);
        put(&mut sb, S_UUID, &self.uuid);
        put(&mut sb, S_VOLUME_NAME, self.label.as_bytes());
        put(&mut sb, 0xec, &self.hash_seed); // s_hash_seed
        sb[0xfc] = 1; // s_def_hash_version: half MD4
        put16(&mut sb, S_DESC_SIZE, DESCRIPTOR_SIZE as u16);
        put32(&mut sb, 0x100, 0x4 | 0x8); // s_default_mount_opts: user_xattr acl
        put16(&mut sb, 0x15c, 32); // s_min_extra_isize
        put16(&mut sb, 0x15e, 32); // s_want_extra_isize
        put32(&mut sb, 0x160, 1); // s_flags: directory hashes over signed characters
        sb[0x174] = 4; // s_log_groups_per_flex
        sb[0x175] = 1; // s_checksum_type: crc32c
        put32(&mut sb, S_OVERHEAD_BLOCKS, self.overhead as u32);
        put32(&mut sb, S_BACKUP_BGS[0], self.backup_group.unwrap_or(0));
        let seconds = self.time.seconds.clamp(0, (1 << 40) - 1).cast_unsigned();
        // s_wtime, s_lastcheck, s_mkfs_time and the upper 8 bits of each
        for (low, high) in [(0x30, 0x274), (0x40, 0x277), (0x108, 0x276)] {
            put32(&mut sb, low, seconds as u32);
            sb[high] = (seconds >> 32) as u8;
        }
        if let Some((body, size)) = &self.journal {
            put32(&mut sb, 0xe0, JOURNAL_INODE); // s_journal_inum
            // s_jnl_backup_type: s_jnl_blocks holds the inode's i_block, i_size_high, i_size_lo
            sb[0xfd] = 1;
            put(&mut sb, 0x10c, &body.0);
            split(&mut sb, (0x10c + 64, 0x10c + 60), *size);
        }
        let sum = crc32c(!0, &sb[..S_CHECKSUM]);
        put32(&mut sb, S_CHECKSUM, sum);
        sb
    }
}

/// What a group descriptor says (`group_descr.rst`). A group without the checksum of one of its bitmaps leaves those
/// blocks or inodes uninitialised.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) block_bitmap: u64,
    pub(crate) inode_bitmap: u64,
    pub(crate) inode_table: u64,
    pub(crate) block_bitmap_checksum: Option<u32>,
    pub(crate) inode_bitmap_checksum: Option<u32>,
    pub(crate) free_blocks: u32,
    /// Inodes are used from the first on: those free have never been used.
    pub(crate) free_inodes: u32,
    pub(crate) directories: u32,
}

impl Descriptor {
    /// The entry of the table for this group.
    pub(crate) fn encode(&self, group: u32, checksum: Checksum) -> [u8; DESCRIPTOR_SIZE] {
        let mut flags = 0x4; // INODE_ZEROED: else lazy initialisation writes all inode tables
        flags |= u16::from(self.inode_bitmap_checksum.is_none()); // INODE_UNINIT
        if self.block_bitmap_checksum.is_none() {
            flags |= BLOCK_UNINIT;
        }
        let mut desc = [0; DESCRIPTOR_SIZE];
        split(&mut desc, BG_BLOCK_BITMAP, self.block_bitmap);
        split(&mut desc, BG_INODE_BITMAP, self.inode_bitmap);
        split(&mut desc, BG_INODE_TABLE, self.inode_table);
        // The counts of one group fit into their lower halves.
        put16(&mut desc, BG_FREE_BLOCKS_COUNT_LO, self.free_blocks as u16);
        put16(&mut desc, 0x0e, self.free_inodes as u16); // bg_free_inodes_count_lo
        put16(&mut desc, 0x10, self.directories as u16); // bg_used_dirs_count_lo
        put16(&mut desc, BG_FLAGS, flags);
        split16(&mut desc, BG_BLOCK_BITMAP_CSUM, self.block_bitmap_checksum.unwrap_or(0));
        split16(&mut desc, (0x1a, 0x3a), self.inode_bitmap_checksum.unwrap_or(0)); // bg_inode_bitmap_csum
        put16(&mut desc, 0x1c, self.free_inodes as u16); // bg_itable_unused
        let sum = checksum.over(&[&group.to_le_bytes(), &desc]);
        put16(&mut desc, BG_CHECKSUM, sum as u16);
        desc
    }
}
