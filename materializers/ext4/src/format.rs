//! The on-disk records, as bytes: kernel `Documentation/filesystems/ext4/`, whose field names stand beside their
//! offsets. ext4 is little-endian, its journal big-endian.

use plyfold_core::layer::Timestamp;

use crate::fields::{
    EE_LEN, EE_START_HI, EE_START_LO, EH_ENTRIES, EH_MAGIC, EH_MAX, EXTENT_ENTRY, EXTENT_MAGIC, EXTENTS_FL,
    H_BLOCKTYPE, H_MAGIC, I_BLOCK, I_CHECKSUM, I_EXTRA_ISIZE, I_FLAGS, I_GID, I_MODE, I_MTIME, I_MTIME_EXTRA,
    I_SIZE, I_UID, J_64BIT, J_BLOCKSIZE, J_BYTES, J_CHECKSUM, J_CHECKSUM_TYPE, J_CRC32C, J_CSUM_V3,
    J_FEATURE_INCOMPAT, J_FIRST, J_MAXLEN, J_NR_USERS, J_SEQUENCE, J_UUID, JOURNAL_MAGIC, SUPERBLOCK_V2,
};

/// Bytes of a block.
pub(crate) const BLOCK_SIZE: usize = 4096;
/// Blocks in a group: one block of bitmap.
pub(crate) const BLOCKS_PER_GROUP: u32 = 8 * BLOCK_SIZE as u32;
/// Bytes of a group descriptor with `64bit`.
pub(crate) const DESCRIPTOR_SIZE: usize = 64;
/// Bytes of an inode.
pub(crate) const INODE_SIZE: usize = 256;
/// Inodes in a group, at least: one for every 16 KiB.
pub(crate) const INODES_PER_GROUP: u32 = 8192;
/// One block, as it stands on disk.
pub(crate) type Block = [u8; BLOCK_SIZE];

/// crc32c as ext4 uses it: running, without the final inversion, from a seed made of the UUID.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checksum(u32);

impl Checksum {
    /// The seed of everything but the superblock and the journal.
    pub(crate) fn new(uuid: &[u8; 16]) -> Self {
        Self(crc32c(!0, uuid))
    }

    /// One that begins with what the superblock says (`s_checksum_seed`).
    pub(crate) fn from_seed(seed: u32) -> Self {
        Self(seed)
    }

    /// One that goes on behind the parts.
    pub(crate) fn behind(self, parts: &[&[u8]]) -> Self {
        Self(self.over(parts))
    }

    /// The checksum over the parts, one after the other.
    pub(crate) fn over(self, parts: &[&[u8]]) -> u32 {
        parts.iter().fold(self.0, |sum, part| crc32c(sum, part))
    }
}

pub(crate) fn crc32c(sum: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!sum, bytes)
}

/// The root directory's inode.
pub(crate) const ROOT_INODE: u32 = 2;
/// The journal's inode.
pub(crate) const JOURNAL_INODE: u32 = 8;
/// The inode of `lost+found`: the first that is not reserved.
pub(crate) const LOST_FOUND_INODE: u32 = 11;

/// An inode (`inodes.rst`).
#[derive(Clone, Debug, Default)]
pub(crate) struct Inode {
    pub(crate) number: u32,
    /// Type and permissions.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u16,
    pub(crate) mtime: Timestamp,
    /// Creation and change time.
    pub(crate) time: Timestamp,
    pub(crate) atime: Timestamp,
    pub(crate) flags: u32,
    /// `l_i_version`: of the inode of an attribute's value, how many refer to it.
    pub(crate) version: u32,
    pub(crate) size: u64,
    /// Blocks in use, that of extended attributes apart.
    pub(crate) blocks: u64,
    pub(crate) body: Body,
    /// The block of extended attributes, 0 for none.
    pub(crate) xattr_block: u64,
    /// What stands in the inode after its fields: extended attributes.
    pub(crate) tail: Vec<u8>,
}

/// `i_block`: an extent tree's root, the text of a short symbolic link, or a device number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Body(pub(crate) [u8; 60]);

impl Default for Body {
    fn default() -> Self {
        Self([0; 60])
    }
}

impl Inode {
    /// Bytes for extended attributes: what 128 + `i_extra_isize` leave.
    pub(crate) const TAIL: usize = INODE_SIZE - 160;

    /// The same with one run of data, at most 32768 blocks.
    pub(crate) fn with_run(mut self, first_block: u64, blocks: u32) -> Self {
        let tree = &mut self.body.0;
        put16(tree, EH_MAGIC, EXTENT_MAGIC);
        put16(tree, EH_ENTRIES, 1);
        put16(tree, EH_MAX, 4);
        put16(tree, EXTENT_ENTRY + EE_LEN, blocks as u16);
        put16(tree, EXTENT_ENTRY + EE_START_HI, (first_block >> 32) as u16);
        put32(tree, EXTENT_ENTRY + EE_START_LO, first_block as u32);
        self.flags |= EXTENTS_FL;
        self.blocks = blocks.into();
        self.size = self.blocks * BLOCK_SIZE as u64;
        self
    }

    /// Its 256 bytes.
    pub(crate) fn encode(&self, checksum: Checksum) -> [u8; INODE_SIZE] {
        let mut inode = [0; INODE_SIZE];
        put16(&mut inode, I_MODE, self.mode);
        split16(&mut inode, I_UID, self.uid);
        split16(&mut inode, I_GID, self.gid);
        split(&mut inode, I_SIZE, self.size);
        put16(&mut inode, 0x1a, self.links); // i_links_count
        let sectors = (self.blocks + u64::from(self.xattr_block != 0)) * (BLOCK_SIZE as u64 / 512);
        put32(&mut inode, 0x1c, sectors as u32); // i_blocks_lo
        put16(&mut inode, 0x74, (sectors >> 32) as u16); // l_i_blocks_high
        put32(&mut inode, I_FLAGS, self.flags);
        put32(&mut inode, 0x24, self.version); // l_i_version
        put(&mut inode, I_BLOCK, &self.body.0);
        put32(&mut inode, 0x68, self.xattr_block as u32); // i_file_acl_lo
        put16(&mut inode, 0x76, (self.xattr_block >> 32) as u16); // l_i_file_acl_high
        put16(&mut inode, I_EXTRA_ISIZE, 32);
        put_time(&mut inode, 0x0c, 0x84, self.time); // i_ctime
        put_time(&mut inode, I_MTIME, I_MTIME_EXTRA, self.mtime);
        put_time(&mut inode, 0x08, 0x8c, self.atime); // i_atime
        put_time(&mut inode, 0x90, 0x94, self.time); // i_crtime
        put(&mut inode, 160, &self.tail);
        // Over number, generation (0) and the inode with its checksum fields zero.
        let sum = checksum.over(&[&self.number.to_le_bytes(), &[0; 4], &inode]);
        split16(&mut inode, I_CHECKSUM, sum);
        inode
    }
}

/// A bitmap whose first `used` bits are set, and those from `valid` on as padding.
pub(crate) fn bitmap(used: u32, valid: u32) -> Block {
    let mut block = [0; BLOCK_SIZE];
    for bit in (0..used as usize).chain(valid as usize..8 * BLOCK_SIZE) {
        block[bit / 8] |= 1 << (bit % 8);
    }
    block
}

/// The superblock of an empty journal (`journal.rst`), with block checksums of version 3.
pub(crate) fn journal(blocks: u32, uuid: &[u8; 16]) -> Block {
    let mut block = [0; BLOCK_SIZE];
    for (at, value) in [
        (H_MAGIC, JOURNAL_MAGIC),
        (H_BLOCKTYPE, SUPERBLOCK_V2),
        (J_BLOCKSIZE, BLOCK_SIZE as u32),
        (J_MAXLEN, blocks),
        (J_FIRST, 1),
        (J_SEQUENCE, 1),
        (J_FEATURE_INCOMPAT, J_64BIT | J_CSUM_V3),
        (J_NR_USERS, 1),
    ] {
        put(&mut block, at, &u32::to_be_bytes(value));
    }
    put(&mut block, J_UUID, uuid);
    block[J_CHECKSUM_TYPE] = J_CRC32C;
    let sum = crc32c(!0, &block[..J_BYTES]);
    put(&mut block, J_CHECKSUM, &sum.to_be_bytes());
    block
}

/// The first and the last second that an inode can tell ("Inode Timestamps").
pub(crate) const EARLIEST: i64 = i32::MIN as i64;
pub(crate) const LATEST: i64 = EARLIEST + (1 << 34) - 1;

/// Seconds in one field; two more bits of them and the nanoseconds in another ("Inode Timestamps").
fn put_time(inode: &mut [u8], at: usize, extra: usize, time: Timestamp) {
    let seconds = time.seconds.clamp(EARLIEST, LATEST);
    let nanos = if seconds == time.seconds { time.nanos } else { 0 };
    put32(inode, at, seconds.cast_unsigned() as u32);
    let epoch = ((seconds - EARLIEST) >> 32).cast_unsigned() as u32;
    put32(inode, extra, nanos << 2 | epoch);
}

/// A time as [`put_time`] writes it; of seconds alone where there is no second field.
pub(crate) fn time(inode: &[u8], at: usize, extra: Option<usize>) -> Timestamp {
    let extra = extra.map_or(0, |extra| le32(inode, extra));
    let seconds = i64::from(le32(inode, at).cast_signed()) + (i64::from(extra & 3) << 32);
    Timestamp { seconds, nanos: extra >> 2 }
}

pub(crate) fn put(record: &mut [u8], at: usize, bytes: &[u8]) {
    record[at..at + bytes.len()].copy_from_slice(bytes);
}

pub(crate) fn put16(record: &mut [u8], at: usize, value: u16) {
    put(record, at, &value.to_le_bytes());
}

pub(crate) fn put32(record: &mut [u8], at: usize, value: u32) {
    put(record, at, &value.to_le_bytes());
}

/// A value in two fields of 32 bits.
pub(crate) fn split(record: &mut [u8], (low, high): (usize, usize), value: u64) {
    put32(record, low, value as u32);
    put32(record, high, (value >> 32) as u32);
}

/// A value in two fields of 16 bits.
pub(crate) fn split16(record: &mut [u8], (low, high): (usize, usize), value: u32) {
    put16(record, low, value as u16);
    put16(record, high, (value >> 16) as u16);
}

/// The number that stands there, 0 behind the end of the record.
pub(crate) fn le16(record: &[u8], at: usize) -> u16 {
    record.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

/// As [`le16`].
pub(crate) fn le32(record: &[u8], at: usize) -> u32 {
    record.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// As [`le16`], of the journal, whose numbers are big-endian.
pub(crate) fn be16(record: &[u8], at: usize) -> u16 {
    record.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

/// As [`be16`].
pub(crate) fn be32(record: &[u8], at: usize) -> u32 {
    record.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// As [`be16`].
pub(crate) fn be64(record: &[u8], at: usize) -> u64 {
    u64::from(be32(record, at)) << 32 | u64::from(be32(record, at + 4))
}

/// A value as [`split`] writes it.
pub(crate) fn joined(record: &[u8], (low, high): (usize, usize)) -> u64 {
    u64::from(le32(record, low)) | u64::from(le32(record, high)) << 32
}

/// A value as [`split16`] writes it.
pub(crate) fn joined16(record: &[u8], (low, high): (usize, usize)) -> u32 {
    u32::from(le16(record, low)) | u32::from(le16(record, high)) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of `inodes.rst`, "Inode Timestamps": the extra bits count 2^32 s from 1901, not from 1970.
    #[test]
    fn times_reach_from_1901_to_2446() {
        let encoded = |seconds, nanos| {
            let mut inode = [0; 8];
            put_time(&mut inode, 0, 4, Timestamp { seconds, nanos });
            (le32(&inode, 0).cast_signed(), le32(&inode, 4))
        };
        assert_eq!(encoded(-1, 999_999_999), (-1, 999_999_999 << 2));
        assert_eq!(encoded(0x7fff_ffff, 0), (i32::MAX, 0));
        assert_eq!(encoded(0x8000_0000, 0), (i32::MIN, 1));
        assert_eq!(encoded(0x3_7fff_ffff, 5), (i32::MAX, 5 << 2 | 3));
        assert_eq!(encoded(0x3_8000_0000, 5), (i32::MAX, 3));
        assert_eq!(encoded(i64::MIN, 5), (i32::MIN, 0));
    }
}
