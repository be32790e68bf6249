//! A partition table as Linux takes it (`block/partitions/efi.c`): what the kernel refuses is refused here, and what it and
//! libblkid show differently, too.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

use flate2::Crc;
use plyfold_core::{Error, Result};
use uuid::Uuid;

use crate::fault::DiskFault;
use crate::partitions::SECTOR;

/// What a disk has in its second sector.
pub(crate) const SIGNATURE: &[u8] = b"EFI PART";
/// The most entries of a table that is read, and their size: 1,024 take 128 KiB.
const ENTRIES: u32 = 1024;
const ENTRY: u32 = 128;
/// The fewest bytes of a header.
const HEADER: u32 = 92;
/// The sector of the first header.
const OWN: u64 = 1;

/// The most sectors of a disk: its bytes fit into a signed 64-bit file offset.
const MOST: u64 = i64::MAX as u64 / SECTOR;

/// A partition table, as it says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PartitionTable {
    /// The GUID of the disk, in the order in which it is written as text.
    pub guid: [u8; 16],
    /// The size of the disk in bytes, up to the end of the table that is its last sector.
    pub disk_size: u64,
    /// The partitions in the order of their numbers.
    pub partitions: Vec<PartitionInfo>,
}

/// A partition, as the table says.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PartitionInfo {
    /// Its name, which may have any characters.
    pub name: String,
    /// Its number, from 1 on.
    pub number: u32,
    /// The GUID of its type, in the order in which it is written as text.
    pub kind: [u8; 16],
    /// Its own GUID.
    pub guid: [u8; 16],
    /// Its first byte on the disk.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
}

impl PartitionTable {
    /// The table at the start of a disk, of which no more has to be there: the rest may be in other files, as of the file
    /// `partitions.gpt` of [`VmdkGpt`](crate::VmdkGpt).
    ///
    /// # Errors
    /// Those of [`Partitions::new`](crate::Partitions::new), for what the table says by itself.
    pub fn of_start(mut source: impl Read + Seek) -> Result<Self> {
        read(&mut source, None)
    }
}

/// The table of a disk of so many bytes, or of as many as it says.
pub(crate) fn read(source: &mut (impl Read + Seek), size: Option<u64>) -> Result<PartitionTable> {
    let mut start = [0; 2 * SECTOR as usize];
    source.rewind().and_then(|()| source.read_exact(&mut start)).map_err(reading)?;
    let (mbr, header) = start.split_at(SECTOR as usize);
    let header = Header::of(header, size.map(|size| size / SECTOR))?;
    if !is_protective(mbr) {
        return Err(DiskFault::Unprotected.into());
    }
    let mut entries = vec![0; header.entries as usize * ENTRY as usize];
    source
        .seek(SeekFrom::Start(header.start))
        .and_then(|_| source.read_exact(&mut entries))
        .map_err(reading)?;
    if crc32(&[&entries]) != header.crc32 {
        return Err(DiskFault::Table.into());
    }
    // Without a type an entry is unused (UEFI Specification 2.10, 5.3.3).
    let used = (1..).zip(entries.chunks_exact(ENTRY as usize)).filter(|(_, entry)| entry[..16] != [0; 16]);
    let list: Vec<_> = used.map(|(number, entry)| header.partition(number, entry)).collect::<Result<_>>()?;
    let mut by_place: Vec<_> = list.iter().collect();
    by_place.sort_by_key(|of| of.start);
    for pair in by_place.windows(2) {
        if let [one, other] = pair
            && one.start + one.size > other.start
        {
            return Err(DiskFault::Shared(one.number.min(other.number), one.number.max(other.number)).into());
        }
    }
    let disk_size = header.last.saturating_add(1).saturating_mul(SECTOR);
    Ok(PartitionTable { guid: header.guid, disk_size, partitions: list })
}

/// What a valid header says.
struct Header {
    guid: [u8; 16],
    /// The sector of the other header, the last of the disk.
    last: u64,
    /// The first sector of partitions, and the last.
    usable: (u64, u64),
    /// The first byte of the entries on the disk, their number and their checksum.
    start: u64,
    entries: u32,
    crc32: u32,
}

impl Header {
    /// A header on a disk of so many sectors: `is_gpt_valid` of Linux, and the usable sectors as libblkid has it.
    fn of(sector: &[u8], sectors: Option<u64>) -> Result<Self> {
        let length = usize::try_from(u32_at(sector, 12)).unwrap_or(usize::MAX);
        let whole = sector.get(..length).filter(|header| header.len() >= HEADER as usize);
        let whole = whole.filter(|header| header.starts_with(SIGNATURE)).ok_or(DiskFault::Table)?;
        // The checksum is taken with zeros in its own place.
        if crc32(&[&whole[..16], &[0; 4], &whole[20..]]) != u32_at(sector, 16) {
            return Err(DiskFault::Table.into());
        }
        let (usable, last) = ((u64_at(sector, 40), u64_at(sector, 48)), u64_at(sector, 32));
        let claimed = last.checked_add(1).filter(|claimed| *claimed <= MOST).ok_or(DiskFault::Table)?;
        if let Some(there) =
            sectors.filter(|there| *there < claimed && usable.1 < claimed && usable.1 >= *there)
        {
            return Err(DiskFault::Short(claimed * SECTOR, there * SECTOR).into());
        }
        let sectors = sectors.unwrap_or(claimed);
        let is_within = OWN < usable.0 && usable.0 <= usable.1 && usable.1 < sectors;
        if u64_at(sector, 24) != OWN || !is_within {
            return Err(DiskFault::Table.into());
        }
        let (entries, size) = (u32_at(sector, 80), u32_at(sector, 84));
        if size != ENTRY || entries > ENTRIES {
            return Err(DiskFault::Entries(entries, size).into());
        }
        let first = u64_at(sector, 72);
        if entries == 0 || first >= sectors {
            return Err(DiskFault::Table.into());
        }
        let guid = guid_at(sector, 56);
        Ok(Self { guid, last, usable, start: first * SECTOR, entries, crc32: u32_at(sector, 88) })
    }

    /// One that is in use: outside of the usable sectors Linux shows it, and libblkid does not.
    fn partition(&self, number: u32, entry: &[u8]) -> Result<PartitionInfo> {
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        if first > last || first < self.usable.0 || last > self.usable.1 {
            return Err(DiskFault::Beyond(number).into());
        }
        let units = entry[56..].as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
        let units: Vec<_> = units.take_while(|unit| *unit != 0).collect();
        let name = String::from_utf16_lossy(&units);
        let (kind, guid) = (guid_at(entry, 0), guid_at(entry, 16));
        Ok(PartitionInfo {
            name,
            number,
            kind,
            guid,
            start: first * SECTOR,
            size: (last - first + 1) * SECTOR,
        })
    }
}

/// Whether a boot record says that a GUID partition table follows: `is_pmbr_valid` of Linux. It may have other partitions
/// as well.
fn is_protective(mbr: &[u8]) -> bool {
    // Four records of 16 bytes: the type is the fifth, the first sector is in those from the ninth on.
    let mut records = mbr[446..510].chunks_exact(16);
    mbr[510..] == [0x55, 0xaa]
        && records.any(|record| record[4] == 0xee && u64::from(u32_at(record, 8)) == OWN)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// A GUID, of which the first fields are little endian on a disk (UEFI Specification 2.10, appendix A).
fn guid_at(bytes: &[u8], at: usize) -> [u8; 16] {
    let stored = bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
    Uuid::from_bytes_le(stored).into_bytes()
}

fn crc32(parts: &[&[u8]]) -> u32 {
    let mut crc = Crc::new();
    for part in parts {
        crc.update(part);
    }
    crc.sum()
}

/// The end of the file is a fault of the table.
fn reading(error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => DiskFault::Table.into(),
        _ => Error::io("reading a partition table", error),
    }
}
