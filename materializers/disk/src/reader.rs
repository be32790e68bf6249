//! The partitions of a disk, and what is in them as one disk.

use std::io::{self, Read, Seek, SeekFrom};

use plyfold_core::{Result, seek_to};

use crate::partitions::SECTOR;
use crate::table::{self, PartitionInfo, SIGNATURE};

/// What is in the partitions of a disk, one behind the other in the order of their numbers: the disk of
/// [`Raw`](crate::Raw), where [`Gpt`](crate::Gpt) has made it.
#[derive(Debug)]
pub struct Partitions<R> {
    source: R,
    list: Vec<PartitionInfo>,
    /// Where each begins among the others.
    starts: Vec<u64>,
    size: u64,
    position: u64,
}

/// Whether a disk that begins with these bytes, 1,024 or more, has a GUID partition table.
pub fn has_partitions(start: &[u8]) -> bool {
    start.get(SECTOR as usize..).is_some_and(|rest| rest.starts_with(SIGNATURE))
}

impl<R: Read + Seek> Partitions<R> {
    /// The partitions of a disk with sectors of 512 bytes, by its first table.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for a first table that Linux refuses, by its checksums, its place or what it
    /// says of the disk, also where Linux or libblkid would take the one at the end; for a disk without a protective MBR,
    /// where Linux finds no partitions; and for partitions that are outside of the usable sectors or overlap.
    /// [`Limit`](plyfold_core::ErrorKind::Limit) for more than 1,024 entries; [`Io`](plyfold_core::ErrorKind::Io).
    pub fn new(mut source: R) -> Result<Self> {
        let list = table::read(&mut source)?;
        let (mut starts, mut size) = (Vec::with_capacity(list.len()), 0_u64);
        for partition in &list {
            starts.push(size);
            // They share no sector: together they are no larger than the disk.
            size = size.saturating_add(partition.size);
        }
        Ok(Self { source, list, starts, size, position: 0 })
    }

    /// The partitions in the order of their numbers.
    pub fn list(&self) -> &[PartitionInfo] {
        &self.list
    }
}

impl<R: Read + Seek> Read for Partitions<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let index = self.starts.partition_point(|start| *start <= self.position).checked_sub(1);
        let found = index.and_then(|index| Some((self.starts.get(index)?, self.list.get(index)?)));
        let Some((first, partition)) = found.filter(|_| self.position < self.size) else { return Ok(0) };
        let within = self.position - first;
        let left = usize::try_from(partition.size.saturating_sub(within)).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        self.source.seek(SeekFrom::Start(partition.start + within))?;
        let count = self.source.read(buffer.get_mut(..wanted).unwrap_or_default())?;
        self.position += count as u64;
        Ok(count)
    }
}

impl<R: Read + Seek> Seek for Partitions<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = seek_to(to, self.position, self.size)?;
        Ok(self.position)
    }
}
