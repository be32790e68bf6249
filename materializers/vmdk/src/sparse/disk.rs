//! The bytes of a disk, out of the grains of one file.

use std::io::{self, Read, Seek, SeekFrom};

use flate2::{Decompress, FlushDecompress, Status};
use plyfold_core::{Error, Result, seek_to};

use super::grains::GRAIN_HEAD;
use super::header::{AT_END, ENTRIES, Header, field};
use crate::SECTOR;
use crate::descriptor::PARENT;

/// Where the header at the end begins, from the end of the file: behind it is the sector that ends the stream.
const FOOTER: i64 = -1024;
/// The sectors behind the header that have a descriptor for readers who do not look where it is.
const EMBEDDED: u64 = 20;
/// The tables that are looked at for data before a place is taken for such: a file may say that it has any number of them.
const TABLES: usize = 1 << 16;
/// An entry of a table for a grain of zeros. 0 stands for one, too, where no other disk is below.
const ZEROS: u32 = 1;

/// The disk in a VMDK of one file, to read from: `monolithicSparse` or `streamOptimized`. A table and a grain are in
/// memory at a time.
#[derive(Debug)]
pub struct SparseDisk<F> {
    file: F,
    header: Header,
    summary: SparseSummary,
    position: u64,
    /// The last table and the last grain that were read, and their numbers.
    table: Option<(u64, Vec<u32>)>,
    grain: Option<(u64, Vec<u8>)>,
}

/// What a VMDK of one file says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SparseSummary {
    /// The size of the disk in bytes.
    pub size: u64,
    /// The size of the file in bytes.
    pub file_size: u64,
    /// The bytes of a grain.
    pub grain_size: u64,
    /// Whether grains are compressed, as in `streamOptimized`.
    pub is_compressed: bool,
    /// The identity of the content, where the file has a descriptor.
    pub cid: Option<u32>,
}

impl<F: Read + Seek> SparseDisk<F> {
    /// The disk in a file.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for what is no such file,
    /// [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for a disk that needs another one below it, and for forms
    /// that no program writes today, [`Io`](plyfold_core::ErrorKind::Io).
    pub fn new(mut file: F) -> Result<Self> {
        let file_size = file.seek(SeekFrom::End(0)).map_err(reading)?;
        let mut header = Header::parse(&sector(&mut file, SeekFrom::Start(0))?)?;
        if header.directory == AT_END {
            let end = Header::parse(&sector(&mut file, SeekFrom::End(FOOTER))?)?;
            let directory = end.directory;
            if directory == AT_END || (Header { directory: AT_END, ..end }) != header {
                return Err(Error::corrupt("the VMDK does not end with its header"));
            }
            header.directory = directory;
        }
        let cid = identity(&mut file, &header)?;
        let summary = SparseSummary {
            size: header.capacity * SECTOR,
            file_size,
            grain_size: header.grain * SECTOR,
            is_compressed: header.is_compressed,
            cid,
        };
        Ok(Self { file, header, summary, position: 0, table: None, grain: None })
    }

    /// What the file says of itself.
    pub fn summary(&self) -> &SparseSummary {
        &self.summary
    }

    /// The first byte at `offset` or behind it that may be other than zero; `None` where there is none.
    ///
    /// # Errors
    /// Those of reading.
    pub fn data_from(&mut self, offset: u64) -> io::Result<Option<u64>> {
        let (grain, end) = (self.summary.grain_size, self.summary.size);
        let mut at = offset;
        for _ in 0..TABLES {
            if at >= end {
                return Ok(None);
            }
            let number = at / grain;
            if ![0, ZEROS].contains(&self.place(number).map_err(io::Error::other)?) {
                return Ok(Some(at));
            }
            // The rest of the table, which is in memory.
            let table = self.table.as_ref().map_or(&[][..], |(_, table)| &table[..]);
            let rest = table.get((number % ENTRIES) as usize..).unwrap_or_default();
            let skipped = rest.iter().position(|place| ![0, ZEROS].contains(place));
            let next = skipped.map_or((number / ENTRIES + 1) * ENTRIES, |skipped| number + skipped as u64);
            at = next.saturating_mul(grain);
        }
        Ok(Some(at).filter(|at| *at < end))
    }

    /// Where a grain is, in sectors.
    fn place(&mut self, number: u64) -> Result<u32> {
        let wanted = number / ENTRIES;
        let table = match self.table.take().filter(|(table, _)| *table == wanted) {
            Some((_, table)) => table,
            None => self.read_table(wanted)?,
        };
        let place = table.get((number % ENTRIES) as usize).copied().unwrap_or_default();
        self.table = Some((wanted, table));
        Ok(place)
    }

    fn read_table(&mut self, number: u64) -> Result<Vec<u32>> {
        let place: [u8; 4] = self.read_at(self.header.directory, number * 4)?;
        let place = u32::from_le_bytes(place);
        if place == 0 {
            return Ok(Vec::new());
        }
        let table: [u8; ENTRIES as usize * 4] = self.read_at(place.into(), 0)?;
        Ok(table.chunks_exact(4).map(|entry| u32::from_le_bytes(field(entry, 0))).collect())
    }

    /// Bytes at a distance from a sector.
    fn read_at<const N: usize>(&mut self, sector: u64, distance: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.seek_file(sector, distance)?;
        self.file.read_exact(&mut bytes).map_err(reading)?;
        Ok(bytes)
    }

    fn seek_file(&mut self, sector: u64, distance: u64) -> Result<()> {
        let at = sector.checked_mul(SECTOR).and_then(|at| at.checked_add(distance));
        let at = at.filter(|at| *at < self.summary.file_size).ok_or_else(cut)?;
        self.file.seek(SeekFrom::Start(at)).map(drop).map_err(reading)
    }

    /// The bytes of a grain.
    fn read_grain(&mut self, number: u64) -> Result<Vec<u8>> {
        let mut grain = vec![0; self.summary.grain_size as usize];
        match self.place(number)? {
            0 | ZEROS => {}
            place if self.header.is_compressed => {
                let head: [u8; GRAIN_HEAD] = self.read_at(place.into(), 0)?;
                let (first, size) =
                    (u64::from_le_bytes(field(&head, 0)), u32::from_le_bytes(field(&head, 8)));
                if first != number * self.header.grain {
                    return Err(Error::corrupt("a grain of the VMDK is that of another place"));
                }
                // More than what a compressor that finds nothing adds.
                if u64::from(size) > 2 * self.summary.grain_size {
                    return Err(Error::corrupt(format!("a grain of the VMDK has {size} bytes")));
                }
                let mut data = vec![0; size as usize];
                self.file.read_exact(&mut data).map_err(reading)?;
                let mut inflate = Decompress::new(true);
                let status = inflate.decompress(&data, &mut grain, FlushDecompress::Finish);
                // The last grain may end with the disk.
                let end = (number + 1) * self.summary.grain_size;
                let least = self.summary.grain_size - end.saturating_sub(self.summary.size);
                if !matches!(status, Ok(Status::StreamEnd)) || inflate.total_out() < least {
                    return Err(Error::corrupt("a grain of the VMDK does not decompress"));
                }
            }
            place => {
                self.seek_file(place.into(), 0)?;
                // A file may end within its last grain.
                let length =
                    (self.summary.file_size - u64::from(place) * SECTOR).min(self.summary.grain_size);
                let bytes = grain.get_mut(..length as usize).unwrap_or_default();
                self.file.read_exact(bytes).map_err(reading)?;
            }
        }
        Ok(grain)
    }
}

impl<F: Read + Seek> Read for SparseDisk<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.summary.size.saturating_sub(self.position);
        let (number, within) =
            (self.position / self.summary.grain_size, self.position % self.summary.grain_size);
        let count = left.min(self.summary.grain_size - within).min(buffer.len() as u64) as usize;
        if count == 0 {
            return Ok(0);
        }
        let grain = match self.grain.take().filter(|(grain, _)| *grain == number) {
            Some((_, grain)) => grain,
            None => self.read_grain(number).map_err(io::Error::other)?,
        };
        let bytes = grain.get(within as usize..within as usize + count).unwrap_or_default();
        buffer.get_mut(..count).unwrap_or_default().copy_from_slice(bytes);
        self.grain = Some((number, grain));
        self.position += count as u64;
        Ok(count)
    }
}

impl<F: Read + Seek> Seek for SparseDisk<F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = seek_to(to, self.position, self.summary.size)?;
        Ok(self.position)
    }
}

/// The CID in the descriptor of a file, if there is one. Some readers look for the descriptor in the sectors behind the header,
/// whatever that says.
fn identity<F: Read + Seek>(file: &mut F, header: &Header) -> Result<Option<u32>> {
    let has_none = header.descriptor == 0 || header.descriptor_size == 0;
    let mut cid = None;
    for (start, size) in [(1, EMBEDDED), (header.descriptor, header.descriptor_size)] {
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(start * SECTOR)).map_err(reading)?;
        file.take(size * SECTOR).read_to_end(&mut text).map_err(reading)?;
        let text = String::from_utf8_lossy(&text);
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.trim().strip_prefix(key)?.trim_start().strip_prefix('=').map(str::trim))
        };
        if text.contains(PARENT) || value("parentCID").is_some_and(|parent| parent != "ffffffff") {
            return Err(Error::unsupported("the VMDK has a parent disk"));
        }
        cid = value("CID").and_then(|cid| u32::from_str_radix(cid, 16).ok());
    }
    Ok(cid.filter(|_| !has_none))
}

fn sector<F: Read + Seek>(file: &mut F, at: SeekFrom) -> Result<[u8; SECTOR as usize]> {
    let mut bytes = [0; SECTOR as usize];
    // Before the start of a file is an error, too.
    file.seek(at).map_err(|_| cut())?;
    file.read_exact(&mut bytes).map_err(reading)?;
    Ok(bytes)
}

fn reading(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => cut(),
        _ => Error::io("reading a VMDK", error),
    }
}

fn cut() -> Error {
    Error::corrupt("the VMDK ends too early")
}
