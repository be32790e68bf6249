//! Reading any ext4 file system, also ext2 and ext3: its groups, inodes and blocks. Metadata checksums are verified where
//! there are such.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use plyfold_core::layer::Timestamp;
use plyfold_core::{Error, Result};

use crate::fault::Ext4Fault;
use crate::fields::{
    BG_CHECKSUM, BG_INODE_TABLE, BIGALLOC, CSUM_SEED, DIR_INDEX, EA_INODE, ENCRYPT, ENCRYPT_FL, EXTENT,
    FILETYPE, FLEX_BG, I_BLOCK, I_CHECKSUM, I_EXTRA_ISIZE, I_FLAGS, I_GENERATION, I_GID, I_LINKS_COUNT,
    I_MODE, I_MTIME, I_MTIME_EXTRA, I_SIZE, I_UID, INLINE_DATA_FL, INODE_MIN, IS_64BIT, LARGE_DIR, META_BG,
    METADATA_CSUM, MMP, RECOVER, S_BACKUP_BGS, S_BLOCKS_PER_GROUP, S_CHECKSUM_SEED, S_DESC_SIZE,
    S_FEATURE_COMPAT, S_FEATURE_INCOMPAT, S_FEATURE_RO_COMPAT, S_FIRST_DATA_BLOCK, S_FIRST_META_BG, S_IFMT,
    S_IFREG, S_INODES_PER_GROUP, SPARSE_SUPER, SPARSE_SUPER2,
};
use crate::format::{Checksum, joined, joined16, le16, le32, put16, time};
use crate::hash::NameHash;
use crate::summary::{SUPERBLOCK_BYTES, Summary, incompatible};
use crate::tree::Tree;

/// Bytes that are handed over at once.
pub(crate) const PIECE: usize = 64 << 10;

/// What is known here in `s_feature_incompat`, or does not matter to what only reads.
const KNOWN: u32 = FILETYPE
    | RECOVER
    | META_BG
    | EXTENT
    | IS_64BIT
    | MMP
    | FLEX_BG
    | EA_INODE
    | CSUM_SEED
    | LARGE_DIR
    | ENCRYPT;

/// Levels of blocks below the inode, at most: an extent tree has five, a map three.
const LEVELS: usize = 5;
/// Where a block of group descriptors and one of inodes are kept, behind one of each level.
const DESCRIPTORS: usize = LEVELS;
const INODES: usize = LEVELS + 1;

/// A file system, to read from.
pub(crate) struct FileSystem<R> {
    source: R,
    pub(crate) block_size: u64,
    pub(crate) blocks: u64,
    first_block: u64,
    blocks_per_group: u64,
    pub(crate) inodes: u32,
    inodes_per_group: u32,
    inode_size: usize,
    descriptor_size: u64,
    /// From which block of descriptors on each is in its own groups: `meta_bg`.
    meta_groups: Option<u64>,
    /// How groups with a backup of the superblock are chosen.
    backups: Backups,
    /// Where metadata has checksums: what they begin with.
    checksum: Option<Checksum>,
    pub(crate) is_large_dir: bool,
    /// How names are hashed in directories with a tree.
    pub(crate) hash: Option<NameHash>,
    /// The directory whose tree was read last, and the tree, if it can be used.
    pub(crate) tree: Option<(u32, Option<Arc<Tree>>)>,
    /// The blocks that were read last, by their numbers.
    kept: [(Option<u64>, Vec<u8>); INODES + 1],
}

#[derive(Clone, Copy)]
enum Backups {
    All,
    Sparse,
    Two([u32; 2]),
}

/// What an inode says.
#[derive(Clone, Debug)]
pub(crate) struct StoredInode {
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
    pub(crate) checksum: Option<Checksum>,
}

impl<R: Read + Seek> FileSystem<R> {
    /// The file system of a superblock, which says `summary`.
    pub(crate) fn new(source: R, superblock: &[u8; SUPERBLOCK_BYTES], summary: &Summary) -> Result<Self> {
        let [compat, incompat, ro_compat] =
            [S_FEATURE_COMPAT, S_FEATURE_INCOMPAT, S_FEATURE_RO_COMPAT].map(|at| le32(superblock, at));
        if let Some(other) = incompatible(incompat & !KNOWN).first() {
            return Err(Ext4Fault::Unknown(other.clone()).into());
        }
        if ro_compat & BIGALLOC != 0 {
            return Err(Ext4Fault::Unknown("bigalloc".to_owned()).into());
        }
        let malformed = |what| Err(Ext4Fault::Malformed(what).into());
        let is_wide = incompat & IS_64BIT != 0;
        let descriptor_size = if is_wide { u64::from(le16(superblock, S_DESC_SIZE)) } else { 32 };
        let inode_size = usize::from(summary.inode_size);
        let block_size = u64::from(summary.block_size);
        if !descriptor_size.is_power_of_two() || !(32..=1024).contains(&descriptor_size) {
            return malformed("the group descriptors have no possible size");
        }
        if !inode_size.is_power_of_two() || inode_size < INODE_MIN || inode_size as u64 > block_size {
            return malformed("the inodes have no possible size");
        }
        let inodes_per_group = le32(superblock, S_INODES_PER_GROUP);
        if inodes_per_group == 0 || u64::from(inodes_per_group) > 8 * block_size {
            return malformed("the superblock's groups have no possible number of inodes");
        }
        let has_seed = incompat & CSUM_SEED != 0;
        let checksum = if has_seed {
            Checksum::from_seed(le32(superblock, S_CHECKSUM_SEED))
        } else {
            Checksum::new(&summary.uuid)
        };
        Ok(Self {
            source,
            block_size,
            blocks: summary.blocks,
            first_block: u64::from(le32(superblock, S_FIRST_DATA_BLOCK)),
            blocks_per_group: u64::from(le32(superblock, S_BLOCKS_PER_GROUP)),
            inodes: summary.inodes,
            inodes_per_group,
            inode_size,
            descriptor_size,
            meta_groups: (incompat & META_BG != 0).then(|| u64::from(le32(superblock, S_FIRST_META_BG))),
            backups: match (compat & SPARSE_SUPER2 != 0, ro_compat & SPARSE_SUPER != 0) {
                (true, _) => Backups::Two(S_BACKUP_BGS.map(|at| le32(superblock, at))),
                (false, true) => Backups::Sparse,
                (false, false) => Backups::All,
            },
            checksum: (ro_compat & METADATA_CSUM != 0).then_some(checksum),
            is_large_dir: incompat & LARGE_DIR != 0,
            hash: NameHash::of(superblock).filter(|_| compat & DIR_INDEX != 0),
            tree: None,
            kept: std::array::from_fn(|_| (None, Vec::new())),
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

    /// A block, kept until another of this level is asked for. `check` is asked when it is read, and not again.
    pub(crate) fn block(
        &mut self,
        level: usize,
        block: u64,
        check: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<&[u8]> {
        if self.kept[level].0 != Some(block) {
            let mut bytes = std::mem::take(&mut self.kept[level]).1;
            bytes.resize(self.block_size as usize, 0);
            self.read(block, &mut bytes)?;
            check(&bytes)?;
            self.kept[level] = (Some(block), bytes);
        }
        Ok(&self.kept[level].1)
    }

    /// An inode by its number, which is in use.
    pub(crate) fn inode(&mut self, number: u32) -> Result<StoredInode> {
        if number == 0 || number > self.inodes {
            return Err(Ext4Fault::Unreadable(format!("there is no inode {number}")).into());
        }
        let (group, index) = ((number - 1) / self.inodes_per_group, (number - 1) % self.inodes_per_group);
        let at = u64::from(index) * self.inode_size as u64;
        let block = self.inode_table(group)?.saturating_add(at / self.block_size);
        let within = (at % self.block_size) as usize;
        let (size, checksum, is_large_dir) = (self.inode_size, self.checksum, self.is_large_dir);
        let bytes = self.block(INODES, block, |_| Ok(()))?[within..within + size].to_vec();
        StoredInode::of(number, bytes, checksum, is_large_dir)
    }

    /// The first block of a group's inodes.
    fn inode_table(&mut self, group: u32) -> Result<u64> {
        let each = self.block_size / self.descriptor_size;
        let block = self.descriptors(u64::from(group) / each);
        let at = (u64::from(group) % each * self.descriptor_size) as usize;
        let (size, checksum) = (self.descriptor_size as usize, self.checksum);
        let bytes = &self.block(DESCRIPTORS, block, |_| Ok(()))?[at..at + size];
        if let Some(checksum) = checksum {
            let (before, behind) = (&bytes[..BG_CHECKSUM], &bytes[BG_CHECKSUM + 2..]);
            let sum = checksum.over(&[&group.to_le_bytes(), before, &[0; 2], behind]);
            if sum as u16 != le16(bytes, BG_CHECKSUM) {
                return Err(Ext4Fault::Unreadable(format!("the checksum of group {group} is wrong")).into());
            }
        }
        // One of 32 bytes has no upper halves.
        Ok(if size < 64 { u64::from(le32(bytes, BG_INODE_TABLE.0)) } else { joined(bytes, BG_INODE_TABLE) })
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
            Backups::Two(groups) => groups.map(u64::from).contains(&group),
            Backups::All => true,
            Backups::Sparse => group == 1 || [3, 5, 7].into_iter().any(is_power),
        }
    }
}

impl StoredInode {
    fn of(number: u32, mut bytes: Vec<u8>, checksum: Option<Checksum>, is_large_dir: bool) -> Result<Self> {
        let bad = |what: &str| Err(Ext4Fault::Unreadable(format!("inode {number} {what}")).into());
        let extra = if bytes.len() > INODE_MIN { usize::from(le16(&bytes, I_EXTRA_ISIZE)) } else { 0 };
        if extra > bytes.len() - INODE_MIN {
            return bad("has no possible size");
        }
        let has = |field: usize, size: usize| field + size <= INODE_MIN + extra;
        let generation = &bytes[I_GENERATION..I_GENERATION + 4];
        let checksum = checksum.map(|checksum| checksum.behind(&[&number.to_le_bytes(), generation]));
        if let Some(checksum) = checksum {
            let (low, high) = I_CHECKSUM;
            let known = (le16(&bytes, low), has(high, 2).then(|| le16(&bytes, high)));
            // The checksum is taken with zeros in its own place.
            put16(&mut bytes, low, 0);
            if known.1.is_some() {
                put16(&mut bytes, high, 0);
            }
            let sum = checksum.over(&[&bytes]);
            if known != (sum as u16, known.1.map(|_| (sum >> 16) as u16)) {
                return bad("has a wrong checksum");
            }
        }
        // Linux opens none of these.
        if le16(&bytes, I_LINKS_COUNT) == 0 {
            return bad("is not in use");
        }
        let mode = le16(&bytes, I_MODE);
        let is_wide = is_large_dir || mode & S_IFMT == S_IFREG;
        let mut data = [0; 60];
        data.copy_from_slice(&bytes[I_BLOCK..I_BLOCK + 60]);
        Ok(Self {
            number,
            mode,
            uid: joined16(&bytes, I_UID),
            gid: joined16(&bytes, I_GID),
            size: if is_wide { joined(&bytes, I_SIZE) } else { u64::from(le32(&bytes, I_SIZE.0)) },
            mtime: time(&bytes, I_MTIME, Some(I_MTIME_EXTRA).filter(|extra| has(*extra, 4))),
            flags: le32(&bytes, I_FLAGS),
            data,
            checksum,
        })
    }

    /// Whether its content is in blocks, in the clear.
    pub(crate) fn readable(&self) -> Result<()> {
        if self.flags & ENCRYPT_FL != 0 {
            return Err(Ext4Fault::Encrypted.into());
        }
        if self.flags & INLINE_DATA_FL != 0 {
            return Err(Ext4Fault::Unknown("inline_data".to_owned()).into());
        }
        Ok(())
    }

    pub(crate) fn is(&self, kind: u16) -> bool {
        self.mode & S_IFMT == kind
    }
}
