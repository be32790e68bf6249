//! A partition table as Linux takes it (`block/partitions/efi.c`): what the kernel refuses is refused here, and what it and
//! libblkid show differently, too.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

use flate2::Crc;
use plyfold_core::{Error, Result};

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

/// The partitions in the order of their numbers.
pub(crate) fn read(source: &mut (impl Read + Seek)) -> Result<Vec<PartitionInfo>> {
    let sectors = source.seek(SeekFrom::End(0)).map_err(reading)? / SECTOR;
    let mut start = [0; 2 * SECTOR as usize];
    source.rewind().and_then(|()| source.read_exact(&mut start)).map_err(reading)?;
    let (mbr, header) = start.split_at(SECTOR as usize);
    let header = Header::of(header, sectors)?;
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
    Ok(list)
}

/// What a valid header says.
struct Header {
    /// The first sector of partitions, and the last.
    usable: (u64, u64),
    /// The first byte of the entries on the disk, their number and their checksum.
    start: u64,
    entries: u32,
    crc32: u32,
}

impl Header {
    /// A header on a disk of so many sectors: `is_gpt_valid` of Linux, and the usable sectors as libblkid has it.
    fn of(sector: &[u8], sectors: u64) -> Result<Self> {
        let length = usize::try_from(u32_at(sector, 12)).unwrap_or(usize::MAX);
        let whole = sector.get(..length).filter(|header| header.len() >= HEADER as usize);
        let whole = whole.filter(|header| header.starts_with(SIGNATURE)).ok_or(DiskFault::Table)?;
        // The checksum is taken with zeros in its own place.
        if crc32(&[&whole[..16], &[0; 4], &whole[20..]]) != u32_at(sector, 16) {
            return Err(DiskFault::Table.into());
        }
        let usable = (u64_at(sector, 40), u64_at(sector, 48));
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
        Ok(Self { usable, start: first * SECTOR, entries, crc32: u32_at(sector, 88) })
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
        Ok(PartitionInfo { name, number, start: first * SECTOR, size: (last - first + 1) * SECTOR })
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
