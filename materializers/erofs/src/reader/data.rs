//! The data of files.

use std::io::{Read, Seek};

use plyfold_core::Result;

use super::image::Reader;
use crate::content::{Content, DataLayout};

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
}
