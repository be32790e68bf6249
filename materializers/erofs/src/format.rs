//! The on-disk structures by their names in Linux `fs/erofs/erofs_fs.h`, without the prefixes. All are little endian.

use plyfold_core::layer::Timestamp;
use plyfold_core::tree::Kind;
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::compress::format::{DEFLATE, LZMA, ZSTD};

/// Where the superblock stands, whatever the block size.
pub(crate) const SUPERBLOCK_OFFSET: usize = 1024;
pub(crate) const MAGIC: u32 = 0xE0F5_E1E2;

/// The superblock carries a checksum.
pub(crate) const COMPAT_CHECKSUM: u32 = 1;
/// Inodes carry modification times, not change times.
pub(crate) const COMPAT_MTIME: u32 = 2;
/// Bodies of xattrs have filters that say which names are not there (Linux 6.6).
pub(crate) const COMPAT_FILTER: u32 = 4;
/// Shared xattrs stand in the metabox (Linux 6.17).
pub(crate) const COMPAT_SHARED_IN_METABOX: u32 = 8;
/// Prefixes of xattr names stand in the image itself (Linux 6.17).
pub(crate) const COMPAT_PLAIN_PREFIXES: u32 = 0x10;
/// Some files are made of chunks (Linux 5.15).
pub(crate) const INCOMPAT_CHUNKS: u32 = 4;
/// Data lies on further devices (Linux 5.16).
pub(crate) const INCOMPAT_DEVICES: u32 = 8;
/// Compressed data stands at the end of its blocks, behind zeros (Linux 5.3).
pub(crate) const INCOMPAT_PADDING: u32 = 1;
/// Records of the compression algorithms follow the superblock, or clusters have more than one block (Linux 5.13).
pub(crate) const INCOMPAT_CONFIGS: u32 = 2;
/// The last clusters of compressed files may stand behind the inodes (Linux 5.17).
pub(crate) const INCOMPAT_TAILS: u32 = 0x10;
/// Parts of files stand in the packed inode, or several files have one cluster (Linux 6.1).
pub(crate) const INCOMPAT_FRAGMENTS: u32 = 0x20;
/// Names of xattrs may have prefixes of the image's own (Linux 6.4).
pub(crate) const INCOMPAT_PREFIXES: u32 = 0x40;
/// Numbers of blocks have 48 bits (Linux 6.15).
pub(crate) const INCOMPAT_48BIT: u32 = 0x80;
/// Inodes and directories may stand in the data of one inode, the metabox (Linux 6.17).
pub(crate) const INCOMPAT_METABOX: u32 = 0x100;

/// In an inode's number, and in where it stands: it is in the metabox.
pub(crate) const METABOX: u64 = 1 << 63;
/// Where the superblock has the number of the metabox's inode, if it has so many bytes.
pub(crate) const METABOX_NID_OFFSET: usize = 128;

/// An inode's number is its place in the metadata area in these units.
pub(crate) const SLOT: u64 = 32;
pub(crate) const COMPACT_SIZE: u64 = size_of::<CompactInode>() as u64;
pub(crate) const EXTENDED_SIZE: u64 = size_of::<Inode>() as u64;
/// No block: an empty file, or a hole.
pub(crate) const NULL_BLOCK: u32 = u32::MAX;

/// In an inode's format: it is an extended one.
const EXTENDED: u16 = 1;
/// In the format of a compact inode that is no directory: it has one name, and its number of links is the upper part of
/// its first block's number.
const ONE_LINK: u16 = 1 << 4;

pub(crate) const LAYOUT_PLAIN: u16 = 0;
/// Compressed, with full indexes.
pub(crate) const LAYOUT_FULL: u16 = 1;
pub(crate) const LAYOUT_INLINE: u16 = 2;
/// Compressed, with compact indexes.
pub(crate) const LAYOUT_COMPACT: u16 = 3;
pub(crate) const LAYOUT_CHUNKS: u16 = 4;
/// In a chunk format: 8-byte indexes, not bare block numbers. Bits 0 to 4 are log2 of the chunk's blocks.
pub(crate) const CHUNK_INDEXES: u16 = 0x20;
/// In a chunk format: numbers of blocks have 48 bits.
pub(crate) const CHUNK_48BIT: u16 = 0x40;
pub(crate) const CHUNK_INDEX_SIZE: u64 = size_of::<ChunkIndex>() as u64;

pub(crate) const DEVICE_SLOT_SIZE: usize = size_of::<DeviceSlot>();
pub(crate) const DIRENT_SIZE: usize = size_of::<Dirent>();

pub(crate) const S_IFMT: u16 = 0o170_000;
const S_IFIFO: u16 = 0o010_000;
const S_IFCHR: u16 = 0o020_000;
pub(crate) const S_IFDIR: u16 = 0o040_000;
const S_IFBLK: u16 = 0o060_000;
pub(crate) const S_IFREG: u16 = 0o100_000;
pub(crate) const S_IFLNK: u16 = 0o120_000;
const S_IFSOCK: u16 = 0o140_000;

/// The superblock.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct Superblock {
    pub(crate) magic: U32,
    pub(crate) checksum: U32,
    pub(crate) feature_compat: U32,
    /// log2 of the block size: 9 to 12.
    pub(crate) blkszbits: u8,
    pub(crate) sb_extslots: u8,
    pub(crate) root_nid: U16,
    /// The number of inodes.
    pub(crate) inos: U64,
    /// The mtime of every compact inode.
    pub(crate) epoch: Time,
    /// The size of the image, without its devices, in blocks.
    pub(crate) blocks: U32,
    /// Where the metadata area starts.
    pub(crate) meta_blkaddr: U32,
    /// Where the shared xattrs start.
    pub(crate) xattr_blkaddr: U32,
    pub(crate) uuid: [u8; 16],
    /// Padded with NUL.
    pub(crate) volume_name: [u8; 16],
    pub(crate) feature_incompat: U32,
    /// A bit for each compression algorithm; without [`INCOMPAT_CONFIGS`] the longest distance of LZ4 matches.
    pub(crate) available_compr_algs: U16,
    /// The number of slots in the device table.
    pub(crate) extra_devices: U16,
    /// Where the device table starts, in units of its slots.
    pub(crate) devt_slotoff: U16,
    pub(crate) dirblkbits: u8,
    pub(crate) xattr_prefix_count: u8,
    pub(crate) xattr_prefix_start: U32,
    /// The number of the inode that holds the fragments of others; 0 for none.
    pub(crate) packed_nid: U64,
    pub(crate) reserved: [u8; 8],
    /// With [`INCOMPAT_48BIT`] the root's number, and then the upper part of `blocks` is where it is else.
    pub(crate) root_nid_48: U64,
    pub(crate) reserved2: [u8; 8],
}

impl Superblock {
    /// The root's number.
    pub(crate) fn root(&self) -> u64 {
        if self.is_48_bit() { self.root_nid_48.get() } else { self.root_nid.into() }
    }

    /// The size of the image without its devices, in blocks.
    pub(crate) fn block_count(&self) -> u64 {
        let upper = if self.is_48_bit() { self.root_nid.get() } else { 0 };
        u64::from(upper) << 32 | u64::from(self.blocks.get())
    }

    /// The oldest Linux that mounts the image, where pages have 4096 bytes.
    pub(crate) fn kernel(&self) -> (u16, u16) {
        let has = |feature: u32| self.feature_incompat & feature != 0;
        // Without the list, the field is another one.
        let algorithms = if has(INCOMPAT_CONFIGS) { self.available_compr_algs.get() } else { 0 };
        let needs = [
            (has(INCOMPAT_METABOX), (6, 17)),
            (has(INCOMPAT_48BIT), (6, 15)),
            (algorithms & 1 << ZSTD != 0, (6, 10)),
            (algorithms & 1 << DEFLATE != 0, (6, 6)),
            // Blocks smaller than a page.
            (self.blkszbits < 12 || has(INCOMPAT_PREFIXES), (6, 4)),
            (has(INCOMPAT_FRAGMENTS), (6, 1)),
            (has(INCOMPAT_TAILS), (5, 17)),
            (has(INCOMPAT_DEVICES) || algorithms & 1 << LZMA != 0, (5, 16)),
            (has(INCOMPAT_CHUNKS), (5, 15)),
            (has(INCOMPAT_CONFIGS), (5, 13)),
        ];
        needs.into_iter().find(|(needed, _)| *needed).map_or((5, 4), |(_, kernel)| kernel)
    }

    fn is_48_bit(&self) -> bool {
        self.feature_incompat & INCOMPAT_48BIT != 0 && self.root_nid_48 != 0
    }

    pub(crate) fn block_size(&self) -> u64 {
        1 << self.blkszbits
    }

    /// How many bytes from the superblock on the checksum covers: the rest of the block that it starts in.
    pub(crate) fn checksummed(&self) -> usize {
        let block = 1usize << self.blkszbits;
        if block > SUPERBLOCK_OFFSET { block - SUPERBLOCK_OFFSET } else { block }
    }
}

/// A time, as superblock and extended inodes have it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct Time {
    pub(crate) seconds: I64,
    pub(crate) nanos: U32,
}

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Self {
        Self { seconds: time.seconds.into(), nanos: time.nanos.into() }
    }
}

impl From<Time> for Timestamp {
    fn from(time: Time) -> Self {
        Self { seconds: time.seconds.into(), nanos: time.nanos.into() }
    }
}

/// One further device, as the device table lists it.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct DeviceSlot {
    /// Free text: here the sha256 of the layer's tar in hex, or zeros.
    pub(crate) tag: [u8; 64],
    /// The device's size in blocks.
    pub(crate) blocks: U32,
    /// Where the device starts on the one flat disk that all of them make (Linux 6.4).
    pub(crate) uniaddr: U32,
    pub(crate) reserved: [u8; 56],
}

/// An inode in the extended form, which holds any.
#[derive(Clone, Debug, Default, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct Inode {
    pub(crate) format: U16,
    /// The size of the inline xattrs: one for their 12-byte header, one for each 4 bytes after it; 0 for none.
    pub(crate) xattr_icount: U16,
    /// File type and permissions.
    pub(crate) mode: U16,
    /// The upper part of the first block's number.
    pub(crate) location_hi: U16,
    pub(crate) size: U64,
    /// First block, device number or chunk format.
    pub(crate) location: U32,
    /// What `stat` shows on 32-bit systems.
    pub(crate) ino: U32,
    pub(crate) uid: U32,
    pub(crate) gid: U32,
    pub(crate) mtime: Time,
    pub(crate) nlink: U32,
    pub(crate) reserved2: [u8; 16],
}

/// An inode in the compact form: it has the superblock's time, and small numbers.
#[derive(Clone, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct CompactInode {
    format: U16,
    xattr_icount: U16,
    mode: U16,
    nlink: U16,
    size: U32,
    /// Seconds behind the superblock's time.
    mtime: U32,
    location: U32,
    ino: U32,
    uid: U16,
    gid: U16,
    reserved2: U32,
}

impl Inode {
    /// Of a file in one piece.
    pub(crate) fn first_block(&self) -> u64 {
        u64::from(self.location_hi) << 32 | u64::from(self.location)
    }

    /// Whether a file in one piece has no blocks at all: in the compact form without the upper part, 32 bits say so.
    pub(crate) fn is_hole(&self) -> bool {
        self.location == NULL_BLOCK && matches!(self.location_hi.get(), 0 | u16::MAX)
    }

    pub(crate) fn layout(&self) -> u16 {
        self.format.get() >> 1 & 7
    }

    #[must_use]
    pub(crate) fn with_layout(self, layout: u16) -> Self {
        Self { format: (layout << 1 | EXTENDED).into(), ..self }
    }

    /// The size of the inline xattrs in bytes.
    pub(crate) fn xattr_size(&self) -> u64 {
        match self.xattr_icount.get() {
            0 => 0,
            count => 12 + (u64::from(count) - 1) * 4,
        }
    }

    /// The compact form, if that holds it.
    pub(crate) fn compact(&self, epoch: Time) -> Option<CompactInode> {
        (self.mtime == epoch).then_some(())?;
        Some(CompactInode {
            format: self.format & !EXTENDED,
            xattr_icount: self.xattr_icount,
            mode: self.mode,
            nlink: self.nlink.try_into().ok()?,
            size: self.size.try_into().ok()?,
            location: self.location,
            ino: self.ino,
            uid: self.uid.try_into().ok()?,
            gid: self.gid.try_into().ok()?,
            ..CompactInode::default()
        })
    }
}

impl CompactInode {
    /// Whether it is one, and not the first half of an extended one.
    pub(crate) fn is_compact(&self) -> bool {
        self.format & EXTENDED == 0
    }

    pub(crate) fn extended(&self, epoch: Time) -> Inode {
        let has_one = self.format & ONE_LINK != 0 && self.mode & S_IFMT != S_IFDIR;
        let (nlink, location_hi) = if has_one { (1.into(), self.nlink) } else { (self.nlink, 0.into()) };
        let seconds = epoch.seconds.get().wrapping_add(self.mtime.get().into());
        Inode {
            format: self.format & !ONE_LINK | EXTENDED,
            xattr_icount: self.xattr_icount,
            mode: self.mode,
            location_hi,
            size: self.size.into(),
            location: self.location,
            ino: self.ino,
            uid: self.uid.into(),
            gid: self.gid.into(),
            mtime: Time { seconds: seconds.into(), ..epoch },
            nlink: nlink.into(),
            ..Inode::default()
        }
    }
}

/// A directory's entry.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct Dirent {
    pub(crate) nid: U64,
    /// Where its name starts in the block.
    pub(crate) nameoff: U16,
    pub(crate) file_type: u8,
    pub(crate) reserved: u8,
}

/// Where a chunk of a file lies.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct ChunkIndex {
    pub(crate) startblk_hi: U16,
    pub(crate) device_id: U16,
    pub(crate) startblk_lo: U32,
}

/// The file type bits of `st_mode`.
pub(crate) fn type_bits<C>(kind: &Kind<C>) -> u16 {
    match kind {
        Kind::BlockDevice { .. } => S_IFBLK,
        Kind::CharDevice { .. } => S_IFCHR,
        Kind::Directory(_) => S_IFDIR,
        Kind::Fifo => S_IFIFO,
        Kind::File { .. } => S_IFREG,
        Kind::Socket => S_IFSOCK,
        Kind::Symlink { .. } => S_IFLNK,
    }
}

/// The file type of a directory entry, out of the file type bits; 0 for none.
pub(crate) fn dirent_type(type_bits: u16) -> u8 {
    match type_bits {
        S_IFREG => 1,
        S_IFDIR => 2,
        S_IFCHR => 3,
        S_IFBLK => 4,
        S_IFIFO => 5,
        S_IFSOCK => 6,
        S_IFLNK => 7,
        _ => 0,
    }
}

/// A kind without data out of file type bits; `None` for those with data, and for what is no type.
pub(crate) fn special_kind<C>(type_bits: u16, location: u32) -> Option<Kind<C>> {
    let (major, minor) = (location >> 8 & 0xfff, location & 0xff | location >> 12 & 0xf_ff00);
    match type_bits {
        S_IFCHR => Some(Kind::CharDevice { major, minor }),
        S_IFBLK => Some(Kind::BlockDevice { major, minor }),
        S_IFIFO => Some(Kind::Fifo),
        S_IFSOCK => Some(Kind::Socket),
        _ => None,
    }
}

/// Linux's 32-bit form of a device number; `None` when it has no such form.
pub(crate) fn device_number(major: u32, minor: u32) -> Option<u32> {
    (major <= 0xfff && minor <= 0xf_ffff).then_some(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}

/// CRC-32C with a seed of all ones and, unlike elsewhere, no final inversion.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    !crc32c::crc32c(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_that_linux_gives_them() {
        let structures = [size_of::<Superblock>(), DEVICE_SLOT_SIZE, DIRENT_SIZE];
        assert_eq!(structures, [128, 128, 12]);
        assert_eq!([COMPACT_SIZE, EXTENDED_SIZE, CHUNK_INDEX_SIZE], [32, 64, 8]);
    }

    #[test]
    fn device_numbers_survive() {
        for (major, minor) in [(0, 0), (1, 3), (8, 255), (8, 256), (259, 70_000), (0xfff, 0xf_ffff)] {
            let kind = special_kind::<()>(0o020_000, device_number(major, minor).unwrap());
            assert!(
                matches!(kind, Some(Kind::CharDevice { major: m, minor: n }) if (m, n) == (major, minor))
            );
        }
        assert_eq!(device_number(0x1000, 0), None);
        assert_eq!(device_number(0, 0x10_0000), None);
    }

    #[test]
    fn inodes_survive_in_the_smallest_form_that_holds_them() {
        let epoch = Timestamp { seconds: -5, nanos: 7 }.into();
        let small = Inode {
            xattr_icount: u16::MAX.into(),
            mode: 0o104_755.into(),
            nlink: 65_535.into(),
            size: u64::from(u32::MAX).into(),
            location: 9.into(),
            ino: 3.into(),
            uid: 65_535.into(),
            gid: 65_535.into(),
            mtime: epoch,
            ..Inode::default().with_layout(LAYOUT_INLINE)
        };
        assert_eq!((small.layout(), small.xattr_size()), (LAYOUT_INLINE, 12 + 65_534 * 4));
        let compact = small.compact(epoch).unwrap();
        assert!(compact.is_compact());
        assert_eq!(compact.extended(epoch), small);
        let large = [
            Inode { size: (1 << 32).into(), ..small.clone() },
            Inode { uid: 65_536.into(), ..small.clone() },
            Inode { gid: u32::MAX.into(), ..small.clone() },
            Inode { nlink: 65_536.into(), ..small.clone() },
            Inode { mtime: Timestamp { seconds: i64::MIN, nanos: 999_999_999 }.into(), ..small },
        ];
        for inode in large {
            assert!(inode.compact(epoch).is_none(), "{inode:?}");
            let start = CompactInode::read_from_prefix(inode.as_bytes()).unwrap().0;
            assert!(!start.is_compact());
        }
    }
}
