//! A disk as a stream: header, descriptor, grains with a table behind each 512 of them, directory, footer.

use std::io::{Read, SeekFrom};
use std::num::NonZero;

use plyfold_core::digest::Hasher;
use plyfold_core::{Error, Output, Result};

use super::grains::{self, GRAIN};
use super::header::{AT_END, ENTRIES, Header, Marker, field};
use crate::SECTOR;
use crate::descriptor::cid_of;

/// What the size of the disk is a multiple of: VMware counts its disks in MiB.
const MIB: u64 = 1 << 20;
/// The largest disk in bytes: 16 TiB, whose directory has 2 MiB.
const LARGEST: u64 = 1 << 44;
/// Sectors of a descriptor, and those in front of the first grain.
const DESCRIPTOR: u64 = 20;
const OVERHEAD: u64 = 128;
/// Bytes of the header with the descriptor.
const START: usize = ((1 + DESCRIPTOR) * SECTOR) as usize;
/// Where the identity of the content stands.
const CID: usize = SECTOR as usize + "# Disk DescriptorFile\nversion=1\nCID=".len();

/// The name of the file in its own descriptor, where a reader does not need it.
const NAME: &str = "rootfs.vmdk";

/// Writes the `size` bytes of a disk.
pub(super) fn write(
    disk: &mut dyn Read,
    size: u64,
    level: u32,
    threads: Option<NonZero<usize>>,
    out: &mut dyn Output,
) -> Result<()> {
    if size > LARGEST {
        return Err(Error::limit(format!("a disk of {size} bytes is larger than 16 TiB")));
    }
    let capacity = size.max(1).next_multiple_of(MIB) / SECTOR;
    let mut stream = Stream::new(out)?;
    let mut table = Vec::with_capacity(ENTRIES as usize);
    let mut directory = Vec::new();
    let mut content = Hasher::sha256();
    let mut number = 0_u64;
    grains::each(disk, level, threads, |packed| {
        let mut sector = stream.position;
        for (sectors, checksum) in packed.grains {
            table.push(if sectors == 0 { 0 } else { entry(sector)? });
            sector += sectors;
            if sectors > 0 {
                content.update(&number.to_le_bytes());
                content.update(&checksum);
            }
            number += 1;
        }
        stream.put(&packed.bytes)?;
        if table.len() as u64 == ENTRIES {
            directory.push(stream.table(&mut table)?);
        }
        Ok(())
    })?;
    let tables = capacity.div_ceil(GRAIN as u64 / SECTOR * ENTRIES) as usize;
    if directory.len() < tables {
        directory.push(stream.table(&mut table)?);
    }
    let directory = u64::from(stream.part(Marker::Directory, &directory)?);
    stream.put(&end(capacity, directory))?;
    stream.begin(&start(capacity, cid_of(&content.finish())))
}

fn header(capacity: u64, directory: u64) -> [u8; SECTOR as usize] {
    let header = Header {
        capacity,
        grain: GRAIN as u64 / SECTOR,
        descriptor: 1,
        descriptor_size: DESCRIPTOR,
        directory,
        overhead: OVERHEAD,
        is_compressed: true,
    };
    header.sector()
}

/// The header and the descriptor in front of the grains.
fn start(capacity: u64, cid: u32) -> Vec<u8> {
    let mut bytes = [&header(capacity, AT_END), descriptor(cid, capacity).as_bytes()].concat();
    bytes.resize(START, 0);
    bytes
}

/// What stands behind the directory.
fn end(capacity: u64, directory: u64) -> Vec<u8> {
    let end = [Marker::Footer.sector(1), header(capacity, directory), Marker::EndOfStream.sector(0)];
    end.concat()
}

/// Whether the first bytes and the last ones are what is written here.
pub(crate) fn is_framed(first: &[u8], last: &[u8]) -> bool {
    let long = |of: &[u8], at: usize| u64::from_le_bytes(field(of, at));
    let (capacity, directory) = (long(first, 12), long(last, SECTOR as usize + 56));
    let cid = first.get(CID..CID + 8).and_then(|cid| u32::from_str_radix(str::from_utf8(cid).ok()?, 16).ok());
    let is_sound = (MIB / SECTOR..=LARGEST / SECTOR).contains(&capacity)
        && capacity.is_multiple_of(MIB / SECTOR)
        && directory < AT_END;
    is_sound && cid.is_some_and(|cid| first == start(capacity, cid)) && last == end(capacity, directory)
}

/// The number of a sector as tables have it.
fn entry(sector: u64) -> Result<u32> {
    u32::try_from(sector).map_err(|_| Error::limit("a VMDK in one file has at most 2 TiB of compressed data"))
}

fn descriptor(cid: u32, capacity: u64) -> String {
    // As the firmware of virtual machines counts a disk of SCSI.
    let (heads, sectors) = (255, 63);
    let cylinders = (capacity / (heads * sectors)).clamp(1, 65_535);
    format!(
        "# Disk DescriptorFile\nversion=1\nCID={cid:08x}\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\n\
         # Extent description\nRW {capacity} SPARSE \"{NAME}\"\n\n# The Disk Data Base\n#DDB\n\n\
         ddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"{heads}\"\nddb.geometry.sectors = \"{sectors}\"\n\
         ddb.adapterType = \"lsilogic\"\n"
    )
}

/// The file that is written in order, in complete sectors.
struct Stream<'a> {
    out: &'a mut dyn Output,
    position: u64,
}

impl<'a> Stream<'a> {
    fn new(out: &'a mut dyn Output) -> Result<Self> {
        out.seek(SeekFrom::Start(OVERHEAD * SECTOR)).map_err(writing)?;
        Ok(Self { out, position: OVERHEAD })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.position += bytes.len() as u64 / SECTOR;
        self.out.write_all(bytes).map_err(writing)
    }

    /// Writes numbers behind their marker; yields the sector that they begin at.
    fn part(&mut self, marker: Marker, entries: &[u32]) -> Result<u32> {
        let mut bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        bytes.resize(bytes.len().next_multiple_of(SECTOR as usize), 0);
        self.put(&marker.sector(bytes.len() as u64 / SECTOR))?;
        let place = entry(self.position)?;
        self.put(&bytes)?;
        Ok(place)
    }

    /// Writes a table and empties it; yields its sector, or 0 for a table without grains, which is not written.
    fn table(&mut self, table: &mut Vec<u32>) -> Result<u32> {
        let is_empty = table.iter().all(|grain| *grain == 0);
        table.resize(ENTRIES as usize, 0);
        let place = if is_empty { 0 } else { self.part(Marker::Table, table)? };
        table.clear();
        Ok(place)
    }

    /// Writes what stands in front of the grains.
    fn begin(self, start: &[u8]) -> Result<()> {
        self.out.seek(SeekFrom::Start(0)).map_err(writing)?;
        self.out.write_all(start).map_err(writing)
    }
}

fn writing(error: std::io::Error) -> Error {
    Error::io("writing a VMDK", error)
}
