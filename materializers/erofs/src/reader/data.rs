//! The data of files.

use std::io::{Read, Seek};

use plyfold_core::{Error, Result};

use super::image::Reader;
use crate::content::{Content, DataLayout};
use crate::fault::ErofsFault;

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

impl<R: Read + Seek> Reader<R> {
    /// Reads the data of a regular file of `size` bytes from `offset` on, as much as lies in one piece. Yields
    /// the number of bytes read, 0 at the end of the file. Data on devices is read as if they followed the image.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) when the image has no such bytes,
    /// [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for larger clusters than Linux takes, and
    /// [`Io`](plyfold_core::ErrorKind::Io).
    pub fn read(&mut self, content: &Content, size: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let count = size.saturating_sub(offset).min(buffer.len() as u64);
        let buffer = &mut buffer[..count as usize];
        match &content.0 {
            _ if buffer.is_empty() => Ok(0),
            DataLayout::Compressed { nid, .. } => self.read_compressed(*nid, offset, buffer),
            layout => self.read_plain(layout, size, offset, buffer),
        }
    }

    /// Hands all the data of a regular file of `size` bytes to `take`, piece by piece.
    ///
    /// # Errors
    /// As [`read`](Self::read), and those of `take`.
    pub(crate) fn copy(
        &mut self,
        content: &Content,
        size: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = vec![0; PIECE.min(usize::try_from(size).unwrap_or(PIECE))];
        let mut at = 0;
        while at < size {
            let count = self.read(content, size, at, &mut buffer)?;
            if count == 0 {
                return Err(short());
            }
            take(&buffer[..count])?;
            at += count as u64;
        }
        Ok(())
    }

    /// Fills `buffer` with the data of a file of `size` bytes from `offset` on.
    pub(super) fn fill(
        &mut self,
        content: &Content,
        size: u64,
        mut offset: u64,
        mut buffer: &mut [u8],
    ) -> Result<()> {
        while !buffer.is_empty() {
            let count = self.read(content, size, offset, buffer)?;
            if count == 0 {
                return Err(short());
            }
            buffer = &mut buffer[count..];
            offset += count as u64;
        }
        Ok(())
    }
}

fn short() -> Error {
    ErofsFault::Malformed("a file ends before its size").into()
}
