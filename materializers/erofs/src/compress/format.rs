//! What stands behind the inode of a compressed file: a header, and an index for each block of the file.
//!
//! The names are those of Linux `fs/erofs/erofs_fs.h`, without the prefixes.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The header stands on the next multiple of so many bytes behind the inode.
pub(crate) const HEADER_ALIGNMENT: u64 = 8;
pub(crate) const HEADER_SIZE: u64 = size_of::<MapHeader>() as u64;
/// Between the header and full indexes.
pub(crate) const FULL_GAP: u64 = 8;
pub(crate) const FULL_SIZE: u64 = size_of::<FullIndex>() as u64;

/// The largest cluster in bytes, and the largest extent that one may hold.
pub(crate) const CLUSTER_MAX: u32 = 1 << 20;
pub(crate) const EXTENT_MAX: u64 = 12 << 20;

pub(crate) const LZMA_DICTIONARY_MAX: u32 = 8 << 20;

pub(crate) const LZ4: u8 = 0;
pub(crate) const LZMA: u8 = 1;
pub(crate) const DEFLATE: u8 = 2;
pub(crate) const ZSTD: u8 = 3;

/// Of compact indexes: packs of 16 may be among them.
pub(crate) const ADVISE_2B: u16 = 1;
/// Of full indexes: there are records of extents instead (Linux 6.15), and bits 1 and 2 are log2 of their size in units of
/// 4 bytes.
pub(crate) const ADVISE_EXTENTS: u16 = 1;
/// Clusters of the first algorithm may have more than one block.
pub(crate) const ADVISE_BIG_1: u16 = 2;
/// Those of the second one, and plain ones.
pub(crate) const ADVISE_BIG_2: u16 = 4;
/// The last cluster stands behind the indexes.
pub(crate) const ADVISE_INLINE: u16 = 8;
/// Bytes of plain clusters keep their place within a block.
pub(crate) const ADVISE_INTERLACED: u16 = 0x10;
/// The last extent is part of the packed inode.
pub(crate) const ADVISE_FRAGMENT: u16 = 0x20;
pub(crate) const ADVISE_ALL: u16 = 0x3f;
/// In `clusterbits`: the whole file is part of the packed inode.
pub(crate) const WHOLE_FRAGMENT: u8 = 0x80;

/// An extent that is not compressed starts in the block.
pub(crate) const PLAIN: u8 = 0;
/// One of the first algorithm starts in it.
pub(crate) const HEAD1: u8 = 1;
/// No extent starts in it.
pub(crate) const NONHEAD: u8 = 2;
/// One of the second algorithm starts in it.
pub(crate) const HEAD2: u8 = 3;
/// In a full index: the extent has a part of its cluster.
pub(crate) const PARTIAL: u16 = 1 << 15;
/// In a distance: what follows is not one, but the number of the cluster's blocks.
pub(crate) const BLOCKS: u16 = 1 << 11;

/// What is said of all indexes of a file.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct MapHeader {
    /// The place of a fragment in the packed inode; else 0, and in the upper half the size of the inline cluster.
    pub(crate) fragmentoff: U32,
    pub(crate) advise: U16,
    /// Both algorithms, 4 bits each.
    pub(crate) algorithms: u8,
    /// Bits 0 to 3: log2 of the blocks that an index is for.
    pub(crate) clusterbits: u8,
}

/// The record of an extent. The smaller ones are its start: without `file_start` all extents have one length, and with
/// `cluster` alone their clusters follow each other.
#[derive(Clone, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct ExtentRecord {
    /// The size of the cluster in bytes ([`RECORD_SIZE`]), [`RECORD_PARTIAL`], and from bit 28 on the number of the
    /// algorithm and 1, or 0. For a fragment where it stands.
    pub(crate) cluster: U32,
    /// Where the cluster stands, in bytes from the start of the image.
    pub(crate) start: U32,
    pub(crate) start_hi: U32,
    /// Where the extent stands in the file.
    pub(crate) file_start: U32,
    pub(crate) file_start_hi: U32,
    pub(crate) reserved: [u8; 12],
}

pub(crate) const RECORD_SIZE: u32 = (CLUSTER_MAX << 1) - 1;
/// The extent has a part of its cluster.
pub(crate) const RECORD_PARTIAL: u32 = 1 << 27;

#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct FullIndex {
    pub(crate) advise: U16,
    pub(crate) clusterofs: U16,
    /// The first block of the cluster, or both distances: to the block where the extent starts, to the next such block.
    pub(crate) location: U32,
}

/// Where the compact indexes of a file stand: first packs of 2, up to a multiple of 32 bytes, then packs of 16, then
/// packs of 2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Packs {
    /// The first pack.
    start: u64,
    /// How many indexes there are: in the first packs of 2, in packs of 16, and at all.
    initial: u64,
    dense: u64,
    total: u64,
}

/// One pack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Pack {
    pub(crate) start: u64,
    /// Its indexes: 2 or 16.
    pub(crate) count: u64,
    /// The first of them.
    pub(crate) first: u64,
}

impl Pack {
    pub(crate) fn size(&self) -> u64 {
        if self.count == 2 { 8 } else { 32 }
    }

    /// Bits of one index.
    pub(crate) fn bits(&self) -> u64 {
        (self.size() * 8 - 32) / self.count
    }
}

impl Packs {
    /// Those of `total` indexes from the byte `start` on.
    pub(crate) fn new(start: u64, total: u64, has_dense: bool) -> Self {
        let initial = (32 - start % 32) / 4 % 8;
        let dense = if has_dense { total.saturating_sub(initial) / 16 * 16 } else { 0 };
        Self { start, initial, dense, total }
    }

    /// Those of a file of `blocks` blocks behind an inode which ends, with its xattrs, at `end`.
    pub(crate) fn behind(end: u64, blocks: u64) -> Self {
        Self::new(end.next_multiple_of(HEADER_ALIGNMENT) + HEADER_SIZE, blocks, true)
    }

    /// The byte behind the last pack.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.size()
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The pack that has an index.
    pub(crate) fn of(&self, index: u64) -> Pack {
        let sparse = |start: u64, base: u64| {
            let first = (index - base) / 2 * 2;
            Pack { start: start + first * 4, count: 2, first: base + first }
        };
        let dense = self.initial..self.initial + self.dense;
        let behind = self.start + self.initial * 4 + self.dense * 2;
        if index < dense.start {
            sparse(self.start, 0)
        } else if index < dense.end {
            let first = (index - dense.start) / 16 * 16;
            Pack { start: self.start + self.initial * 4 + first * 2, count: 16, first: dense.start + first }
        } else {
            sparse(behind, dense.end)
        }
    }

    /// The bytes of all packs.
    pub(crate) fn size(&self) -> u64 {
        self.total.checked_sub(1).map_or(0, |last| {
            let pack = self.of(last);
            pack.start + pack.size() - self.start
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Pack, Packs};

    #[test]
    fn packs_follow_each_other() {
        for start in [0, 8, 16, 24_u64] {
            for total in 1..200 {
                let packs = Packs::new(start, total, true);
                let (mut at, mut index) = (start, 0);
                while index < total {
                    let pack = packs.of(index);
                    assert_eq!((pack.start, pack.first), (at, index), "{start} {total}");
                    assert!(pack.count == 2 || pack.start.is_multiple_of(32));
                    assert!((index..(index + pack.count).min(total)).all(|other| packs.of(other) == pack));
                    at += pack.size();
                    index += pack.count;
                }
                assert_eq!(packs.size(), at - start);
            }
        }
        assert_eq!(Packs::new(8, 100, false).size(), 400);
        assert_eq!(Packs::new(8, 6 + 32 + 1, true).size(), 24 + 64 + 8);
        let pack = Packs::new(8, 39, true).of(37);
        assert_eq!((pack, pack.bits()), (Pack { start: 64, count: 16, first: 22 }, 14));
    }
}
