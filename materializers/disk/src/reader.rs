//! The partitions of a disk, and what is in them as one disk.

use std::io::{self, Read, Seek, SeekFrom};

use plyfold_core::{Error, Result, seek_to};

use crate::partitions::SECTOR;
use crate::table::{self, PartitionInfo, PartitionTable, SIGNATURE};

/// What is in the partitions of a disk, one behind the other in the order of their numbers: the disk of
/// [`Raw`](crate::Raw), where [`Gpt`](crate::Gpt) has made it.
#[derive(Debug)]
pub struct Partitions<R> {
    source: R,
    table: PartitionTable,
    /// The first that is read.
    first: usize,
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
    /// says of the disk, also where Linux or libblkid would take the one at the end, and for a disk that is cut, with
    /// [`DiskFault::Short`](crate::DiskFault::Short); for a disk without a protective MBR,
    /// where Linux finds no partitions; and for partitions that are outside of the usable sectors or overlap.
    /// [`Limit`](plyfold_core::ErrorKind::Limit) for more than 1,024 entries; [`Io`](plyfold_core::ErrorKind::Io).
    pub fn new(mut source: R) -> Result<Self> {
        let size = source.seek(SeekFrom::End(0)).map_err(|e| Error::io("reading a partition table", e))?;
        let table = table::read(&mut source, Some(size))?;
        Ok(Self { source, table, first: 0, starts: Vec::new(), size: 0, position: 0 }.starting_with(0))
    }

    /// The same without the partitions in front of one, by its place in the list.
    #[must_use]
    pub fn starting_with(mut self, first: usize) -> Self {
        (self.first, self.size, self.position) = (first, 0, 0);
        self.starts.clear();
        for partition in self.table.partitions.iter().skip(first) {
            self.starts.push(self.size);
            // They share no sector: together they are no larger than the disk.
            self.size = self.size.saturating_add(partition.size);
        }
        self
    }

    /// The same with the partitions behind the first that is read at these places, in bytes from its start: what is behind the data
    /// of a partition, such as a hash tree, is not read. Partitions without a place are left out.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for places that are not in ascending order.
    pub fn with_places(mut self, places: &[u64]) -> Result<Self> {
        self.position = 0;
        self.starts = std::iter::once(0).chain(places.iter().copied()).collect();
        self.starts.truncate(self.table.partitions.len().saturating_sub(self.first));
        if !self.starts.is_sorted_by(|before, after| before < after) {
            return Err(Error::corrupt("the devices of the image are not one behind the other"));
        }
        let last = self.starts.len().checked_sub(1);
        let size =
            last.and_then(|last| Some(self.starts.get(last)? + self.list().get(self.first + last)?.size));
        self.size = size.unwrap_or_default();
        Ok(self)
    }

    /// The partitions in the order of their numbers.
    pub fn list(&self) -> &[PartitionInfo] {
        &self.table.partitions
    }

    /// The whole table.
    pub fn table(&self) -> &PartitionTable {
        &self.table
    }
}

impl<R: Read + Seek> Read for Partitions<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let index = self.starts.partition_point(|start| *start <= self.position).checked_sub(1);
        let found = index.and_then(|index| {
            let partition = self.list().get(self.first + index)?;
            let within = self.position - self.starts.get(index)?;
            let next = self.starts.get(index + 1).map_or(u64::MAX, |next| next - self.position);
            Some((partition.start + within, partition.size.saturating_sub(within).min(next)))
        });
        let Some((at, left)) = found.filter(|_| self.position < self.size) else { return Ok(0) };
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        self.source.seek(SeekFrom::Start(at))?;
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
