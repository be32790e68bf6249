//! What the superblock of a file system says, also of one that nothing here makes: ext2 and ext3 have the same.

use std::io::{Read, Seek, SeekFrom};

use plyfold_core::{Error, Result};

use crate::fault::Ext4Fault;
use crate::format::crc32c;

/// Where the superblock stands, whatever the block size.
const SUPERBLOCK: u64 = 1024;
const SUPERBLOCK_BYTES: usize = 1024;
const MAGIC: u16 = 0xef53;
/// In `s_feature_incompat`: blocks are counted in 64 bits.
const INCOMPAT_64BIT: u32 = 0x80;
/// In `s_feature_incompat`: the journal has to be replayed.
const INCOMPAT_RECOVER: u32 = 4;
/// In `s_feature_ro_compat`: the superblock has a checksum.
const RO_COMPAT_CHECKSUM: u32 = 0x400;
/// In `s_feature_ro_compat`: a bit of a bitmap is a cluster of blocks.
const RO_COMPAT_BIGALLOC: u32 = 0x200;
/// In `s_state`: it was unmounted, and no error was found.
const STATE_CLEAN: u16 = 1;
const STATE_ERROR: u16 = 2;

/// Features by the names that e2fsprogs gives them: `s_feature_compat`, `s_feature_incompat`, `s_feature_ro_compat`.
const FEATURES: [(usize, &[(u32, &str)]); 3] = [
    (
        0x5c,
        &[
            (0x1, "dir_prealloc"),
            (0x2, "imagic_inodes"),
            (0x4, "has_journal"),
            (0x8, "ext_attr"),
            (0x10, "resize_inode"),
            (0x20, "dir_index"),
            (0x200, "sparse_super2"),
            (0x400, "fast_commit"),
            (0x800, "stable_inodes"),
            (0x1000, "orphan_file"),
        ],
    ),
    (
        0x60,
        &[
            (0x1, "compression"),
            (0x2, "filetype"),
            (0x4, "needs_recovery"),
            (0x8, "journal_dev"),
            (0x10, "meta_bg"),
            (0x40, "extent"),
            (0x80, "64bit"),
            (0x100, "mmp"),
            (0x200, "flex_bg"),
            (0x400, "ea_inode"),
            (0x1000, "dirdata"),
            (0x2000, "metadata_csum_seed"),
            (0x4000, "large_dir"),
            (0x8000, "inline_data"),
            (0x10000, "encrypt"),
            (0x20000, "casefold"),
        ],
    ),
    (
        0x64,
        &[
            (0x1, "sparse_super"),
            (0x2, "large_file"),
            (0x8, "huge_file"),
            (0x10, "uninit_bg"),
            (0x20, "dir_nlink"),
            (0x40, "extra_isize"),
            (0x100, "quota"),
            (0x200, "bigalloc"),
            (0x400, "metadata_csum"),
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
    /// Whether the journal holds writes that have not reached their places.
    pub needs_recovery: bool,
    /// Bytes of the file or device that it is in.
    pub size: u64,
}

impl Summary {
    /// Whether these bytes, 1,082 or more from a file's start, begin such a file system.
    pub fn is_file_system(start: &[u8]) -> bool {
        start.get(SUPERBLOCK as usize + 0x38..).is_some_and(|start| start.starts_with(&MAGIC.to_le_bytes()))
    }

    /// Reads the superblock.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for what is no such file system, has a wrong checksum, or numbers
    /// that contradict each other; [`Io`](plyfold_core::ErrorKind::Io) of `source`.
    pub fn read(mut source: impl Read + Seek) -> Result<Self> {
        let size = source.seek(SeekFrom::End(0)).map_err(failed)?;
        let bytes = superblock(&mut source)?;
        let superblock = Fields(&bytes);
        if superblock.u16(0x38) != MAGIC {
            return Err(Ext4Fault::NoFileSystem.into());
        }
        // Over all that stands before the checksum.
        if superblock.u32(0x64) & RO_COMPAT_CHECKSUM != 0
            && superblock.u32(0x3fc) != crc32c(!0, &bytes[..0x3fc])
        {
            return Err(Ext4Fault::Malformed("the superblock's checksum is wrong").into());
        }
        superblock.summary(size)
    }
}

/// The bytes of the superblock.
pub(crate) fn superblock(source: &mut (impl Read + Seek)) -> Result<[u8; SUPERBLOCK_BYTES]> {
    let size = source.seek(SeekFrom::End(0)).map_err(failed)?;
    if size < SUPERBLOCK + SUPERBLOCK_BYTES as u64 {
        return Err(Ext4Fault::NoFileSystem.into());
    }
    source.seek(SeekFrom::Start(SUPERBLOCK)).map_err(failed)?;
    let mut bytes = [0; SUPERBLOCK_BYTES];
    source.read_exact(&mut bytes).map_err(failed)?;
    Ok(bytes)
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

/// A superblock's little-endian fields by their offsets.
struct Fields<'a>(&'a [u8; SUPERBLOCK_BYTES]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|index| self.0[at + index])
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    /// A number in two fields.
    fn u64(&self, low: usize, high: usize) -> u64 {
        let is_wide = self.u32(0x60) & INCOMPAT_64BIT != 0;
        let high = if is_wide { self.u32(high) } else { 0 };
        u64::from(self.u32(low)) | u64::from(high) << 32
    }

    fn summary(&self, size: u64) -> Result<Summary> {
        // s_log_block_size: from 1 to 64 KiB.
        let block_size = 1024_u32.checked_shl(self.u32(0x18)).filter(|size| (1024..=65536).contains(size));
        let block_size = block_size.ok_or(Ext4Fault::Malformed("the block size is none that ext4 has"))?;
        let blocks = self.u64(0x04, 0x150); // s_blocks_count
        let (first, per_group) = (u64::from(self.u32(0x14)), u64::from(self.u32(0x20)));
        // Blocks for a bit: s_log_cluster_size against s_log_block_size.
        let is_clustered = self.u32(0x64) & RO_COMPAT_BIGALLOC != 0;
        let shift = if is_clustered { self.u32(0x1c).saturating_sub(self.u32(0x18)) } else { 0 };
        let most = (8 * u64::from(block_size)).saturating_mul(1_u64.checked_shl(shift).unwrap_or(1));
        if per_group == 0 || per_group > most || first > blocks {
            return Err(Ext4Fault::Malformed("the superblock's groups have no possible size").into());
        }
        let is_first_revision = self.u32(0x4c) == 0; // s_rev_level
        let state = self.u16(0x3a);
        let (free_blocks, inodes, free_inodes) = (self.u64(0x0c, 0x158), self.u32(0x00), self.u32(0x10));
        if free_blocks > blocks || free_inodes > inodes {
            return Err(Ext4Fault::Malformed("the superblock counts more free than there are").into());
        }
        Ok(Summary {
            block_size,
            blocks,
            free_blocks,
            groups: (blocks - first).div_ceil(per_group),
            inodes,
            free_inodes,
            inode_size: if is_first_revision { 128 } else { self.u16(0x58) },
            features: self.features(),
            uuid: self.bytes(0x68),
            label: self.bytes::<16>(0x78).split(|byte| *byte == 0).next().unwrap_or_default().to_vec(),
            is_clean: state & STATE_CLEAN != 0 && state & STATE_ERROR == 0,
            needs_recovery: self.u32(0x60) & INCOMPAT_RECOVER != 0,
            size,
        })
    }

    fn features(&self) -> Vec<String> {
        FEATURES.into_iter().flat_map(|(at, names)| named(self.u32(at), names)).collect()
    }
}
