//! Where the records have their fields, by the fields' names in the kernel's `Documentation/filesystems/ext4/`, and the bits in
//! them: one table for what is written and what is read. A pair is of the lower and the upper half of a number.

/// The superblock (`super.rst`).
pub(crate) const S_INODES_COUNT: usize = 0x00;
pub(crate) const S_BLOCKS_COUNT: (usize, usize) = (0x04, 0x150);
pub(crate) const S_R_BLOCKS_COUNT: (usize, usize) = (0x08, 0x154);
pub(crate) const S_FREE_BLOCKS_COUNT: (usize, usize) = (0x0c, 0x158);
pub(crate) const S_FREE_INODES_COUNT: usize = 0x10;
pub(crate) const S_FIRST_DATA_BLOCK: usize = 0x14;
pub(crate) const S_LOG_BLOCK_SIZE: usize = 0x18;
pub(crate) const S_LOG_CLUSTER_SIZE: usize = 0x1c;
pub(crate) const S_BLOCKS_PER_GROUP: usize = 0x20;
pub(crate) const S_CLUSTERS_PER_GROUP: usize = 0x24;
pub(crate) const S_INODES_PER_GROUP: usize = 0x28;
pub(crate) const S_MTIME: (usize, usize) = (0x2c, 0x275);
pub(crate) const S_WTIME: (usize, usize) = (0x30, 0x274);
pub(crate) const S_MNT_COUNT: usize = 0x34;
pub(crate) const S_MAGIC: usize = 0x38;
pub(crate) const S_STATE: usize = 0x3a;
pub(crate) const S_REV_LEVEL: usize = 0x4c;
pub(crate) const S_INODE_SIZE: usize = 0x58;
pub(crate) const S_FEATURE_COMPAT: usize = 0x5c;
pub(crate) const S_FEATURE_INCOMPAT: usize = 0x60;
pub(crate) const S_FEATURE_RO_COMPAT: usize = 0x64;
pub(crate) const S_UUID: usize = 0x68;
pub(crate) const S_VOLUME_NAME: usize = 0x78;
pub(crate) const S_LAST_MOUNTED: usize = 0x88;
pub(crate) const S_JOURNAL_INUM: usize = 0xe0;
pub(crate) const S_JOURNAL_DEV: usize = 0xe4;
pub(crate) const S_LAST_ORPHAN: usize = 0xe8;
pub(crate) const S_HASH_SEED: usize = 0xec;
pub(crate) const S_DESC_SIZE: usize = 0xfe;
pub(crate) const S_MKFS_TIME: (usize, usize) = (0x108, 0x276);
pub(crate) const S_FIRST_META_BG: usize = 0x104;
pub(crate) const S_FLAGS: usize = 0x160;
pub(crate) const S_OVERHEAD_BLOCKS: usize = 0x248;
/// The two groups with backups of `sparse_super2`.
pub(crate) const S_BACKUP_BGS: [usize; 2] = [0x24c, 0x250];
pub(crate) const S_CHECKSUM_SEED: usize = 0x270;
pub(crate) const S_CHECKSUM: usize = 0x3fc;

/// `s_magic`.
pub(crate) const MAGIC: u16 = 0xef53;
/// `s_state`: it was unmounted; an error was found.
pub(crate) const STATE_CLEAN: u16 = 0x1;
pub(crate) const STATE_ERROR: u16 = 0x2;
/// `s_flags`: the bytes of names are hashed as signed or as unsigned characters.
pub(crate) const SIGNED_HASH: u32 = 0x1;
pub(crate) const UNSIGNED_HASH: u32 = 0x2;

/// `s_feature_compat`.
pub(crate) const HAS_JOURNAL: u32 = 0x4;
pub(crate) const EXT_ATTR: u32 = 0x8;
pub(crate) const DIR_INDEX: u32 = 0x20;
pub(crate) const SPARSE_SUPER2: u32 = 0x200;

/// `s_feature_incompat`.
pub(crate) const FILETYPE: u32 = 0x2;
/// The journal has to be replayed.
pub(crate) const RECOVER: u32 = 0x4;
/// Descriptors of later groups stand in these groups.
pub(crate) const META_BG: u32 = 0x10;
pub(crate) const EXTENT: u32 = 0x40;
/// Blocks are counted in 64 bits.
pub(crate) const IS_64BIT: u32 = 0x80;
pub(crate) const MMP: u32 = 0x100;
pub(crate) const FLEX_BG: u32 = 0x200;
pub(crate) const EA_INODE: u32 = 0x400;
pub(crate) const CSUM_SEED: u32 = 0x2000;
pub(crate) const LARGE_DIR: u32 = 0x4000;
pub(crate) const ENCRYPT: u32 = 0x1_0000;

/// `s_feature_ro_compat`.
pub(crate) const SPARSE_SUPER: u32 = 0x1;
pub(crate) const LARGE_FILE: u32 = 0x2;
pub(crate) const HUGE_FILE: u32 = 0x8;
pub(crate) const DIR_NLINK: u32 = 0x20;
pub(crate) const EXTRA_ISIZE: u32 = 0x40;
/// A bit of a bitmap is a cluster of blocks.
pub(crate) const BIGALLOC: u32 = 0x200;
pub(crate) const METADATA_CSUM: u32 = 0x400;

/// A group descriptor (`group_descr.rst`).
pub(crate) const BG_BLOCK_BITMAP: (usize, usize) = (0x00, 0x20);
pub(crate) const BG_INODE_BITMAP: (usize, usize) = (0x04, 0x24);
pub(crate) const BG_INODE_TABLE: (usize, usize) = (0x08, 0x28);
pub(crate) const BG_FREE_BLOCKS_COUNT_LO: usize = 0x0c;
pub(crate) const BG_FLAGS: usize = 0x12;
pub(crate) const BG_BLOCK_BITMAP_CSUM: (usize, usize) = (0x18, 0x38);
pub(crate) const BG_CHECKSUM: usize = 0x1e;
/// `bg_flags`: the block bitmap is not initialised.
pub(crate) const BLOCK_UNINIT: u16 = 0x2;

/// An inode (`inodes.rst`).
pub(crate) const I_MODE: usize = 0x00;
pub(crate) const I_UID: (usize, usize) = (0x02, 0x78);
pub(crate) const I_SIZE: (usize, usize) = (0x04, 0x6c);
pub(crate) const I_MTIME: usize = 0x10;
pub(crate) const I_GID: (usize, usize) = (0x18, 0x7a);
pub(crate) const I_LINKS_COUNT: usize = 0x1a;
pub(crate) const I_FLAGS: usize = 0x20;
pub(crate) const I_BLOCK: usize = 0x28;
pub(crate) const I_GENERATION: usize = 0x64;
pub(crate) const I_CHECKSUM: (usize, usize) = (0x7c, 0x82);
pub(crate) const I_EXTRA_ISIZE: usize = 0x80;
pub(crate) const I_MTIME_EXTRA: usize = 0x88;
/// The bytes in front of `i_extra_isize`, which are all that an inode of ext2 has.
pub(crate) const INODE_MIN: usize = 128;

/// `i_mode`: what a file is.
pub(crate) const S_IFMT: u16 = 0xf000;
pub(crate) const S_IFIFO: u16 = 0x1000;
pub(crate) const S_IFCHR: u16 = 0x2000;
pub(crate) const S_IFDIR: u16 = 0x4000;
pub(crate) const S_IFBLK: u16 = 0x6000;
pub(crate) const S_IFREG: u16 = 0x8000;
pub(crate) const S_IFLNK: u16 = 0xa000;
pub(crate) const S_IFSOCK: u16 = 0xc000;

/// `i_flags`: the content is encrypted; a directory with a hash tree; `i_block` is an extent tree; the inode is the value of an
/// extended attribute; the content is in the inode.
pub(crate) const ENCRYPT_FL: u32 = 0x800;
pub(crate) const INDEX_FL: u32 = 0x1000;
pub(crate) const EXTENTS_FL: u32 = 0x8_0000;
pub(crate) const EA_INODE_FL: u32 = 0x20_0000;
pub(crate) const INLINE_DATA_FL: u32 = 0x1000_0000;

/// A node of an extent tree (`ifork.rst`): its header, an entry of a leaf, an entry of a node above.
pub(crate) const EH_MAGIC: usize = 0x0;
pub(crate) const EH_ENTRIES: usize = 0x2;
pub(crate) const EH_MAX: usize = 0x4;
pub(crate) const EH_DEPTH: usize = 0x6;
pub(crate) const EE_BLOCK: usize = 0x0;
pub(crate) const EE_LEN: usize = 0x4;
pub(crate) const EE_START_HI: usize = 0x6;
pub(crate) const EE_START_LO: usize = 0x8;
pub(crate) const EI_BLOCK: usize = 0x0;
pub(crate) const EI_LEAF_LO: usize = 0x4;
pub(crate) const EI_LEAF_HI: usize = 0x8;
/// `eh_magic`.
pub(crate) const EXTENT_MAGIC: u16 = 0xf30a;
/// Bytes of the header, and of each entry.
pub(crate) const EXTENT_ENTRY: usize = 12;
/// Blocks of the longest extent (`EXT_INIT_MAX_LEN`): a longer one is allocated and not written, and has so many less.
pub(crate) const EXTENT_LONGEST: u16 = 1 << 15;

/// The root of a directory's hash tree (`directory.rst`), behind `.` and `..`: `dx_root_info`, and the entries behind it; what the
/// entries of each block begin with, an entry, and what is behind their room where there are checksums.
pub(crate) const DX_INFO: usize = 0x18;
pub(crate) const DX_HASH_VERSION: usize = 0x1c;
pub(crate) const DX_INFO_LENGTH: usize = 0x1d;
pub(crate) const DX_INDIRECT_LEVELS: usize = 0x1e;
pub(crate) const DX_UNUSED_FLAGS: usize = 0x1f;
pub(crate) const DX_NODE_ENTRIES: usize = 0x8;
pub(crate) const DX_LIMIT: usize = 0x0;
pub(crate) const DX_COUNT: usize = 0x2;
pub(crate) const DX_HASH: usize = 0x0;
pub(crate) const DX_BLOCK: usize = 0x4;
pub(crate) const DX_ENTRY: usize = 8;
pub(crate) const DX_TAIL: usize = 8;

/// The journal's own superblock (`journal.rst`), whose numbers are big-endian, as all of the journal are.
pub(crate) const J_BLOCKSIZE: usize = 0x0c;
pub(crate) const J_MAXLEN: usize = 0x10;
pub(crate) const J_FIRST: usize = 0x14;
pub(crate) const J_SEQUENCE: usize = 0x18;
pub(crate) const J_START: usize = 0x1c;
pub(crate) const J_FEATURE_COMPAT: usize = 0x24;
pub(crate) const J_FEATURE_INCOMPAT: usize = 0x28;
pub(crate) const J_FEATURE_RO_COMPAT: usize = 0x2c;
pub(crate) const J_UUID: usize = 0x30;
pub(crate) const J_NR_USERS: usize = 0x40;
pub(crate) const J_CHECKSUM_TYPE: usize = 0x50;
pub(crate) const J_NUM_FC_BLKS: usize = 0x54;
pub(crate) const J_CHECKSUM: usize = 0xfc;
/// Bytes of it that the checksum is of.
pub(crate) const J_BYTES: usize = 1024;
/// `s_checksum_type`: crc32c.
pub(crate) const J_CRC32C: u8 = 4;

/// The features of a journal: checksums of whole transactions; 64-bit block numbers; a commit block that may be written first;
/// checksums of blocks, of version 2 and 3; fast commits.
pub(crate) const J_COMPAT_CHECKSUM: u32 = 0x1;
pub(crate) const J_REVOKE: u32 = 0x1;
pub(crate) const J_64BIT: u32 = 0x2;
pub(crate) const J_ASYNC_COMMIT: u32 = 0x4;
pub(crate) const J_CSUM_V2: u32 = 0x8;
pub(crate) const J_CSUM_V3: u32 = 0x10;
pub(crate) const J_FAST_COMMIT: u32 = 0x20;

/// What each of its blocks but those of data begins with (`journal_header_t`), and what comes behind that in some.
pub(crate) const H_MAGIC: usize = 0x0;
pub(crate) const H_BLOCKTYPE: usize = 0x4;
pub(crate) const H_SEQUENCE: usize = 0x8;
pub(crate) const H_BYTES: usize = 0xc;
pub(crate) const H_CHKSUM_TYPE: usize = 0xc;
pub(crate) const H_CHKSUM: usize = 0x10;
pub(crate) const H_COMMIT_SEC: usize = 0x30;
pub(crate) const R_COUNT: usize = 0xc;
pub(crate) const R_RECORDS: usize = 0x10;
/// `h_magic`, and the values of `h_blocktype`.
pub(crate) const JOURNAL_MAGIC: u32 = 0xc03b_3998;
pub(crate) const DESCRIPTOR_BLOCK: u32 = 1;
pub(crate) const COMMIT_BLOCK: u32 = 2;
pub(crate) const SUPERBLOCK_V1: u32 = 3;
pub(crate) const SUPERBLOCK_V2: u32 = 4;
pub(crate) const REVOKE_BLOCK: u32 = 5;

/// A tag of a descriptor block: the checksum has 16 bits before version 3, and 32 from then on. Its flags: the block in the
/// journal lost its first four bytes, which are the magic; no UUID comes behind the tag; it is the last one.
pub(crate) const T_BLOCKNR: (usize, usize) = (0x0, 0x8);
pub(crate) const T_CHECKSUM_16: usize = 0x4;
pub(crate) const T_FLAGS: usize = 0x6;
pub(crate) const T_CHECKSUM_32: usize = 0xc;
pub(crate) const T_ESCAPE: u16 = 0x1;
pub(crate) const T_SAME_UUID: u16 = 0x2;
pub(crate) const T_LAST_TAG: u16 = 0x8;
