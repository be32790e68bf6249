//! A disk as a stream: header, descriptor, grains with a table behind each 512 of them, directory, footer.

use std::io::{Read, SeekFrom};
use std::num::NonZero;

use plyfold_core::digest::Hasher;
use plyfold_core::{Error, Output, Result};

use super::grains::{self, GRAIN};
use super::header::{AT_END, ENTRIES, Header, Marker};
use crate::SECTOR;
use crate::descriptor::cid_of;

/// What the size of the disk is a multiple of: VMware counts its disks in MiB.
const MIB: u64 = 1 << 20;
/// The largest disk in bytes: 16 TiB, whose directory has 2 MiB.
const LARGEST: u64 = 1 << 44;
/// Sectors of a descriptor, and those in front of the first grain.
const DESCRIPTOR: u64 = 20;
const OVERHEAD: u64 = 128;

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
    let mut header = Header {
        capacity,
        grain: GRAIN as u64 / SECTOR,
        descriptor: 1,
        descriptor_size: DESCRIPTOR,
        directory: AT_END,
        overhead: OVERHEAD,
        is_compressed: true,
    };
    let start = header.sector();
    header.directory = u64::from(stream.part(Marker::Directory, &directory)?);
    stream.put(&Marker::Footer.sector(1))?;
    stream.put(&header.sector())?;
    stream.put(&Marker::EndOfStream.sector(0))?;
    stream.begin(&start, &descriptor(cid_of(&content.finish()), capacity))
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

    /// Writes the header and the descriptor in front of the grains.
    fn begin(self, header: &[u8], descriptor: &str) -> Result<()> {
        self.out.seek(SeekFrom::Start(0)).map_err(writing)?;
        self.out.write_all(header).map_err(writing)?;
        let mut text = descriptor.as_bytes().to_vec();
        text.resize((DESCRIPTOR * SECTOR) as usize, 0);
        self.out.write_all(&text).map_err(writing)
    }
}

fn writing(error: std::io::Error) -> Error {
    Error::io("writing a VMDK", error)
}
