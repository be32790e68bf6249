//! The header of a binary VMDK, and the markers between its parts. Numbers are little-endian.

use plyfold_core::{Error, Result};

use crate::SECTOR;

/// `magicNumber`, at 0: `KDMV`.
pub(super) const MAGIC: [u8; 4] = *b"KDMV";
/// The bits of `flags`: the bytes that a transfer as text would change are checked; grains are compressed; parts have
/// markers.
const NEW_LINES: u32 = 1;
const COMPRESSED: u32 = 1 << 16;
const MARKERS: u32 = 1 << 17;
/// What a transfer as text would change, at 73.
const LINES: [u8; 4] = *b"\n \r\n";
/// `compressAlgorithm`, at 77: RFC 1950.
const DEFLATE: u16 = 1;
/// `gdOffset` of a file whose last sectors have the header again, with the place of the directory.
pub(super) const AT_END: u64 = u64::MAX;
/// Entries of a grain table. Other numbers are allowed by the structure, and written by no program.
pub(super) const ENTRIES: u64 = 512;
/// The largest grain that is read, in sectors: 1 MiB.
const LARGEST_GRAIN: u64 = 2048;
/// The largest descriptor in a file that is read, in sectors.
const LARGEST_DESCRIPTOR: u64 = 128;

/// What stands behind a part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Marker {
    EndOfStream = 0,
    Table = 1,
    Directory = 2,
    Footer = 3,
}

impl Marker {
    /// The sector in front of a part of so many sectors.
    pub(super) fn sector(self, sectors: u64) -> [u8; SECTOR as usize] {
        let mut bytes = [0; SECTOR as usize];
        put(&mut bytes, 0, &sectors.to_le_bytes());
        put(&mut bytes, 12, &(self as u32).to_le_bytes());
        bytes
    }
}

/// Sizes and places in a file, in sectors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    pub(super) capacity: u64,
    pub(super) grain: u64,
    pub(super) descriptor: u64,
    pub(super) descriptor_size: u64,
    pub(super) directory: u64,
    /// What stands in front of the first grain.
    pub(super) overhead: u64,
    pub(super) is_compressed: bool,
}

impl Header {
    pub(super) fn sector(&self) -> [u8; SECTOR as usize] {
        let mut bytes = [0; SECTOR as usize];
        let (version, flags) =
            if self.is_compressed { (3_u32, NEW_LINES | COMPRESSED | MARKERS) } else { (1, NEW_LINES) };
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 4, &version.to_le_bytes());
        put(&mut bytes, 8, &flags.to_le_bytes());
        put(&mut bytes, 12, &self.capacity.to_le_bytes());
        put(&mut bytes, 20, &self.grain.to_le_bytes());
        put(&mut bytes, 28, &self.descriptor.to_le_bytes());
        put(&mut bytes, 36, &self.descriptor_size.to_le_bytes());
        put(&mut bytes, 44, &(ENTRIES as u32).to_le_bytes());
        // At 48 the place of a second directory, which there is not.
        put(&mut bytes, 56, &self.directory.to_le_bytes());
        put(&mut bytes, 64, &self.overhead.to_le_bytes());
        // At 72 whether the file is open for writing.
        put(&mut bytes, 73, &LINES);
        put(&mut bytes, 77, &u16::from(self.is_compressed).to_le_bytes());
        bytes
    }

    /// Reads and checks a header.
    pub(super) fn parse(bytes: &[u8; SECTOR as usize]) -> Result<Self> {
        let short = |at| u32::from_le_bytes(field(bytes, at));
        let long = |at| u64::from_le_bytes(field(bytes, at));
        let (version, flags) = (short(4), short(8));
        if field(bytes, 0) != MAGIC {
            return Err(Error::corrupt("the file has no header of a VMDK"));
        }
        if !(1..=3).contains(&version) {
            return Err(Error::unsupported(format!("a VMDK of version {version} is not read")));
        }
        if flags & NEW_LINES != 0 && field(bytes, 73) != LINES {
            return Err(Error::corrupt("the VMDK was transferred as a text, which has changed its bytes"));
        }
        let is_compressed = flags & COMPRESSED != 0;
        let algorithm = u16::from_le_bytes(field(bytes, 77));
        if is_compressed && (algorithm != DEFLATE || flags & MARKERS == 0) {
            return Err(Error::unsupported("the VMDK is compressed in a way that is not read"));
        }
        let header = Self {
            capacity: long(12),
            grain: long(20),
            descriptor: long(28),
            descriptor_size: long(36),
            directory: long(56),
            overhead: long(64),
            is_compressed,
        };
        if u64::from(short(44)) != ENTRIES {
            return Err(Error::unsupported(format!("a VMDK with {} entries a grain table", short(44))));
        }
        // A file offset has 63 bits.
        let is_sound = header.grain.is_power_of_two()
            && (8..=LARGEST_GRAIN).contains(&header.grain)
            && header.descriptor_size <= LARGEST_DESCRIPTOR
            // Of a file without sectors QEMU takes the descriptor for that of another disk.
            && header.capacity > 0
            && [header.capacity, header.descriptor].iter().all(|sectors| *sectors < 1 << 54);
        if is_sound { Ok(header) } else { Err(Error::corrupt("the header of the VMDK is not sound")) }
    }
}

fn put(bytes: &mut [u8; SECTOR as usize], at: usize, field: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + field.len()) {
        place.copy_from_slice(field);
    }
}

/// `N` bytes of a sector; every caller's lie within it.
pub(super) fn field<const N: usize>(of: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|index| of.get(at + index).copied().unwrap_or_default())
}
