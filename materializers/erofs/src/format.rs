//! The on-disk structures (Linux `fs/erofs/erofs_fs.h`), little endian, with their byte offsets.

use plyfold_core::layer::Timestamp;
use plyfold_core::tree::Kind;

/// Where the superblock stands, whatever the block size.
pub(crate) const SUPERBLOCK_OFFSET: usize = 1024;
pub(crate) const SUPERBLOCK_SIZE: usize = 128;
pub(crate) const MAGIC: u32 = 0xE0F5_E1E2;

/// The superblock carries a checksum.
pub(crate) const COMPAT_CHECKSUM: u32 = 1;
/// Inodes carry modification times, not change times.
pub(crate) const COMPAT_MTIME: u32 = 2;
/// Some files are made of chunks (Linux 5.15).
pub(crate) const INCOMPAT_CHUNKS: u32 = 4;
/// Data lies on further devices (Linux 5.16).
pub(crate) const INCOMPAT_DEVICES: u32 = 8;

/// An inode's number is its place in the metadata area in these units.
pub(crate) const SLOT: u64 = 32;
pub(crate) const COMPACT_SIZE: u64 = 32;
pub(crate) const EXTENDED_SIZE: u64 = 64;
/// No block: an empty file, or a hole.
pub(crate) const NULL_BLOCK: u32 = u32::MAX;

pub(crate) const LAYOUT_PLAIN: u16 = 0;
pub(crate) const LAYOUT_INLINE: u16 = 2;
pub(crate) const LAYOUT_CHUNKS: u16 = 4;
/// In a chunk format: 8-byte indexes, not bare block numbers. Bits 0 to 4 are log2 of the chunk's blocks.
pub(crate) const CHUNK_INDEXES: u16 = 0x20;
pub(crate) const CHUNK_INDEX_SIZE: u64 = 8;

pub(crate) const DEVICE_SLOT_SIZE: usize = 128;
pub(crate) const DIRENT_SIZE: usize = 12;

pub(crate) const S_IFMT: u16 = 0o170_000;
const S_IFIFO: u16 = 0o010_000;
const S_IFCHR: u16 = 0o020_000;
pub(crate) const S_IFDIR: u16 = 0o040_000;
const S_IFBLK: u16 = 0o060_000;
const S_IFREG: u16 = 0o100_000;
const S_IFLNK: u16 = 0o120_000;
const S_IFSOCK: u16 = 0o140_000;

/// The superblock's fields that vary.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Superblock {
    /// log2 of the block size: 9 to 12.
    pub(crate) block_bits: u8,
    /// The root inode's number.
    pub(crate) root_nid: u16,
    /// The number of inodes.
    pub(crate) inodes: u64,
    /// The mtime of every compact inode.
    pub(crate) epoch: Timestamp,
    /// The size of the image, without its devices, in blocks.
    pub(crate) blocks: u32,
    /// Where the metadata area starts.
    pub(crate) meta_block: u32,
    /// Where the shared xattrs start.
    pub(crate) xattr_block: u32,
    pub(crate) uuid: [u8; 16],
    /// Padded with NUL.
    pub(crate) label: [u8; 16],
    pub(crate) incompat: u32,
    /// The number of slots in the device table.
    pub(crate) devices: u16,
    /// Where the device table starts, in units of its slots.
    pub(crate) device_slot: u16,
}

impl Superblock {
    /// The 128 bytes, with a checksum of zero.
    pub(crate) fn encode(&self) -> [u8; SUPERBLOCK_SIZE] {
        let mut bytes = [0; SUPERBLOCK_SIZE];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC.to_le_bytes());
        put(8, &(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        put(12, &[self.block_bits]);
        put(14, &self.root_nid.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(24, &self.epoch.seconds.to_le_bytes());
        put(32, &self.epoch.nanos.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(40, &self.meta_block.to_le_bytes());
        put(44, &self.xattr_block.to_le_bytes());
        put(48, &self.uuid);
        put(64, &self.label);
        put(80, &self.incompat.to_le_bytes());
        put(86, &self.devices.to_le_bytes());
        put(88, &self.device_slot.to_le_bytes());
        bytes
    }

    /// The fields out of 128 bytes. The reader checks their values.
    pub(crate) fn decode(bytes: &[u8; SUPERBLOCK_SIZE]) -> Self {
        Self {
            block_bits: bytes[12],
            root_nid: u16_at(bytes, 14),
            inodes: u64_at(bytes, 16),
            epoch: Timestamp { seconds: u64_at(bytes, 24).cast_signed(), nanos: u32_at(bytes, 32) },
            blocks: u32_at(bytes, 36),
            meta_block: u32_at(bytes, 40),
            xattr_block: u32_at(bytes, 44),
            uuid: array_at(bytes, 48),
            label: array_at(bytes, 64),
            incompat: u32_at(bytes, 80),
            devices: u16_at(bytes, 86),
            device_slot: u16_at(bytes, 88),
        }
    }

    pub(crate) fn block_size(&self) -> u64 {
        1 << self.block_bits
    }

    /// How many bytes from the superblock on the checksum covers: the rest of the block that it starts in.
    pub(crate) fn checksummed(&self) -> usize {
        let block = 1usize << self.block_bits;
        if block > SUPERBLOCK_OFFSET { block - SUPERBLOCK_OFFSET } else { block }
    }
}

/// One further device, as the device table lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct DeviceSlot {
    /// Free text: here the sha256 of the layer's tar in hex, or zeros.
    pub(crate) tag: [u8; 64],
    /// The device's size in blocks.
    pub(crate) blocks: u32,
    /// Where the device starts on the one flat disk that all of them make (Linux 6.4).
    pub(crate) flat_block: u32,
}

impl DeviceSlot {
    pub(crate) fn encode(&self) -> [u8; DEVICE_SLOT_SIZE] {
        let mut bytes = [0; DEVICE_SLOT_SIZE];
        bytes[..64].copy_from_slice(&self.tag);
        bytes[64..68].copy_from_slice(&self.blocks.to_le_bytes());
        bytes[68..72].copy_from_slice(&self.flat_block.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; DEVICE_SLOT_SIZE]) -> Self {
        Self { tag: array_at(bytes, 0), blocks: u32_at(bytes, 64), flat_block: u32_at(bytes, 68) }
    }
}

/// An inode's fields, of either form.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Inode {
    pub(crate) layout: u16,
    /// The size of the inline xattrs with their header, 0 or at least 12.
    pub(crate) xattr_size: u32,
    /// File type and permissions.
    pub(crate) mode: u16,
    pub(crate) links: u32,
    pub(crate) size: u64,
    /// First block, device number or chunk format.
    pub(crate) location: u32,
    /// What `stat` shows on 32-bit systems.
    pub(crate) number: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timestamp,
}

impl Inode {
    /// Whether 32 bytes hold it.
    pub(crate) fn is_compact(&self, epoch: Timestamp) -> bool {
        let small = |value: u32| u16::try_from(value).is_ok();
        self.mtime == epoch
            && u32::try_from(self.size).is_ok()
            && small(self.uid)
            && small(self.gid)
            && small(self.links)
    }

    /// `xattr_size` in the unit of `i_xattr_icount`: one for the 12-byte header, one for each 4 bytes after it.
    fn xattr_count(&self) -> u16 {
        if self.xattr_size == 0 { 0 } else { ((self.xattr_size - 12) / 4 + 1) as u16 }
    }

    pub(crate) fn encode(&self, compact: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.layout << 1 | u16::from(!compact)).to_le_bytes()); // 0
        out.extend_from_slice(&self.xattr_count().to_le_bytes()); // 2
        out.extend_from_slice(&self.mode.to_le_bytes()); // 4
        if compact {
            out.extend_from_slice(&(self.links as u16).to_le_bytes()); // 6
            out.extend_from_slice(&(self.size as u32).to_le_bytes()); // 8
            out.extend_from_slice(&[0; 4]); // 12
            out.extend_from_slice(&self.location.to_le_bytes()); // 16
            out.extend_from_slice(&self.number.to_le_bytes()); // 20
            out.extend_from_slice(&(self.uid as u16).to_le_bytes()); // 24
            out.extend_from_slice(&(self.gid as u16).to_le_bytes()); // 26
            out.extend_from_slice(&[0; 4]); // 28
        } else {
            out.extend_from_slice(&[0; 2]); // 6
            out.extend_from_slice(&self.size.to_le_bytes()); // 8
            out.extend_from_slice(&self.location.to_le_bytes()); // 16
            out.extend_from_slice(&self.number.to_le_bytes()); // 20
            out.extend_from_slice(&self.uid.to_le_bytes()); // 24
            out.extend_from_slice(&self.gid.to_le_bytes()); // 28
            out.extend_from_slice(&self.mtime.seconds.to_le_bytes()); // 32
            out.extend_from_slice(&self.mtime.nanos.to_le_bytes()); // 40
            out.extend_from_slice(&self.links.to_le_bytes()); // 44
            out.extend_from_slice(&[0; 16]); // 48
        }
    }

    /// Whether the inode that starts with `format` is an extended one.
    pub(crate) fn is_extended(format: u16) -> bool {
        format & 1 != 0
    }

    /// The fields out of 64 bytes, of which a compact inode has the first 32.
    pub(crate) fn decode(bytes: &[u8; 64], epoch: Timestamp) -> Self {
        let format = u16_at(bytes, 0);
        let xattr_size = match u16_at(bytes, 2) {
            0 => 0,
            count => 12 + (u32::from(count) - 1) * 4,
        };
        let (layout, mode) = (format >> 1 & 7, u16_at(bytes, 4));
        let (location, number) = (u32_at(bytes, 16), u32_at(bytes, 20));
        if Self::is_extended(format) {
            let mtime = Timestamp { seconds: u64_at(bytes, 32).cast_signed(), nanos: u32_at(bytes, 40) };
            let (uid, gid, links) = (u32_at(bytes, 24), u32_at(bytes, 28), u32_at(bytes, 44));
            Self {
                layout,
                xattr_size,
                mode,
                links,
                size: u64_at(bytes, 8),
                location,
                number,
                uid,
                gid,
                mtime,
            }
        } else {
            let (uid, gid) = (u16_at(bytes, 24).into(), u16_at(bytes, 26).into());
            let (links, size) = (u16_at(bytes, 6).into(), u32_at(bytes, 8).into());
            Self { layout, xattr_size, mode, links, size, location, number, uid, gid, mtime: epoch }
        }
    }
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

/// Whether these are the file type bits of a symbolic link.
pub(crate) fn is_symlink(type_bits: u16) -> bool {
    type_bits == S_IFLNK
}

/// Whether these are the file type bits of a regular file.
pub(crate) fn is_file(type_bits: u16) -> bool {
    type_bits == S_IFREG
}

/// Linux's 32-bit form of a device number; `None` when it has no such form.
pub(crate) fn device_number(major: u32, minor: u32) -> Option<u32> {
    (major <= 0xfff && minor <= 0xf_ffff).then_some(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}

/// CRC-32C with a seed of all ones and, unlike elsewhere, no final inversion.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    !crc32c::crc32c(bytes)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// `N` bytes at a place; zeros beyond the end, so that a wrong offset gives a wrong value and not a panic.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|part| part.try_into().ok()).unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::{Inode, Superblock, device_number, special_kind};
    use plyfold_core::layer::Timestamp;
    use plyfold_core::tree::Kind;

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
        let epoch = Timestamp { seconds: -5, nanos: 7 };
        let small = Inode {
            layout: 2,
            xattr_size: 12 + 65_534 * 4,
            mode: 0o104_755,
            links: 65_535,
            size: u32::MAX.into(),
            location: 9,
            number: 3,
            uid: 65_535,
            gid: 65_535,
            mtime: epoch,
        };
        let large = [
            Inode { size: 1 << 32, ..small.clone() },
            Inode { uid: 65_536, ..small.clone() },
            Inode { gid: u32::MAX, ..small.clone() },
            Inode { links: 65_536, ..small.clone() },
            Inode { mtime: Timestamp { seconds: i64::MIN, nanos: 999_999_999 }, ..small.clone() },
        ];
        assert!(small.is_compact(epoch));
        for inode in large.iter().chain([&small]) {
            let mut bytes = Vec::new();
            inode.encode(inode.is_compact(epoch), &mut bytes);
            assert_eq!(bytes.len(), if inode == &small { 32 } else { 64 });
            bytes.resize(64, 0);
            assert_eq!(&Inode::decode(&bytes.try_into().unwrap(), epoch), inode);
        }
    }

    #[test]
    fn superblocks_survive() {
        let superblock = Superblock {
            block_bits: 12,
            root_nid: 1,
            inodes: 2,
            epoch: Timestamp { seconds: -3, nanos: 4 },
            blocks: 5,
            meta_block: 6,
            xattr_block: 7,
            uuid: *b"0123456789abcdef",
            label: *b"label\0\0\0\0\0\0\0\0\0\0\0",
            incompat: 12,
            devices: 8,
            device_slot: 9,
        };
        assert_eq!(Superblock::decode(&superblock.encode()), superblock);
    }
}
