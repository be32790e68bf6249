//! The header behind the inode of a compressed file.

use std::io::{Read, Seek};

use plyfold_core::Result;

use super::super::source::ImageBytes;
use super::records::Records;
use crate::compress::format::{
    ADVISE_2B, ADVISE_ALL, ADVISE_BIG_1, ADVISE_BIG_2, ADVISE_EXTENTS, ADVISE_FRAGMENT, ADVISE_INLINE,
    ADVISE_INTERLACED, FULL_GAP, FULL_SIZE, HEADER_ALIGNMENT, HEADER_SIZE, MapHeader, Packs, WHOLE_FRAGMENT,
    ZSTD,
};
use crate::fault::ErofsFault;
use crate::format::{INCOMPAT_CONFIGS, INCOMPAT_PADDING, Inode, LAYOUT_COMPACT, Superblock};

/// How the clusters of a file are found.
#[derive(Clone, Debug)]
pub(in crate::reader) struct FileMap {
    pub(super) size: u64,
    /// log2 of a block.
    pub(super) block_bits: u32,
    pub(super) indexes: Indexes,
    /// Of `HEAD1` and `HEAD2`.
    pub(super) algorithms: [u8; 2],
    /// Whether clusters may have more than one block: those of `HEAD1`, and all others.
    pub(super) big: [bool; 2],
    pub(super) interlaced: bool,
    /// Clusters stand at the end of their blocks, and not at their start.
    pub(super) padded: bool,
    /// Algorithms that the superblock lists, a bit for each.
    pub(super) listed: u16,
    pub(super) tail: Tail,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Indexes {
    /// The file is one fragment.
    Nothing,
    Compact(Packs),
    /// From this byte on.
    Full(u64),
    Extents(Records),
}

/// Where the last extent is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tail {
    Cluster,
    /// Behind the indexes: bytes.
    Inline(u16),
    /// In the packed inode, from this byte on. With full indexes the upper half is in the index.
    Fragment(u64),
}

impl FileMap {
    /// Reads the header of a file whose inode and xattrs end at `end`.
    pub(in crate::reader) fn read<R: Read + Seek>(
        source: &mut ImageBytes<R>,
        superblock: &Superblock,
        inode: &Inode,
        end: u64,
    ) -> Result<Self> {
        let start = end.next_multiple_of(HEADER_ALIGNMENT);
        let header: MapHeader = source.record(start)?;
        let mut map = Self {
            size: inode.size.get(),
            block_bits: superblock.blkszbits.into(),
            indexes: Indexes::Nothing,
            algorithms: [header.algorithms & 15, header.algorithms >> 4],
            big: [false; 2],
            interlaced: false,
            padded: superblock.feature_incompat & INCOMPAT_PADDING != 0,
            listed: listed(superblock),
            tail: Tail::Cluster,
        };
        if header.clusterbits & WHOLE_FRAGMENT != 0 {
            let low = u64::from(header.fragmentoff) | u64::from(header.advise) << 32;
            let high = u64::from(header.algorithms) << 48 | u64::from(header.clusterbits & 0x7f) << 56;
            map.tail = Tail::Fragment(low | high);
            return Ok(map);
        }
        let advise = header.advise.get();
        let is_compact = inode.layout() == LAYOUT_COMPACT;
        if !is_compact && advise & ADVISE_EXTENTS != 0 {
            return map.with_extents(&header, start + HEADER_SIZE);
        }
        if header.clusterbits != 0 || advise & !ADVISE_ALL != 0 {
            return Err(ErofsFault::ClusterForm(advise, header.clusterbits).into());
        }
        map.big = [ADVISE_BIG_1, ADVISE_BIG_2].map(|bit| advise & bit != 0);
        if is_compact && map.big[0] != map.big[1] {
            return Err(ErofsFault::Malformed("compact indexes are of big clusters in part").into());
        }
        for algorithm in map.algorithms {
            map.check_algorithm(algorithm)?;
        }
        map.interlaced = advise & ADVISE_INTERLACED != 0;
        let offset = header.fragmentoff.get();
        map.tail = match advise & (ADVISE_FRAGMENT | ADVISE_INLINE) {
            ADVISE_FRAGMENT => Tail::Fragment(offset.into()),
            ADVISE_INLINE if offset >> 16 > 0 => Tail::Inline((offset >> 16) as u16),
            0 | ADVISE_INLINE => Tail::Cluster,
            _ => return Err(ErofsFault::Malformed("the last extent has two places").into()),
        };
        map.indexes = if is_compact {
            Indexes::Compact(Packs::new(start + HEADER_SIZE, map.blocks(), advise & ADVISE_2B != 0))
        } else {
            Indexes::Full(start + HEADER_SIZE + FULL_GAP)
        };
        Ok(map)
    }

    /// The same with records of extents from the byte `start` on, or a few bytes behind it.
    fn with_extents(mut self, header: &MapHeader, start: u64) -> Result<Self> {
        let advise = header.advise.get();
        if advise & !ADVISE_ALL != 0 || advise & ADVISE_INLINE != 0 {
            return Err(ErofsFault::ClusterForm(advise, header.clusterbits).into());
        }
        self.interlaced = advise & ADVISE_INTERLACED != 0;
        if advise & ADVISE_FRAGMENT != 0 {
            // Where it stands is in its record.
            self.tail = Tail::Fragment(0);
        }
        let upper = u64::from(header.algorithms) | u64::from(header.clusterbits) << 8;
        let count = u64::from(header.fragmentoff) | upper << 32;
        let bits = self.block_bits + u32::from(header.clusterbits & 15);
        self.indexes = Indexes::Extents(Records::new(start, advise >> 1 & 3, count, bits, self.size)?);
        Ok(self)
    }

    pub(super) fn check_algorithm(&self, algorithm: u8) -> Result<()> {
        match algorithm {
            // The second algorithm is 0 in files that have one: images without LZ4 have it, too.
            0..=ZSTD if algorithm == 0 || self.listed >> algorithm & 1 != 0 => Ok(()),
            _ => Err(ErofsFault::Malformed(
                "a file is compressed by an algorithm that the superblock does not list",
            )
            .into()),
        }
    }

    /// Blocks of the file, each with an index.
    pub(super) fn blocks(&self) -> u64 {
        self.size.div_ceil(1 << self.block_bits)
    }

    /// Bytes that header and indexes take.
    pub(in crate::reader) fn size_on_disk(&self) -> u64 {
        match self.indexes {
            Indexes::Nothing => HEADER_SIZE,
            Indexes::Compact(packs) => HEADER_SIZE + packs.size(),
            Indexes::Full(_) => (self.blocks() + 2).saturating_mul(FULL_SIZE),
            Indexes::Extents(records) => HEADER_SIZE.saturating_add(records.size_on_disk()),
        }
    }

    /// The part of the packed inode that the file may refer to, as far as the header says: its start, and its bytes.
    pub(in crate::reader) fn fragment(&self) -> Option<(u64, u64)> {
        match (self.tail, self.indexes) {
            (Tail::Fragment(at), Indexes::Nothing) => Some((at, self.size)),
            (Tail::Fragment(at), _) => Some((at, 0)),
            _ => None,
        }
    }
}

/// The algorithms that a superblock lists: without records there is LZ4 alone.
fn listed(superblock: &Superblock) -> u16 {
    if superblock.feature_incompat & INCOMPAT_CONFIGS == 0 {
        1
    } else {
        superblock.available_compr_algs.get()
    }
}
