//! A range of what a gzip blob is decoded to, without the rest.

use super::GzipIndex;
use super::decoder::{Decoder, OTHER};
use crate::layer::pool::CHUNK;
use crate::page_buffer::PageBuffer;
use crate::{ReadAt, Result};

impl GzipIndex {
    /// Reads bytes of what the blob in a file is decoded to, from an offset on; how many there were: all that the buffer
    /// holds, or up to the end. They are proved by the index: the spans that they are in are decoded from their first byte
    /// to their last, mostly 4 MiB.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when the blob or the index is damaged, [`Io`](crate::ErrorKind::Io).
    pub fn read_at(&self, file: &dyn ReadAt, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let wanted = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = wanted.min(buffer.len());
        let mut decoder = Decoder::new(self.blob_size);
        let (mut piece, mut filled) = (PageBuffer::new(CHUNK), 0);
        let mut number = self.span_of(offset);
        while filled < wanted {
            let (begin, end) = self.span(number).ok_or(OTHER)?;
            decoder.enter(file, begin)?;
            let (mut at, mut ends) = (begin.offset, false);
            while !ends {
                let length;
                (length, ends) = decoder.fill(file, &mut piece, end)?;
                let skipped = offset.saturating_sub(at).min(length as u64) as usize;
                let found = &piece[skipped..length];
                let count = found.len().min(wanted - filled);
                buffer[filled..filled + count].copy_from_slice(&found[..count]);
                (filled, at) = (filled + count, at + length as u64);
            }
            number += 1;
        }
        Ok(filled)
    }
}
