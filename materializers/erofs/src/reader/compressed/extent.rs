//! The extents of a compressed file, and where their clusters are.

use std::io::{Read, Seek};

use plyfold_core::Result;

use super::super::source::ImageBytes;
use super::header::{FileMap, Indexes, Tail};
use super::index::BlockIndex;
use super::records::Recorded;
use crate::compress::format::{CLUSTER_MAX, EXTENT_MAX, HEAD1, HEAD2, PLAIN, RECORD_PARTIAL, RECORD_SIZE};
use crate::fault::ErofsFault;

/// Neighbouring bytes of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) place: Place,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// In the packed inode, from this byte on.
    Fragment(u64),
    /// Zeros.
    Hole,
    Cluster(Cluster),
}

/// What an extent is made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cluster {
    /// In bytes from the start of the image.
    pub(super) at: u64,
    pub(super) length: u32,
    pub(super) coding: Coding,
    /// It has more than the extent.
    pub(super) partial: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Coding {
    Plain,
    /// Plain, each byte at its own place within a block: the first one at this.
    Interlaced(u64),
    Algorithm(u8),
}

/// The index where an extent starts.
#[derive(Clone, Copy)]
struct Head {
    /// The block of the file.
    index: u64,
    kind: u8,
    start: u64,
    block: u32,
    partial: bool,
}

impl FileMap {
    /// The extent that has a byte of the file.
    pub(super) fn extent<R: Read + Seek>(
        &mut self,
        source: &mut ImageBytes<R>,
        offset: u64,
    ) -> Result<Extent> {
        let extent = self.indexed(source, offset)?;
        // Indexes refer to the first one of their extent over others, which may be of other extents.
        if extent.end > self.size || !(extent.start..extent.end).contains(&offset) {
            return Err(ErofsFault::Malformed("the extents of a file are not in order").into());
        }
        Ok(extent)
    }

    /// The extent that is said to have a byte of the file.
    fn indexed<R: Read + Seek>(&mut self, source: &mut ImageBytes<R>, offset: u64) -> Result<Extent> {
        if let Indexes::Extents(mut records) = self.indexes {
            let found = records.find(source, offset, self.size);
            self.indexes = Indexes::Extents(records);
            return self.recorded(&found?);
        }
        if let (Indexes::Nothing, Tail::Fragment(at)) = (self.indexes, self.tail) {
            return Ok(Extent { start: 0, end: self.size, place: Place::Fragment(at) });
        }
        let head = self.head(source, offset)?;
        let start = head.start;
        if matches!(self.tail, Tail::Cluster) {
            let end = self.end(source, &head)?;
            let length = self.cluster_length(source, &head)?;
            return self.in_cluster(&head, end, u64::from(head.block) << self.block_bits, length);
        }
        // Whether it is the last one: the last byte has the same head.
        let last = self.head(source, self.size.saturating_sub(1))?;
        match self.tail {
            Tail::Fragment(low) if last.index == head.index => {
                let high = if matches!(self.indexes, Indexes::Full(_)) { head.block } else { 0 };
                let place = Place::Fragment(low | u64::from(high) << 32);
                Ok(Extent { start, end: self.size, place })
            }
            Tail::Inline(length) if last.index == head.index => {
                // It stands behind the last pack.
                let (_, at) = self.index(source, self.blocks() - 1)?;
                let block_size = 1 << self.block_bits;
                if at % block_size + u64::from(length) > block_size {
                    return Err(ErofsFault::Malformed("a last cluster does not stand in one block").into());
                }
                self.in_cluster(&head, self.size, at, length.into())
            }
            _ => {
                let end = self.end(source, &head)?;
                let length = self.cluster_length(source, &head)?;
                self.in_cluster(&head, end, u64::from(head.block) << self.block_bits, length)
            }
        }
    }

    /// As [`FileMap::extent`], of a file that has records of its extents.
    fn recorded(&self, found: &Recorded) -> Result<Extent> {
        let Recorded { start, end, cluster, at, .. } = *found;
        if found.is_last && matches!(self.tail, Tail::Fragment(_)) {
            return Ok(Extent { start, end, place: Place::Fragment(found.fragment) });
        }
        let length = cluster & RECORD_SIZE;
        if length == 0 {
            return Ok(Extent { start, end, place: Place::Hole });
        }
        let bytes = end.saturating_sub(start);
        if bytes > EXTENT_MAX {
            return Err(ErofsFault::ExtentLong(bytes).into());
        }
        if length > CLUSTER_MAX {
            return Err(ErofsFault::ClusterLong(length).into());
        }
        let block = (1 << self.block_bits) - 1;
        let coding = match (cluster >> 28).checked_sub(1) {
            Some(algorithm) => {
                self.check_algorithm(algorithm as u8)?;
                Coding::Algorithm(algorithm as u8)
            }
            None if bytes > length.into() => {
                return Err(ErofsFault::Malformed("a plain cluster is shorter than its extent").into());
            }
            None if self.interlaced && (at | u64::from(length)) & block == 0 => {
                Coding::Interlaced(start & block)
            }
            None => Coding::Plain,
        };
        let partial = cluster & RECORD_PARTIAL != 0;
        Ok(Extent { start, end, place: Place::Cluster(Cluster { at, length, coding, partial }) })
    }

    fn in_cluster(&self, head: &Head, end: u64, at: u64, length: u32) -> Result<Extent> {
        let (start, block_size) = (head.start, 1 << self.block_bits);
        let bytes = end.saturating_sub(start);
        if bytes > EXTENT_MAX {
            return Err(ErofsFault::ExtentLong(bytes).into());
        }
        if length > CLUSTER_MAX {
            return Err(ErofsFault::ClusterLong(length).into());
        }
        let coding = match head.kind {
            HEAD1 => Coding::Algorithm(self.algorithms[0]),
            HEAD2 => Coding::Algorithm(self.algorithms[1]),
            _ if bytes > length.into() => {
                return Err(ErofsFault::Malformed("a plain cluster is shorter than its extent").into());
            }
            _ if !self.interlaced => Coding::Plain,
            _ if u64::from(length) > block_size => {
                return Err(ErofsFault::Malformed("an interlaced cluster has more than a block").into());
            }
            _ => Coding::Interlaced(start % block_size),
        };
        let place = Place::Cluster(Cluster { at, length, coding, partial: head.partial });
        Ok(Extent { start, end, place })
    }

    /// The index where the last extent starts.
    pub(super) fn last_head<R: Read + Seek>(&self, source: &mut ImageBytes<R>) -> Result<u64> {
        match self.indexes {
            Indexes::Nothing => Ok(0),
            _ => Ok(self.head(source, self.size.saturating_sub(1))?.index),
        }
    }

    /// The start of the extent that has a byte.
    fn head<R: Read + Seek>(&self, source: &mut ImageBytes<R>, offset: u64) -> Result<Head> {
        let last = offset >> self.block_bits;
        let mut index = last;
        loop {
            let distance = match self.index(source, index)?.0 {
                BlockIndex::Head { kind, offset: at, block, partial } => {
                    let start = (index << self.block_bits) + at;
                    if start <= offset {
                        return Ok(Head { index, kind, start, block, partial });
                    }
                    1
                }
                BlockIndex::Inside(distance) => distance,
                BlockIndex::Second(_) => 1,
            };
            let before = index.checked_sub(distance).filter(|_| distance > 0);
            index = before.ok_or(ErofsFault::Malformed("an extent starts before its file"))?;
            self.check_distance(index, last)?;
        }
    }

    /// The end of the extent.
    fn end<R: Read + Seek>(&self, source: &mut ImageBytes<R>, head: &Head) -> Result<u64> {
        let mut index = head.index + 1;
        while index < self.blocks() {
            if let BlockIndex::Head { offset, .. } = self.index(source, index)?.0 {
                return Ok((index << self.block_bits) + offset);
            }
            index += 1;
            self.check_distance(head.index, index)?;
        }
        Ok(self.size)
    }

    /// Bounds how many indexes are read for one extent.
    fn check_distance(&self, first: u64, last: u64) -> Result<()> {
        let bytes = (last - first).saturating_sub(2) << self.block_bits;
        if bytes > EXTENT_MAX { Err(ErofsFault::ExtentLong(bytes).into()) } else { Ok(()) }
    }

    /// The size of its cluster in bytes.
    fn cluster_length<R: Read + Seek>(&self, source: &mut ImageBytes<R>, head: &Head) -> Result<u32> {
        let big = if head.kind == HEAD1 { self.big[0] } else { self.big[1] };
        let block_size = 1 << self.block_bits;
        if !big || head.index + 1 >= self.blocks() {
            return Ok(block_size);
        }
        match self.index(source, head.index + 1)?.0 {
            BlockIndex::Second(blocks @ 1..) => Ok((blocks as u32) << self.block_bits),
            BlockIndex::Head { .. } => Ok(block_size),
            _ if head.kind == PLAIN => Ok(block_size),
            _ => Err(ErofsFault::Malformed("a big cluster has no size").into()),
        }
    }
}
