//! The index of a blob that is read for it.

use std::io::{ErrorKind, Read};

use super::{GzipIndex, GzipIndexing};
use crate::layer::LayerLimits;
use crate::layer::piece::check_size;
use crate::page_buffer::PageBuffer;
use crate::{Error, Result};

/// Bytes that are read and decoded at a time.
const BUFFER: usize = 256 << 10;

impl GzipIndex {
    /// Decodes a gzip blob to its end, and returns its index.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Limit`](crate::ErrorKind::Limit), those of the reader.
    pub fn of(mut blob: impl Read, limits: &LayerLimits) -> Result<Self> {
        let (mut indexing, mut size) = (GzipIndexing::default(), 0);
        let (mut input, mut output) = (PageBuffer::new(BUFFER), PageBuffer::new(BUFFER));
        loop {
            let length = match blob.read(&mut input) {
                Ok(0) => return indexing.finish(),
                Ok(length) => length,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::io("reading a layer", e)),
            };
            let mut at = 0;
            loop {
                let (read, written) = indexing.step(&input[at..length], &mut output)?;
                at += read;
                size += written as u64;
                check_size(size, limits)?;
                if at == length && written < output.len() {
                    break;
                }
            }
        }
    }
}
