//! What the superblock of a file system says, also of one that nothing here makes: ext2 and ext3 have the same.

use std::io::{Read, Seek, SeekFrom};

use plyfold_core::layer::Timestamp;
use plyfold_core::{Error, Result};

use crate::fault::Ext4Fault;
use crate::fields::{
    BIGALLOC, CSUM_SEED, DIR_INDEX, DIR_NLINK, EA_INODE, ENCRYPT, EXT_ATTR, EXTENT, EXTRA_ISIZE, FILETYPE,
    FLEX_BG, HAS_JOURNAL, HUGE_FILE, INODE_MIN, IS_64BIT, LARGE_DIR, LARGE_FILE, MAGIC, META_BG,
    METADATA_CSUM, MMP, RECOVER, S_BLOCKS_COUNT, S_BLOCKS_PER_GROUP, S_CHECKSUM, S_FEATURE_COMPAT,
    S_FEATURE_INCOMPAT, S_FEATURE_RO_COMPAT, S_FIRST_DATA_BLOCK, S_FREE_BLOCKS_COUNT, S_FREE_INODES_COUNT,
    S_INODE_SIZE, S_INODES_COUNT, S_LAST_MOUNTED, S_LOG_BLOCK_SIZE, S_LOG_CLUSTER_SIZE, S_MAGIC, S_MKFS_TIME,
    S_MNT_COUNT, S_MTIME, S_R_BLOCKS_COUNT, S_REV_LEVEL, S_STATE, S_UUID, S_VOLUME_NAME, S_WTIME,
    SPARSE_SUPER, SPARSE_SUPER2, STATE_CLEAN, STATE_ERROR,
};
use crate::format::{crc32c, joined, le16, le32};

/// Where the superblock stands, whatever the block size.
const SUPERBLOCK: u64 = 1024;
pub(crate) const SUPERBLOCK_BYTES: usize = 1024;

/// Features by the names that e2fsprogs gives them.
const FEATURES: [(usize, &[(u32, &str)]); 3] = [
    (
        S_FEATURE_COMPAT,
        &[
            (0x1, "dir_prealloc"),
            (0x2, "imagic_inodes"),
            (HAS_JOURNAL, "has_journal"),
            (EXT_ATTR, "ext_attr"),
            (0x10, "resize_inode"),
            (DIR_INDEX, "dir_index"),
            (SPARSE_SUPER2, "sparse_super2"),
            (0x400, "fast_commit"),
            (0x800, "stable_inodes"),
            (0x1000, "orphan_file"),
        ],
    ),
    (
        S_FEATURE_INCOMPAT,
        &[
            (0x1, "compression"),
            (FILETYPE, "filetype"),
            (RECOVER, "needs_recovery"),
            (0x8, "journal_dev"),
            (META_BG, "meta_bg"),
            (EXTENT, "extent"),
            (IS_64BIT, "64bit"),
            (MMP, "mmp"),
            (FLEX_BG, "flex_bg"),
            (EA_INODE, "ea_inode"),
            (0x1000, "dirdata"),
            (CSUM_SEED, "metadata_csum_seed"),
            (LARGE_DIR, "large_dir"),
            (0x8000, "inline_data"),
            (ENCRYPT, "encrypt"),
            (0x20000, "casefold"),
        ],
    ),
    (
        S_FEATURE_RO_COMPAT,
        &[
            (SPARSE_SUPER, "sparse_super"),
            (LARGE_FILE, "large_file"),
            (HUGE_FILE, "huge_file"),
            (0x10, "uninit_bg"),
            (DIR_NLINK, "dir_nlink"),
            (EXTRA_ISIZE, "extra_isize"),
            (0x100, "quota"),
            (BIGALLOC, "bigalloc"),
            (METADATA_CSUM, "metadata_csum"),
            (0x1000, "read-only"),
            (0x2000, "project"),
            (0x8000, "verity"),
            (0x10000, "orphan_present"),
        ],
    ),
];

/// What the superblock of an ext4 file system says.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// The block size in bytes.
    pub block_size: u32,
    /// Blocks of the file system.
    pub blocks: u64,
    /// Those that are free.
    pub free_blocks: u64,
    /// Groups that they are in.
    pub groups: u64,
    /// Inodes that there is room for.
    pub inodes: u32,
    /// Those that are free.
    pub free_inodes: u32,
    /// Bytes of an inode.
    pub inode_size: u16,
    /// The features by the names that e2fsprogs gives them; unknown bits as a number.
    pub features: Vec<String>,
    /// The volume's UUID.
    pub uuid: [u8; 16],
    /// The volume's name, without the zeros behind it.
    pub label: Vec<u8>,
    /// Whether it was unmounted, and no error was found in it.
    pub is_clean: bool,
    /// Whether an error was found in it while it was mounted.
    pub has_errors: bool,
    /// Whether the journal holds writes that have not reached their places. What the superblock counts is then of before.
    pub needs_recovery: bool,
    /// Blocks that are kept for the superuser, of those that are free.
    pub reserved_blocks: u64,
    /// Where it was mounted last, without the zeros behind it; empty where that is not known.
    pub last_mounted: Vec<u8>,
    /// How often it was mounted since it was checked.
    pub mounts: u16,
    /// When it was made, if that is known.
    pub made: Option<Timestamp>,
    /// When it was mounted last.
    pub mounted: Option<Timestamp>,
    /// When it was written to last.
    pub written: Option<Timestamp>,
    /// Bytes of the file or device that it is in.
    pub size: u64,
}

impl Summary {
    /// Whether these bytes, 1,082 or more from a file's start, begin such a file system.
    pub fn is_file_system(start: &[u8]) -> bool {
        le16(start, SUPERBLOCK as usize + S_MAGIC) == MAGIC
    }

    /// Reads the superblock.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for what is no such file system, has a wrong checksum, or numbers
    /// that contradict each other; [`Io`](plyfold_core::ErrorKind::Io) of `source`.
    pub fn read(mut source: impl Read + Seek) -> Result<Self> {
        let (superblock, size) = superblock(&mut source)?;
        Self::of(&superblock, size)
    }

    /// What a superblock says, of a file system in `size` bytes.
    pub(crate) fn of(superblock: &[u8; SUPERBLOCK_BYTES], size: u64) -> Result<Self> {
        if le16(superblock, S_MAGIC) != MAGIC {
            return Err(Ext4Fault::NoFileSystem.into());
        }
        let [incompat, ro_compat] = [S_FEATURE_INCOMPAT, S_FEATURE_RO_COMPAT].map(|at| le32(superblock, at));
        // Over all that stands before the checksum.
        if ro_compat & METADATA_CSUM != 0
            && le32(superblock, S_CHECKSUM) != crc32c(!0, &superblock[..S_CHECKSUM])
        {
            return Err(Ext4Fault::Malformed("the superblock's checksum is wrong").into());
        }
        let block_size = block_size(superblock)?;
        let is_wide = incompat & IS_64BIT != 0;
        let count =
            |field| if is_wide { joined(superblock, field) } else { u64::from(le32(superblock, field.0)) };
        let [blocks, free_blocks, reserved_blocks] =
            [S_BLOCKS_COUNT, S_FREE_BLOCKS_COUNT, S_R_BLOCKS_COUNT].map(count);
        let groups = groups(superblock, block_size, blocks)?;
        let [inodes, free_inodes] = [S_INODES_COUNT, S_FREE_INODES_COUNT].map(|at| le32(superblock, at));
        if free_blocks > blocks || free_inodes > inodes {
            return Err(Ext4Fault::Malformed("the superblock counts more free than there are").into());
        }
        let state = le16(superblock, S_STATE);
        let is_first_revision = le32(superblock, S_REV_LEVEL) == 0;
        let features = FEATURES.into_iter().flat_map(|(at, names)| named(le32(superblock, at), names));
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&superblock[S_UUID..S_UUID + 16]);
        let label = &superblock[S_VOLUME_NAME..S_VOLUME_NAME + 16];
        Ok(Self {
            block_size,
            blocks,
            free_blocks,
            groups,
            inodes,
            free_inodes,
            inode_size: if is_first_revision { INODE_MIN as u16 } else { le16(superblock, S_INODE_SIZE) },
            features: features.collect(),
            uuid,
            label: until_nul(label),
            is_clean: state & (STATE_CLEAN | STATE_ERROR) == STATE_CLEAN,
            has_errors: state & STATE_ERROR != 0,
            needs_recovery: incompat & RECOVER != 0,
            reserved_blocks,
            last_mounted: until_nul(&superblock[S_LAST_MOUNTED..S_LAST_MOUNTED + 64]),
            mounts: le16(superblock, S_MNT_COUNT),
            made: time(superblock, S_MKFS_TIME),
            mounted: time(superblock, S_MTIME),
            written: time(superblock, S_WTIME),
            size,
        })
    }
}

/// The bytes of the superblock, and how many there are of the whole file or device.
pub(crate) fn superblock(source: &mut (impl Read + Seek)) -> Result<([u8; SUPERBLOCK_BYTES], u64)> {
    let size = source.seek(SeekFrom::End(0)).map_err(failed)?;
    if size < SUPERBLOCK + SUPERBLOCK_BYTES as u64 {
        return Err(Ext4Fault::NoFileSystem.into());
    }
    source.seek(SeekFrom::Start(SUPERBLOCK)).map_err(failed)?;
    let mut bytes = [0; SUPERBLOCK_BYTES];
    source.read_exact(&mut bytes).map_err(failed)?;
    Ok((bytes, size))
}

fn failed(error: std::io::Error) -> Error {
    Error::io("reading the superblock", error)
}

/// The names of bits in `s_feature_incompat`.
pub(crate) fn incompatible(bits: u32) -> Vec<String> {
    let [_, (_, names), _] = FEATURES;
    named(bits, names).collect()
}

fn named(bits: u32, names: &[(u32, &str)]) -> impl Iterator<Item = String> {
    let set = names.iter().filter(move |(bit, _)| bits & bit != 0);
    let unknown = names.iter().fold(bits, |bits, (bit, _)| bits & !bit);
    set.map(|(_, name)| (*name).to_owned()).chain((unknown != 0).then(|| format!("{unknown:#x}")))
}

fn until_nul(text: &[u8]) -> Vec<u8> {
    text.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// A time of 40 bits; 0 is none.
fn time(superblock: &[u8], (low, high): (usize, usize)) -> Option<Timestamp> {
    let high = superblock.get(high).copied().unwrap_or_default();
    let seconds = i64::from(high) << 32 | i64::from(le32(superblock, low));
    (seconds != 0).then_some(Timestamp { seconds, nanos: 0 })
}

/// From 1 to 64 KiB.
fn block_size(superblock: &[u8]) -> Result<u32> {
    let size = 1024_u32.checked_shl(le32(superblock, S_LOG_BLOCK_SIZE));
    let size = size.filter(|size| (1024..=65536).contains(size));
    Ok(size.ok_or(Ext4Fault::Malformed("the block size is none that ext4 has"))?)
}

/// How many groups the blocks are in.
fn groups(superblock: &[u8], block_size: u32, blocks: u64) -> Result<u64> {
    let [first, per_group] =
        [S_FIRST_DATA_BLOCK, S_BLOCKS_PER_GROUP].map(|at| u64::from(le32(superblock, at)));
    let is_clustered = le32(superblock, S_FEATURE_RO_COMPAT) & BIGALLOC != 0;
    let [log_block, log_cluster] = [S_LOG_BLOCK_SIZE, S_LOG_CLUSTER_SIZE].map(|at| le32(superblock, at));
    // Blocks for a bit of the group's bitmap.
    let shift = if is_clustered { log_cluster.saturating_sub(log_block) } else { 0 };
    let most = (8 * u64::from(block_size)).saturating_mul(1_u64.checked_shl(shift).unwrap_or(1));
    if per_group == 0 || per_group > most || first > blocks {
        return Err(Ext4Fault::Malformed("the superblock's groups have no possible size").into());
    }
    Ok((blocks - first).div_ceil(per_group))
}
