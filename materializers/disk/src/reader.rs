//! The partitions of a disk, and what is in them as one disk.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

use gpt::disk::LogicalBlockSize;
use gpt::header::{Header, HeaderError, read_header_from_arbitrary_device};
use gpt::partition::file_read_partitions;
use gpt::partition_types::UNUSED;
use plyfold_core::{Result, seek_to};

use crate::fault::DiskFault;
use crate::partitions::SECTOR;

/// The most entries of a table that is read, and their size: 1,024 take 128 KiB.
const ENTRIES: u32 = 1024;
const ENTRY: u32 = 128;
/// What a disk has in its second sector.
const SIGNATURE: &[u8] = b"EFI PART";

/// A partition, as the table says.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PartitionInfo {
    /// Its name, which may have any characters.
    pub name: String,
    /// Its number, from 1 on.
    pub number: u32,
    /// Its first byte on the disk.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
}

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
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for a table whose checksum is wrong, and for partitions that reach
    /// beyond the end of the disk; [`Limit`](plyfold_core::ErrorKind::Limit) for more than 1,024 entries;
    /// [`Io`](plyfold_core::ErrorKind::Io).
    pub fn new(mut source: R) -> Result<Self> {
        let length = source.seek(SeekFrom::End(0)).map_err(reading)?;
        let header: Header = read_header_from_arbitrary_device(&mut source, LogicalBlockSize::Lb512)
            .map_err(|e| match e {
                HeaderError::Io(e) => reading(e),
                _ => DiskFault::Table.into(),
            })?;
        if header.part_size != ENTRY || header.num_parts > ENTRIES {
            return Err(DiskFault::Entries(header.num_parts, header.part_size).into());
        }
        // The kernel goes to no place of a file above 2^63.
        if header.part_start.checked_mul(SECTOR).is_none_or(|start| start >= length) {
            return Err(DiskFault::Table.into());
        }
        let entries = file_read_partitions(&mut source, &header, LogicalBlockSize::Lb512).map_err(reading)?;
        let (mut list, mut starts, mut size) = (Vec::new(), Vec::new(), 0_u64);
        // Without a type an entry is unused (UEFI Specification 2.10, 5.3.3).
        for (number, entry) in entries.into_iter().filter(|(_, entry)| entry.part_type_guid != UNUSED) {
            let end = entry.last_lba.checked_add(1).and_then(|end| end.checked_mul(SECTOR));
            let start = entry.first_lba.checked_mul(SECTOR);
            let (Some(start), Some(end)) = (start, end.filter(|end| *end <= length)) else {
                return Err(DiskFault::Beyond(number).into());
            };
            let own = end.checked_sub(start).ok_or(DiskFault::Beyond(number))?;
            starts.push(size);
            size = size.checked_add(own).ok_or(DiskFault::Size)?;
            list.push(PartitionInfo { name: entry.name, number, start, size: own });
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

/// What the crate `gpt` says of a table is an error of its own kind, as is the end of the file.
fn reading(error: io::Error) -> plyfold_core::Error {
    match error.kind() {
        ErrorKind::Other | ErrorKind::UnexpectedEof if error.raw_os_error().is_none() => {
            DiskFault::Table.into()
        }
        _ => plyfold_core::Error::io("reading a partition table", error),
    }
}
