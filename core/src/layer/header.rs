//! The 512-byte tar header: v7, POSIX ustar, GNU and star.
//!
//! POSIX.1-2017 `pax`, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".

use std::ops::Range;

use super::Timestamp;
use super::fault::TarFault;
use crate::Result;

/// Bytes of a tar block.
pub(super) const BLOCK: usize = 512;

/// A header whose checksum is right.
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

#[derive(Eq, PartialEq)]
enum Dialect {
    Gnu,
    Star,
    Ustar,
    V7,
}

impl<'a> Header<'a> {
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when the checksum (offset 148) does not fit.
    pub(super) fn new(block: &'a [u8; BLOCK]) -> Result<Self> {
        const CHECKSUM: Range<usize> = 148..156;
        let header = Self(block);
        let stored = header.number(CHECKSUM, "checksum")?;
        let mut bytes = *block;
        bytes[CHECKSUM].fill(b' ');
        let unsigned: i32 = bytes.iter().map(|byte| i32::from(*byte)).sum();
        // Old Sun and Ultrix tars summed signed bytes.
        let signed = || -> i32 { bytes.iter().map(|byte| i32::from(byte.cast_signed())).sum() };
        if stored != unsigned.into() && stored != signed().into() {
            return Err(TarFault::Checksum(stored, unsigned.into()).into());
        }
        Ok(header)
    }

    /// Name (offset 0), behind the prefix (offset 345) where the dialect has one.
    pub(super) fn path(&self) -> Vec<u8> {
        let prefix = match self.dialect() {
            Dialect::Ustar => self.text(345..500),
            Dialect::Star => self.text(345..476),
            Dialect::Gnu => self.prefix_of_old_go(),
            Dialect::V7 => &[],
        };
        let name = self.text(0..100);
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// Go before 1.8, and so Docker before 1.13, wrote a prefix in place of the old GNU format's times (offsets 345
    /// and 357). As in Go's reader, times that are no numbers and an ASCII prefix show it.
    fn prefix_of_old_go(&self) -> &'a [u8] {
        let is_time = |range: Range<usize>| {
            let field = &self.0[range];
            let digits = until_nul(field).trim_ascii();
            matches!(field[0], 0 | 0x80..) || digits.iter().all(|digit| matches!(digit, b'0'..=b'7'))
        };
        let prefix = self.text(345..500);
        if prefix.is_ascii() && !(is_time(345..357) && is_time(357..369)) { prefix } else { &[] }
    }

    pub(super) fn link_name(&self) -> &[u8] {
        self.text(157..257)
    }

    pub(super) fn typeflag(&self) -> u8 {
        self.0[156]
    }

    /// Permission bits; the type bits that some writers add are in the type flag already.
    pub(super) fn mode(&self) -> Result<u16> {
        Ok((self.number(100..108, "mode")? & 0o7777).try_into().unwrap_or_default())
    }

    pub(super) fn uid(&self) -> Result<u32> {
        self.ranged(108..116, "uid")
    }

    pub(super) fn gid(&self) -> Result<u32> {
        self.ranged(116..124, "gid")
    }

    pub(super) fn size(&self) -> Result<u64> {
        let size: i64 = self.ranged(124..136, "size")?;
        u64::try_from(size).map_err(|_| TarFault::Field(format!("size is {size}")).into())
    }

    pub(super) fn mtime(&self) -> Result<Timestamp> {
        Ok(Timestamp { seconds: self.ranged(136..148, "mtime")?, nanos: 0 })
    }

    /// Major and minor number (offsets 329 and 337); v7 has no such fields.
    pub(super) fn device(&self) -> Result<(u32, u32)> {
        if self.dialect() == Dialect::V7 {
            return Ok((0, 0));
        }
        Ok((self.ranged(329..337, "devmajor")?, self.ranged(337..345, "devminor")?))
    }

    /// The block, for the parts that only GNU sparse files have.
    pub(super) fn block(&self) -> &'a [u8; BLOCK] {
        self.0
    }

    fn dialect(&self) -> Dialect {
        match &self.0[257..263] {
            b"ustar\0" if &self.0[508..512] == b"tar\0" => Dialect::Star,
            b"ustar\0" => Dialect::Ustar,
            b"ustar " => Dialect::Gnu,
            _ => Dialect::V7,
        }
    }

    fn text(&self, range: Range<usize>) -> &'a [u8] {
        until_nul(&self.0[range])
    }

    fn ranged<T: TryFrom<i128>>(&self, range: Range<usize>, name: &str) -> Result<T> {
        let value = self.number(range, name)?;
        T::try_from(value).map_err(|_| TarFault::Field(format!("{name} is {value}")).into())
    }

    fn number(&self, range: Range<usize>, name: &str) -> Result<i128> {
        number(&self.0[range]).ok_or_else(|| TarFault::Field(format!("{name} is no number")).into())
    }
}

/// A number field of at most 12 bytes: octal text, or base-256 two's complement when the first bit is set.
pub(super) fn number(field: &[u8]) -> Option<i128> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // The second bit is the sign (GNU tar manual, "Extensions to the archive format").
        let top = if first & 0x40 == 0 { i128::from(first & 0x7f) } else { i128::from(first.cast_signed()) };
        return Some(rest.iter().fold(top, |value, byte| value << 8 | i128::from(*byte)));
    }
    let text = field.trim_ascii_start();
    let text = &text[text.iter().take_while(|byte| **byte == 0).count()..];
    let digits = text.iter().take_while(|byte| matches!(byte, b'0'..=b'7'));
    let value = digits.clone().fold(0, |value, digit| value << 3 | i128::from(digit - b'0'));
    // An empty field is 0; what follows the terminator is padding.
    text.get(digits.count()).is_none_or(|end| matches!(end, 0 | b' ')).then_some(value)
}

pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}
