//! An image that is read: its superblock and what it says of the rest.

use std::collections::HashMap;
use std::io::{Read, Seek};

use plyfold_core::Result;
use plyfold_core::layer::TreeLimits;
use plyfold_core::tree::Xattrs;
use plyfold_verity::TreeLayout;

use super::compressed::Decoded;
use super::source::ImageBytes;
use crate::content::DataLayout;
use crate::fault::ErofsFault;
use crate::format::{
    DeviceSlot, INCOMPAT_48BIT, INCOMPAT_CHUNKS, INCOMPAT_CONFIGS, INCOMPAT_DEVICES, INCOMPAT_FRAGMENTS,
    INCOMPAT_METABOX, INCOMPAT_PADDING, INCOMPAT_PREFIXES, INCOMPAT_TAILS, MAGIC, SUPERBLOCK_OFFSET,
    Superblock,
};

/// What is read. A second algorithm in a file has the bit of the devices.
const KNOWN: u32 = INCOMPAT_PADDING
    | INCOMPAT_CONFIGS
    | INCOMPAT_CHUNKS
    | INCOMPAT_DEVICES
    | INCOMPAT_TAILS
    | INCOMPAT_FRAGMENTS
    | INCOMPAT_PREFIXES
    | INCOMPAT_48BIT
    | INCOMPAT_METABOX;

/// Reads EROFS images, such as this crate writes, and those of other writers: files and directories compressed by LZ4,
/// `MicroLZMA`, DEFLATE and Zstandard, whose last parts may stand behind their inodes or in a packed inode, and compressed
/// inodes (a metabox of up to 64 MiB, which is kept).
///
/// One extent of a compressed file is decoded at a time and kept: at most 12 MiB for files, and 12 MiB for the packed
/// inode.
#[derive(Debug)]
pub struct Reader<R> {
    pub(super) source: ImageBytes<R>,
    pub(crate) superblock: Superblock,
    pub(super) devices: Vec<DeviceSlot>,
    /// Bytes that inodes use.
    pub(super) claimed: u64,
    /// Sets of xattrs by their bodies on disk.
    pub(super) sets: HashMap<Vec<u8>, Xattrs>,
    pub(super) limits: TreeLimits,
    /// The image's own prefixes of xattr names.
    pub(super) prefixes: Vec<Vec<u8>>,
    /// Where the packed inode has its data, and its size.
    pub(super) packed: Option<(DataLayout, u64)>,
    /// Of files, and of the packed inode.
    pub(super) decoded: [Decoded; 2],
}

impl<R: Read + Seek> Reader<R> {
    /// Opens an image and checks its superblock.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for what is no EROFS image, has a wrong checksum or is too
    /// short; [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for features that this crate does not know;
    /// [`Limit`](plyfold_core::ErrorKind::Limit) for a metabox of more than 64 MiB; [`Io`](plyfold_core::ErrorKind::Io) of `source`.
    pub fn new(source: R) -> Result<Self> {
        let mut source = ImageBytes::new(source)?;
        let superblock = source.record(SUPERBLOCK_OFFSET as u64);
        let superblock: Superblock = superblock.map_err(|e| match e.detail() {
            Some(ErofsFault::Outside(..)) => ErofsFault::NoImage.into(),
            _ => e,
        })?;
        if superblock.magic != MAGIC {
            return Err(ErofsFault::NoImage.into());
        }
        if !(9..=12).contains(&superblock.blkszbits) {
            return Err(ErofsFault::SuperblockBits(superblock.blkszbits).into());
        }
        if superblock.dirblkbits > 0 {
            // Linux has no such directories.
            return Err(ErofsFault::DirectoryBlocks(superblock.dirblkbits).into());
        }
        source.check_sum(&superblock)?;
        let unknown = superblock.feature_incompat & !KNOWN;
        if unknown != 0 {
            return Err(ErofsFault::Features(unknown.get()).into());
        }
        if superblock.block_count() * superblock.block_size() > source.size() {
            return Err(ErofsFault::ImageSize(superblock.block_count(), source.size()).into());
        }
        let devices = source.devices(&superblock)?;
        let mut reader = Self {
            source,
            superblock,
            devices,
            claimed: 0,
            sets: HashMap::new(),
            limits: TreeLimits::default(),
            prefixes: Vec::new(),
            packed: None,
            decoded: Default::default(),
        };
        reader.find_metabox()?;
        Ok(reader)
    }

    /// Bounds on what the image's tree takes in memory.
    #[must_use]
    pub fn with_limits(mut self, limits: TreeLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The block size in bytes.
    pub fn block_size(&self) -> u32 {
        1 << self.superblock.blkszbits
    }

    /// The size of the image without its devices, in blocks.
    pub fn blocks(&self) -> u64 {
        self.superblock.block_count()
    }

    /// Whether files may be compressed.
    pub(crate) fn is_compressed(&self) -> bool {
        self.superblock.feature_incompat & (INCOMPAT_PADDING | INCOMPAT_CONFIGS | INCOMPAT_TAILS) != 0
    }

    /// The number of its devices.
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// The size of what is read, in bytes.
    pub fn size(&self) -> u64 {
        self.source.size()
    }

    /// Whether nothing but a dm-verity hash tree of the image follows it.
    pub(crate) fn ends_with_hash_tree(&mut self) -> Result<bool> {
        let (size, mut superblock) = (self.blocks() * u64::from(self.block_size()), [0; 512]);
        if self.size() < size + superblock.len() as u64 {
            return Ok(false);
        }
        self.source.metadata(size, &mut superblock)?;
        let found = TreeLayout::of_superblock(&superblock, size);
        Ok(found.is_ok_and(|(tree, _)| (tree.data_size(), tree.end()) == (size, self.size())))
    }

    /// The volume's UUID.
    pub fn uuid(&self) -> [u8; 16] {
        self.superblock.uuid
    }
}
