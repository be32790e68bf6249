//! The header of a gzip member (RFC 1952 section 2.3), byte by byte.

use zlib_rs::crc32::crc32;

use crate::Result;
use crate::layer::fault::LayerFault;

/// Flags of byte 3 (RFC 1952 section 2.3.1); the three highest are reserved.
const HAS_CRC: u8 = 1 << 1;
const HAS_EXTRA: u8 = 1 << 2;
const HAS_NAME: u8 = 1 << 3;
const HAS_COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

/// A header of which some bytes are read. Takes the same memory for names of any length.
#[derive(Clone, Debug)]
pub(super) struct Header {
    part: Part,
    flags: u8,
    /// Of all bytes so far, where the header has a checksum.
    crc: u32,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    /// The first ten bytes; how many are read.
    Fixed(u8),
    /// The length of the extra field; its first byte.
    ExtraLength(Option<u8>),
    /// The extra field; how many bytes are left.
    Extra(u16),
    /// The name, to a zero byte.
    Name,
    /// The comment, to a zero byte.
    Comment,
    /// The low half of the header's CRC-32; its first byte.
    Crc(Option<u8>),
    End,
}

impl Header {
    pub(super) fn new() -> Self {
        Self { part: Part::Fixed(0), flags: 0, crc: 0 }
    }

    /// Reads as much as there is of the header: how many bytes, and whether it has ended.
    pub(super) fn read(&mut self, input: &[u8]) -> Result<(usize, bool)> {
        for (at, byte) in input.iter().enumerate() {
            self.push(*byte)?;
            if matches!(self.part, Part::End) {
                return Ok((at + 1, true));
            }
        }
        Ok((input.len(), false))
    }

    fn push(&mut self, byte: u8) -> Result<()> {
        let expected = self.crc;
        if self.flags & HAS_CRC != 0 || matches!(self.part, Part::Fixed(_)) {
            self.crc = crc32(self.crc, &[byte]);
        }
        self.part = match self.part {
            Part::Fixed(at) => {
                let wrong = match at {
                    0 => byte != 0x1f,
                    1 => byte != 0x8b,
                    // Deflate is the only method there is.
                    2 => byte != 8,
                    3 => byte & RESERVED != 0,
                    _ => false,
                };
                if wrong {
                    return Err(LayerFault::GZIP_BROKEN.into());
                }
                if at == 3 {
                    self.flags = byte;
                }
                if at < 9 { Part::Fixed(at + 1) } else { self.after(HAS_EXTRA) }
            }
            Part::ExtraLength(None) => Part::ExtraLength(Some(byte)),
            Part::ExtraLength(Some(low)) => match u16::from_le_bytes([low, byte]) {
                0 => self.after(HAS_NAME),
                length => Part::Extra(length),
            },
            Part::Extra(1) => self.after(HAS_NAME),
            Part::Extra(left) => Part::Extra(left - 1),
            Part::Name if byte == 0 => self.after(HAS_COMMENT),
            Part::Comment if byte == 0 => self.after(HAS_CRC),
            Part::Crc(None) => {
                // The checksum is of what comes before it.
                self.crc = expected;
                Part::Crc(Some(byte))
            }
            Part::Crc(Some(low)) => {
                if u32::from(u16::from_le_bytes([low, byte])) != expected & 0xffff {
                    return Err(LayerFault::GZIP_BROKEN.into());
                }
                Part::End
            }
            part @ (Part::Name | Part::Comment | Part::End) => part,
        };
        Ok(())
    }

    /// The next part from this one on that the header has.
    fn after(&self, first: u8) -> Part {
        let parts = [
            (HAS_EXTRA, Part::ExtraLength(None)),
            (HAS_NAME, Part::Name),
            (HAS_COMMENT, Part::Comment),
            (HAS_CRC, Part::Crc(None)),
        ];
        let from = parts.iter().position(|(flag, _)| *flag == first).unwrap_or(parts.len());
        let next = parts[from..].iter().find(|(flag, _)| self.flags & flag != 0);
        next.map_or(Part::End, |(_, part)| *part)
    }
}
