//! What stands behind the inode of a compressed file, for metadata that is written anew.

use std::io::{Read, Seek};

use plyfold_core::Result;
use zerocopy::IntoBytes as _;

use super::super::image::Reader;
use super::decode::decode;
use super::extent::{Coding, Extent, Place};
use super::header::{FileMap, Indexes, Tail};
use super::index::BlockIndex;
use crate::compress::format::{
    ADVISE_2B, ADVISE_INLINE, BLOCKS, FULL_GAP, FULL_SIZE, FullIndex, HEAD1, HEADER_ALIGNMENT, MapHeader,
    NONHEAD, PARTIAL,
};
use crate::fault::ErofsFault;

/// The most bytes of header, indexes and last cluster that are copied for one file: they are held in memory.
const LENGTH_MAX: u64 = 64 << 20;
/// The largest distance that an index has: the next bit has another meaning.
const DISTANCE_MAX: u64 = BLOCKS as u64 - 1;

/// What stands behind the inode of a compressed file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptFile {
    /// Of the inode: the form of the indexes.
    pub(crate) layout: u16,
    /// Of the clusters.
    pub(crate) blocks: u32,
    /// Where header, indexes and last cluster stand, in bytes from the start of the image, and how many bytes they have.
    pub(crate) at: u64,
    pub(crate) length: u64,
    /// Bytes of the last cluster, if it stands there.
    pub(crate) tail: u32,
    /// Whether the form of the indexes depends on the place of the header in 32 bytes.
    pub(crate) is_packed: bool,
}

impl<R: Read + Seek> Reader<R> {
    /// Where all that stands behind the inode of a compressed file is.
    ///
    /// # Errors
    /// [`Limit`](plyfold_core::ErrorKind::Limit) for more than 64 MiB of it.
    pub(crate) fn kept_file(&mut self, nid: u64) -> Result<KeptFile> {
        let (inode, end) = self.inode_to(nid)?;
        let map = FileMap::read(&mut self.source, &self.superblock, &inode, end)?;
        if let Indexes::Extents(_) = map.indexes {
            return Err(ErofsFault::FileLayout(inode.layout()).into());
        }
        let tail = if let Tail::Inline(bytes) = map.tail { bytes.into() } else { 0 };
        let length = map.size_on_disk().saturating_add(u64::from(tail));
        if length > LENGTH_MAX {
            return Err(ErofsFault::IndexesLong(length, LENGTH_MAX).into());
        }
        Ok(KeptFile {
            layout: inode.layout(),
            blocks: inode.location.get(),
            at: end.next_multiple_of(HEADER_ALIGNMENT),
            length,
            tail,
            is_packed: matches!(map.indexes, Indexes::Compact(_)),
        })
    }

    /// Header and indexes of a file, which stand at `at`, as full indexes: the form that is the same at every place. A last
    /// cluster that stands behind its indexes is in the block `moved` then.
    pub(crate) fn in_full_form(&mut self, nid: u64, at: u64, moved: Option<u32>) -> Result<Vec<u8>> {
        let map = self.file_map(nid)?;
        let length = map.blocks().saturating_add(2).saturating_mul(FULL_SIZE);
        if length > LENGTH_MAX {
            return Err(ErofsFault::IndexesLong(length, LENGTH_MAX).into());
        }
        let last = map.last_head(&mut self.source)?;
        let mut header: MapHeader = self.source.record(at)?;
        header.advise &= !ADVISE_2B;
        if moved.is_some() {
            header.advise &= !ADVISE_INLINE;
            header.fragmentoff = 0.into();
        }
        let mut indexes = FullIndexes { map: &map, indexes: Vec::new(), head: None };
        for block in 0..map.blocks() {
            let index = map.index(&mut self.source, block)?.0;
            indexes.push(index);
        }
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(bytes.len() + FULL_GAP as usize, 0);
        bytes.extend_from_slice(indexes.finish(last as usize, moved).as_bytes());
        Ok(bytes)
    }

    /// The last cluster of a file of `size` bytes, which stands behind its indexes, as it stands in a block of its own.
    pub(crate) fn last_cluster(&mut self, nid: u64, size: u64) -> Result<Vec<u8>> {
        let mut map = self.file_map(nid)?;
        let Extent { start, end, place } = map.extent(&mut self.source, size.saturating_sub(1))?;
        let Place::Cluster(cluster) = place else {
            return Err(ErofsFault::Malformed("a last cluster is in the packed inode").into());
        };
        let block_size = self.superblock.block_size() as usize;
        let mut bytes = vec![0; cluster.length as usize];
        self.source.data(cluster.at, &mut bytes)?;
        let mut block = vec![0; block_size];
        let room = block_size.checked_sub(bytes.len());
        let room = room.ok_or(ErofsFault::Malformed("a last cluster does not stand in one block"))?;
        match cluster.coding {
            // Compressed data stands at the end of its blocks.
            Coding::Algorithm(_) if map.padded => block[room..].copy_from_slice(&bytes),
            Coding::Algorithm(_) | Coding::Plain => block[..bytes.len()].copy_from_slice(&bytes),
            Coding::Interlaced(first) => {
                let mut extent = vec![0; (end - start) as usize];
                decode(&cluster, &bytes, &mut extent, map.padded)?;
                for (place, byte) in extent.into_iter().enumerate() {
                    block[(first as usize + place) % block_size] = byte;
                }
            }
        }
        Ok(block)
    }

    /// The number of the inode that has the fragments of others, if there is one.
    pub(crate) fn packed_nid(&mut self) -> Option<u64> {
        // What it has is counted again when it is read again.
        self.claimed = 0;
        self.packed.as_ref().map(|_| self.superblock.packed_nid.get())
    }
}

/// Full indexes as they grow.
struct FullIndexes<'a> {
    map: &'a FileMap,
    indexes: Vec<FullIndex>,
    /// The last index where an extent starts.
    head: Option<usize>,
}

impl FullIndexes<'_> {
    fn push(&mut self, index: BlockIndex) {
        let inside = |distance: u64| FullIndex {
            advise: u16::from(NONHEAD).into(),
            clusterofs: 0.into(),
            location: (distance as u32).into(),
        };
        let full = match index {
            BlockIndex::Head { kind, offset, block, partial } => {
                self.end_extent();
                self.head = Some(self.indexes.len());
                let partial = if partial { PARTIAL } else { 0 };
                FullIndex {
                    advise: (u16::from(kind) | partial).into(),
                    clusterofs: (offset as u16).into(),
                    location: block.into(),
                }
            }
            BlockIndex::Inside(distance) => inside(distance.min(DISTANCE_MAX)),
            BlockIndex::Second(blocks) => inside(u64::from(BLOCKS) | blocks.min(DISTANCE_MAX)),
        };
        self.indexes.push(full);
    }

    /// Writes the distances to the next extent, which starts at the next index or is none.
    fn end_extent(&mut self) {
        let end = self.indexes.len();
        for (at, index) in self.indexes.iter_mut().enumerate().skip(self.head.map_or(0, |head| head + 1)) {
            let distance = ((end - at) as u64).min(DISTANCE_MAX) as u32;
            index.location = (index.location.get() & 0xffff | distance << 16).into();
        }
    }

    /// `last` is where the last extent starts.
    fn finish(mut self, last: usize, moved: Option<u32>) -> Vec<FullIndex> {
        self.end_extent();
        let Some(head) = self.indexes.get_mut(last) else { return self.indexes };
        let is_first = (head.advise.get() & 3) as u8 == HEAD1;
        let is_big = if is_first { self.map.big[0] } else { self.map.big[1] };
        match moved {
            Some(block) => head.location = block.into(),
            // The upper half of its place in the packed inode.
            None if matches!(self.map.tail, Tail::Fragment(_)) => head.location = 0.into(),
            None => return self.indexes,
        }
        let second = self.indexes.get_mut(last + 1).filter(|_| is_big && moved.is_some());
        if let Some(second) = second.filter(|second| second.advise.get() == u16::from(NONHEAD)) {
            let distance = second.location.get() & !0xffff;
            second.location = (distance | u32::from(BLOCKS | 1)).into();
        }
        self.indexes
    }
}
