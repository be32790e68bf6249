//! One name of a tree as text, and the content of a file.

use std::fmt;

use plyfold_core::digest::Hasher;
use plyfold_core::{Error, Result};

/// A file's content as text, the same however its holes are stored: `SIZE "text"` for a short text, otherwise its
/// size and the start of a hash over the blocks that are not all zeros.
#[derive(Debug)]
pub struct ContentText {
    size: u64,
    number: u64,
    block: Vec<u8>,
    short: Vec<u8>,
    hasher: Hasher,
}

const ZEROS: &[u8] = &[0; ContentText::BLOCK];

impl ContentText {
    const BLOCK: usize = 4096;
    const SHORT: u64 = 40;

    /// The text of a file of this size, of which nothing is known yet: all zeros.
    pub fn new(size: u64) -> Self {
        let short = vec![0; if size <= Self::SHORT { size as usize } else { 0 }];
        Self { size, number: 0, block: vec![0; Self::BLOCK], short, hasher: Hasher::sha256() }
    }

    /// The text of a file of this size, which `read` reads at an offset into a buffer: how many bytes there are.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) when the bytes end before the size; those of `read`.
    pub fn read(size: u64, mut read: impl FnMut(u64, &mut [u8]) -> Result<usize>) -> Result<String> {
        let (mut text, mut offset) = (Self::new(size), 0);
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(1 << 20)];
        while offset < size {
            let count = read(offset, &mut buffer)?;
            if count == 0 {
                return Err(Error::corrupt("a file has less data than its size says"));
            }
            text.data(offset, &buffer[..count]);
            offset += count as u64;
        }
        Ok(text.finish())
    }

    /// Data at an offset; offsets ascend.
    pub fn data(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (number, within) = (offset / Self::BLOCK as u64, (offset % Self::BLOCK as u64) as usize);
            let count = bytes.len().min(Self::BLOCK - within);
            if bytes[..count] == ZEROS[..count] {
                (offset, bytes) = (offset + count as u64, &bytes[count..]);
                continue;
            }
            if number != self.number {
                self.flush();
                self.number = number;
            }
            self.block[within..within + count].copy_from_slice(&bytes[..count]);
            if let Some(short) = self.short.get_mut(within..within + count).filter(|_| number == 0) {
                short.copy_from_slice(&bytes[..count]);
            }
            bytes = &bytes[count..];
            offset += count as u64;
        }
    }

    /// The text.
    pub fn finish(mut self) -> String {
        self.flush();
        let printable = self.short.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
        if self.size <= Self::SHORT && printable {
            return format!("{} {:?}", self.size, String::from_utf8_lossy(&self.short));
        }
        format!("{} {}", self.size, &self.hasher.finish().digest()[..12])
    }

    fn flush(&mut self) {
        if self.block != ZEROS {
            self.hasher.update(&self.number.to_le_bytes());
            self.hasher.update(&self.block);
            self.block.fill(0);
        }
    }
}

/// One name of a root file system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TreeLine {
    /// The path, escaped.
    pub path: String,
    /// What it is and holds: `dir`, `file 5 "hello"` (see [`ContentText`]), `-> target`, `char 1:3`, `= /first/name`.
    pub what: String,
    /// Permission bits.
    pub mode: u16,
    /// Numeric owner and group.
    pub owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Names of a file; 2 and the subdirectories of a directory.
    pub links: u32,
    /// Extended attributes, values escaped.
    pub xattrs: Vec<String>,
}

impl fmt::Display for TreeLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, what, mode, owner: (uid, gid), mtime: (seconds, nanos), links, xattrs } = self;
        write!(f, "{path} {mode:04o} {uid}:{gid} {seconds}.{nanos:09} {links} {what}")?;
        xattrs.iter().try_for_each(|xattr| write!(f, " {xattr}"))
    }
}

pub(super) fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_to_its_size() {
        let content = vec![7; 3 << 20];
        let mut text = ContentText::new(content.len() as u64);
        text.data(0, &content);
        let read = |end: usize| {
            let content = &content[..end];
            ContentText::read(3 << 20, |offset, buffer| {
                let rest = &content[offset as usize..];
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                Ok(count)
            })
        };
        assert_eq!(read(3 << 20).unwrap(), text.finish());
        assert_eq!(*read(5).unwrap_err().kind(), plyfold_core::ErrorKind::Corrupt);
    }
}
