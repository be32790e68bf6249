//! What describes a file system and its block groups: superblock and group descriptors.

use plyfold_core::layer::Timestamp;

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
        put32(&mut sb, 0x00, self.inodes); // s_inodes_count
        split(&mut sb, 0x04, 0x150, self.blocks); // s_blocks_count
        split(&mut sb, 0x0c, 0x158, self.free_blocks); // s_free_blocks_count
        put32(&mut sb, 0x10, self.free_inodes); // s_free_inodes_count
        put32(&mut sb, 0x18, 2); // s_log_block_size: 4 KiB
        put32(&mut sb, 0x1c, 2); // s_log_cluster_size
        put32(&mut sb, 0x20, BLOCKS_PER_GROUP); // s_blocks_per_group
        put32(&mut sb, 0x24, BLOCKS_PER_GROUP); // s_clusters_per_group
        put32(&mut sb, 0x28, self.inodes_per_group); // s_inodes_per_group
        put16(&mut sb, 0x36, u16::MAX); // s_max_mnt_count: no check by count
        put16(&mut sb, 0x38, 0xef53); // s_magic
        put16(&mut sb, 0x3a, 1); // s_state: clean
        put16(&mut sb, 0x3c, 1); // s_errors: continue
        put32(&mut sb, 0x4c, 1); // s_rev_level: dynamic
        put32(&mut sb, 0x54, 11); // s_first_ino
        put16(&mut sb, 0x58, INODE_SIZE as u16); // s_inode_size
        put16(&mut sb, 0x5a, group); // s_block_group_nr
        let has_journal = if self.journal.is_some() { 0x4 } else { 0 };
        put32(&mut sb, 0x5c, has_journal | 0x8 | 0x20 | 0x200); // s_feature_compat: ext_attr dir_index sparse_super2
        let ea_inode = if self.large_values { 0x400 } else { 0 };
        // s_feature_incompat: filetype extent 64bit flex_bg
        put32(&mut sb, 0x60, 0x2 | 0x40 | 0x80 | 0x200 | ea_inode);
        // s_feature_ro_compat: large_file huge_file dir_nlink extra_isize metadata_csum
        put32(&mut sb, 0x64, 0x2 | 0x8 | 0x20 | 0x40 | 0x400);
        put(&mut sb, 0x68, &self.uuid); // s_uuid
        put(&mut sb, 0x78, self.label.as_bytes()); // s_volume_name
        put(&mut sb, 0xec, &self.hash_seed); // s_hash_seed
        sb[0xfc] = 1; // s_def_hash_version: half MD4
        put16(&mut sb, 0xfe, DESCRIPTOR_SIZE as u16); // s_desc_size
        put32(&mut sb, 0x100, 0x4 | 0x8); // s_default_mount_opts: user_xattr acl
        put16(&mut sb, 0x15c, 32); // s_min_extra_isize
        put16(&mut sb, 0x15e, 32); // s_want_extra_isize
        put32(&mut sb, 0x160, 1); // s_flags: directory hashes over signed characters
        sb[0x174] = 4; // s_log_groups_per_flex
        sb[0x175] = 1; // s_checksum_type: crc32c
        put32(&mut sb, 0x248, self.overhead as u32); // s_overhead_blocks
        put32(&mut sb, 0x24c, self.backup_group.unwrap_or(0)); // s_backup_bgs
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
            split(&mut sb, 0x10c + 64, 0x10c + 60, *size);
        }
        let sum = crc32c(!0, &sb[..0x3fc]);
        put32(&mut sb, 0x3fc, sum); // s_checksum
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
        flags |= u16::from(self.block_bitmap_checksum.is_none()) << 1; // BLOCK_UNINIT
        let mut desc = [0; DESCRIPTOR_SIZE];
        split(&mut desc, 0x00, 0x20, self.block_bitmap);
        split(&mut desc, 0x04, 0x24, self.inode_bitmap);
        split(&mut desc, 0x08, 0x28, self.inode_table);
        // The counts of one group fit into their lower halves.
        put16(&mut desc, 0x0c, self.free_blocks as u16);
        put16(&mut desc, 0x0e, self.free_inodes as u16);
        put16(&mut desc, 0x10, self.directories as u16);
        put16(&mut desc, 0x12, flags);
        split16(&mut desc, 0x18, 0x38, self.block_bitmap_checksum.unwrap_or(0));
        split16(&mut desc, 0x1a, 0x3a, self.inode_bitmap_checksum.unwrap_or(0));
        put16(&mut desc, 0x1c, self.free_inodes as u16); // bg_itable_unused
        let sum = checksum.over(&[&group.to_le_bytes(), &desc]);
        put16(&mut desc, 0x1e, sum as u16);
        desc
    }
}
