//! Reading any ext4 file system, also ext2 and ext3: its groups, inodes and blocks. Metadata checksums are verified where
//! there are such.

use std::io::{Read, Seek, SeekFrom};

use plyfold_core::layer::Timestamp;
use plyfold_core::{Error, Result};

use crate::fault::Ext4Fault;
use crate::format::crc32c;
use crate::summary::{Summary, incompatible, superblock};

/// In `i_mode`.
pub(crate) const DIRECTORY: u16 = 0x4000;
pub(crate) const REGULAR: u16 = 0x8000;
pub(crate) const SYMLINK: u16 = 0xa000;

/// Blocks that are kept: of an extent tree five levels, then one of group descriptors and one of inodes.
pub(crate) const LEVELS: usize = 7;
/// In `s_feature_incompat`, what is known here or does not matter to what only reads: `filetype`, `needs_recovery`, `meta_bg`, `extent`,
/// `64bit`, `mmp`, `flex_bg`, `ea_inode`, `metadata_csum_seed`, `large_dir`, `encrypt`.
const KNOWN: u32 = 0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x1_0000;
/// In `i_flags`.
const ENCRYPTED: u32 = 0x800;
pub(crate) const EXTENTS: u32 = 0x8_0000;
const INLINE: u32 = 0x1000_0000;
/// Where the superblock has the two groups with backups of `sparse_super2`.
const BACKUPS: usize = 0x24c;

/// A file system, to read from.
pub(crate) struct Volume<R> {
    source: R,
    pub(crate) block_size: u64,
    blocks: u64,
    first_block: u64,
    blocks_per_group: u64,
    inodes: u32,
    inodes_per_group: u32,
    inode_size: usize,
    descriptor_size: u64,
    /// From which block of descriptors on each is in its own groups: `meta_bg`.
    meta_groups: Option<u64>,
    /// How groups with a backup of the superblock are chosen.
    backups: Backups,
    /// Where metadata has checksums: what they begin with.
    seed: Option<u32>,
    is_large_dir: bool,
    /// The last block of each level, by its number.
    cached: [(Option<u64>, Vec<u8>); LEVELS],
}

#[derive(Clone, Copy)]
enum Backups {
    All,
    Sparse,
    Two(u32, u32),
}

/// What an inode says.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub(crate) number: u32,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) mtime: Timestamp,
    pub(crate) flags: u32,
    /// `i_block`: extents, block numbers or a short link.
    pub(crate) data: [u8; 60],
    /// What the checksums of its blocks begin with.
    pub(crate) seed: Option<u32>,
}

impl<R: Read + Seek> Volume<R> {
    /// The file system of a summary.
    pub(crate) fn new(mut source: R, summary: &Summary) -> Result<Self> {
        let bytes = superblock(&mut source)?;
        let has = |name: &str| summary.features.iter().any(|feature| feature == name);
        if let Some(other) = incompatible(le32(&bytes, 0x60) & !KNOWN).first() {
            return Err(Ext4Fault::Unknown(other.clone()).into());
        }
        if has("bigalloc") {
            return Err(Ext4Fault::Unknown("bigalloc".to_owned()).into());
        }
        let malformed = |what| Err(Ext4Fault::Malformed(what).into());
        let descriptor_size = if has("64bit") { u64::from(le16(&bytes, 0xfe)) } else { 32 };
        let inode_size = usize::from(summary.inode_size);
        let block_size = u64::from(summary.block_size);
        if !descriptor_size.is_power_of_two() || !(32..=1024).contains(&descriptor_size) {
            return malformed("the group descriptors have no possible size");
        }
        if !inode_size.is_power_of_two() || inode_size < 128 || inode_size as u64 > block_size {
            return malformed("the inodes have no possible size");
        }
        let inodes_per_group = le32(&bytes, 0x28);
        if inodes_per_group == 0 || u64::from(inodes_per_group) > 8 * block_size {
            return malformed("the superblock's groups have no possible number of inodes");
        }
        let own_seed =
            || if has("metadata_csum_seed") { le32(&bytes, 0x270) } else { crc32c(!0, &summary.uuid) };
        let backups = if has("sparse_super2") {
            Backups::Two(le32(&bytes, BACKUPS), le32(&bytes, BACKUPS + 4))
        } else if has("sparse_super") {
            Backups::Sparse
        } else {
            Backups::All
        };
        Ok(Self {
            source,
            block_size,
            blocks: summary.blocks,
            first_block: u64::from(le32(&bytes, 0x14)),
            blocks_per_group: u64::from(le32(&bytes, 0x20)),
            inodes: summary.inodes,
            inodes_per_group,
            inode_size,
            descriptor_size,
            meta_groups: has("meta_bg").then(|| u64::from(le32(&bytes, 0x104))),
            backups,
            seed: has("metadata_csum").then(own_seed),
            is_large_dir: has("large_dir"),
            cached: std::array::from_fn(|_| (None, Vec::new())),
        })
    }

    /// What it is in.
    pub(crate) fn into_source(self) -> R {
        self.source
    }

    /// Reads bytes of a block and what follows it.
    pub(crate) fn read(&mut self, block: u64, bytes: &mut [u8]) -> Result<()> {
        let end = block.checked_add((bytes.len() as u64).div_ceil(self.block_size));
        if end.is_none_or(|end| end > self.blocks) {
            return Err(Ext4Fault::Unreadable(format!("block {block} is beyond its end")).into());
        }
        let read = self.source.seek(SeekFrom::Start(block * self.block_size));
        read.and_then(|_| self.source.read_exact(bytes)).map_err(|e| Error::io("reading the file system", e))
    }

    /// A whole block, kept until another of this level is asked for; whether it was read just now.
    pub(crate) fn block(&mut self, level: usize, block: u64) -> Result<(&[u8], bool)> {
        let level = level.min(LEVELS - 1);
        let is_new = self.cached[level].0 != Some(block);
        if is_new {
            let mut bytes = std::mem::take(&mut self.cached[level]).1;
            bytes.resize(self.block_size as usize, 0);
            self.read(block, &mut bytes)?;
            self.cached[level] = (Some(block), bytes);
        }
        Ok((&self.cached[level].1, is_new))
    }

    /// Drops what was read of a level: it is not what it should be.
    pub(crate) fn forget(&mut self, level: usize) {
        self.cached[level.min(LEVELS - 1)].0 = None;
    }

    /// An inode by its number, which is in use.
    pub(crate) fn inode(&mut self, number: u32) -> Result<Inode> {
        if number == 0 || number > self.inodes {
            return Err(Ext4Fault::Unreadable(format!("there is no inode {number}")).into());
        }
        let (group, index) = ((number - 1) / self.inodes_per_group, (number - 1) % self.inodes_per_group);
        let at = u64::from(index) * self.inode_size as u64;
        let block = self.inode_table(group)?.saturating_add(at / self.block_size);
        let within = (at % self.block_size) as usize;
        let (size, seed, is_large_dir) = (self.inode_size, self.seed, self.is_large_dir);
        let (bytes, _) = self.block(LEVELS - 1, block)?;
        let bytes = bytes.get(within..within + size).unwrap_or_default().to_vec();
        Inode::of(number, &bytes, seed, is_large_dir)
    }

    /// The first block of a group's inodes.
    fn inode_table(&mut self, group: u32) -> Result<u64> {
        let each = self.block_size / self.descriptor_size;
        let block = self.descriptors(u64::from(group) / each);
        let at = (u64::from(group) % each * self.descriptor_size) as usize;
        let (size, seed) = (self.descriptor_size as usize, self.seed);
        let (bytes, _) = self.block(LEVELS - 2, block)?;
        let bytes = bytes.get(at..at + size).unwrap_or_default();
        if let Some(seed) = seed {
            let sum = parts(seed, &[&group.to_le_bytes(), &bytes[..0x1e], &[0; 2], &bytes[0x20..]]);
            if sum as u16 != le16(bytes, 0x1e) {
                self.forget(LEVELS - 2);
                return Err(Ext4Fault::Unreadable(format!("the checksum of group {group} is wrong")).into());
            }
        }
        let high = if size >= 64 { le32(bytes, 0x28) } else { 0 };
        Ok(u64::from(le32(bytes, 8)) | u64::from(high) << 32)
    }

    /// The block with the descriptors of this number (`descriptor_loc` of Linux).
    fn descriptors(&self, number: u64) -> u64 {
        if self.meta_groups.is_none_or(|first| number < first) {
            let superblock = u64::from(self.block_size == 1024);
            return superblock + number + 1;
        }
        let group = number * (self.block_size / self.descriptor_size);
        self.first_block + group * self.blocks_per_group + u64::from(self.has_superblock(group))
    }

    fn has_superblock(&self, group: u64) -> bool {
        let is_power = |of: u64| {
            std::iter::successors(Some(of), |power| power.checked_mul(of)).any(|power| power == group)
        };
        match self.backups {
            _ if group == 0 => true,
            Backups::Two(one, other) => [one, other].map(u64::from).contains(&group),
            Backups::All => true,
            Backups::Sparse => group == 1 || [3, 5, 7].into_iter().any(is_power),
        }
    }
}

impl Inode {
    fn of(number: u32, bytes: &[u8], seed: Option<u32>, is_large_dir: bool) -> Result<Self> {
        let bad = |what: &str| Err(Ext4Fault::Unreadable(format!("inode {number} {what}")).into());
        let extra = if bytes.len() > 128 { usize::from(le16(bytes, 0x80)) } else { 0 };
        if extra > bytes.len() - 128.min(bytes.len()) {
            return bad("has no possible size");
        }
        let seed =
            seed.map(|seed| parts(seed, &[&number.to_le_bytes(), bytes.get(0x64..0x68).unwrap_or_default()]));
        if let Some(seed) = seed {
            let mut zeroed = bytes.to_vec();
            zeroed[0x7c..0x7e].fill(0);
            let high = (extra >= 4).then(|| {
                zeroed[0x82..0x84].fill(0);
                le16(bytes, 0x82)
            });
            let sum = crc32c(seed, &zeroed);
            if sum as u16 != le16(bytes, 0x7c) || high.is_some_and(|high| high != (sum >> 16) as u16) {
                return bad("has a wrong checksum");
            }
        }
        let flags = le32(bytes, 0x20);
        let mode = le16(bytes, 0);
        let is_wide = is_large_dir || mode & 0xf000 == REGULAR;
        let high = if is_wide { u64::from(le32(bytes, 0x6c)) << 32 } else { 0 };
        // The seconds have two bits more in the field with the nanoseconds.
        let seconds = i64::from(le32(bytes, 0x10).cast_signed());
        let wide = if extra >= 12 { le32(bytes, 0x88) } else { 0 };
        let mut data = [0; 60];
        data.copy_from_slice(bytes.get(0x28..0x64).unwrap_or(&[0; 60]));
        Ok(Self {
            number,
            mode,
            uid: u32::from(le16(bytes, 2)) | u32::from(le16(bytes, 0x78)) << 16,
            gid: u32::from(le16(bytes, 0x18)) | u32::from(le16(bytes, 0x7a)) << 16,
            size: u64::from(le32(bytes, 4)) | high,
            mtime: Timestamp { seconds: seconds + (i64::from(wide & 3) << 32), nanos: wide >> 2 },
            flags,
            data,
            seed,
        })
    }
}

impl Inode {
    /// Whether its content is in blocks, in the clear.
    pub(crate) fn readable(&self) -> Result<()> {
        if self.flags & ENCRYPTED != 0 {
            return Err(Ext4Fault::Encrypted.into());
        }
        if self.flags & INLINE != 0 {
            return Err(Ext4Fault::Unknown("inline_data".to_owned()).into());
        }
        Ok(())
    }

    pub(crate) fn is(&self, kind: u16) -> bool {
        self.mode & 0xf000 == kind
    }
}

/// A checksum over parts.
pub(crate) fn parts(seed: u32, parts: &[&[u8]]) -> u32 {
    parts.iter().fold(seed, |sum, part| crc32c(sum, part))
}

pub(crate) fn le16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
