//! The extents of a compressed file as records (Linux 6.15).

use std::io::{Read, Seek};

use plyfold_core::Result;
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::super::source::ImageBytes;
use crate::compress::format::{EXTENT_MAX, ExtentRecord, RECORD_SIZE};
use crate::fault::ErofsFault;

/// Where the records of a file stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Records {
    start: u64,
    count: u64,
    /// Bytes of one: 4, 8, 16 or 32.
    size: u64,
    /// log2 of the bytes of an extent, where all have as many.
    bits: u32,
    /// Where clusters follow each other: a record that was read, and where its cluster stands.
    known: Option<(u64, u64)>,
}

/// What a record says of an extent.
pub(super) struct Recorded {
    pub(super) start: u64,
    pub(super) end: u64,
    /// As [`ExtentRecord::cluster`].
    pub(super) cluster: u32,
    /// Where its cluster stands.
    pub(super) at: u64,
    /// Where it stands in the packed inode, if it is a fragment.
    pub(super) fragment: u64,
    pub(super) is_last: bool,
}

impl Records {
    /// Those from the byte `start` on for a file of `size` bytes. Where records do not say where extents start, there
    /// is one for each `1 << bits` bytes.
    pub(super) fn new(start: u64, form: u16, count: u64, bits: u32, size: u64) -> Result<Self> {
        let bytes = 4 << form;
        let start = start.next_multiple_of(bytes);
        let is_even = bytes < 16;
        if is_even && 1 << bits > EXTENT_MAX {
            return Err(ErofsFault::ExtentLong(1 << bits).into());
        }
        let count = if is_even { size.div_ceil(1 << bits) } else { count };
        Ok(Self { start, count, size: bytes, bits, known: None })
    }

    /// Bytes of all of them.
    pub(super) fn size_on_disk(&self) -> u64 {
        self.count.saturating_mul(self.size).saturating_add(8)
    }

    fn record<R: Read + Seek>(&self, source: &mut ImageBytes<R>, index: u64) -> Result<ExtentRecord> {
        // In front of the smallest ones stands where the first cluster is.
        let first = if self.size == 4 { self.start + 8 } else { self.start };
        let mut record = ExtentRecord::new_zeroed();
        source.metadata(first + index * self.size, &mut record.as_mut_bytes()[..self.size as usize])?;
        Ok(record)
    }

    /// Where the cluster of a record stands.
    fn cluster<R: Read + Seek>(
        &mut self,
        source: &mut ImageBytes<R>,
        index: u64,
        record: &ExtentRecord,
    ) -> Result<u64> {
        if self.size > 4 {
            return Ok(u64::from(record.start_hi) << 32 | u64::from(record.start));
        }
        let (mut at, mut place) = match self.known {
            Some(known) if known.0 <= index => known,
            _ => (0, source.record::<zerocopy::little_endian::U64>(self.start)?.get()),
        };
        while at < index {
            place = place.saturating_add(u64::from(self.record(source, at)?.cluster.get() & RECORD_SIZE));
            at += 1;
        }
        self.known = Some((at, place));
        Ok(place)
    }

    /// The extent that has a byte of a file of `size` bytes.
    pub(super) fn find<R: Read + Seek>(
        &mut self,
        source: &mut ImageBytes<R>,
        offset: u64,
        size: u64,
    ) -> Result<Recorded> {
        let (index, record, start, end) = self.search(source, offset, size)?;
        let (cluster, at) = (record.cluster.get(), self.cluster(source, index, &record)?);
        let upper = if self.size > 4 { record.start.get() } else { 0 };
        let fragment = u64::from(upper) << 32 | u64::from(cluster);
        Ok(Recorded { start, end, cluster, at, fragment, is_last: index + 1 == self.count })
    }

    /// The number of its record, the record, where the extent starts, and where the next one does.
    fn search<R: Read + Seek>(
        &self,
        source: &mut ImageBytes<R>,
        offset: u64,
        size: u64,
    ) -> Result<(u64, ExtentRecord, u64, u64)> {
        if self.size < 16 {
            let index = offset >> self.bits;
            let start = index << self.bits;
            return Ok((index, self.record(source, index)?, start, size.min(start + (1 << self.bits))));
        }
        let start_of =
            |record: &ExtentRecord| u64::from(record.file_start_hi) << 32 | u64::from(record.file_start);
        // The first one that starts behind the byte.
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if start_of(&self.record(source, middle)?) > offset { high = middle } else { low = middle + 1 }
        }
        let index = low.checked_sub(1).ok_or(ErofsFault::Malformed("a file has no extent for a byte"))?;
        let record = self.record(source, index)?;
        let end = if low < self.count { start_of(&self.record(source, low)?) } else { size };
        Ok((index, record.clone(), start_of(&record), end))
    }
}
