//! Checksums of what is written, in whatever order.

use std::fs::File;
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::sync::{Mutex, PoisonError};

use super::blocks::Blocks;
use super::reading::{Reading, each_block};
use super::sums::BlockSums;
use crate::format::Output;
use crate::range_write::RangeWrite;
use crate::{Error, Result};

/// A file that is written, and the checksums of its blocks.
///
/// What is written in order is hashed on its way. A block that was written in another order, or twice, or cut, or copied by the kernel,
/// is read once by [`sums`](Self::sums). What was never written costs nothing.
#[derive(Debug)]
pub struct SummedFile {
    file: File,
    position: u64,
    blocks: Blocks,
}

impl SummedFile {
    /// An empty file, open for reading and writing, at its start. Nothing else may write to it.
    pub fn new(file: File) -> Self {
        Self { file, position: 0, blocks: Blocks::default() }
    }

    /// The file itself. What is written to it directly is not seen.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The checksums of the file as it is. Blocks that have to be read are read on all cores.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io), [`Cancelled`](crate::ErrorKind::Cancelled).
    pub fn sums(self, reading: &Reading<'_>) -> Result<BlockSums> {
        let size = self.file.metadata().map_err(|e| Error::io("looking at a file", e))?.len();
        let (mut sums, unknown) = self.blocks.close(size);
        if !unknown.is_empty() {
            let found = Mutex::new(&mut sums);
            each_block(&self.file, size, unknown, reading, &|block, sum| {
                found.lock().unwrap_or_else(PoisonError::into_inner).set(block, sum);
            })?;
        }
        Ok(BlockSums { size, sums })
    }

    fn written(&mut self, bytes: &[u8]) {
        self.blocks.write(self.position, bytes);
        self.position += bytes.len() as u64;
    }

    /// After an error nothing is known of what was to be written.
    fn failed(&mut self, length: u64, e: &io::Error) {
        if e.kind() != io::ErrorKind::Interrupted {
            self.blocks.forget(self.position..self.position.saturating_add(length));
        }
    }
}

impl Write for SummedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes).inspect_err(|e| self.failed(bytes.len() as u64, e))?;
        self.written(&bytes[..count]);
        Ok(count)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let length = || slices.iter().map(|slice| slice.len() as u64).sum();
        let count = self.file.write_vectored(slices).inspect_err(|e| self.failed(length(), e))?;
        let mut left = count;
        for slice in slices {
            let part = left.min(slice.len());
            self.written(&slice[..part]);
            left -= part;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Read for SummedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for SummedFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = self.file.seek(to)?;
        Ok(self.position)
    }
}

impl RangeWrite for SummedFile {
    fn copy_range(&mut self, source: &File, from: u64, length: u64) -> io::Result<()> {
        let start = self.position;
        let copied = self.file.copy_range(source, from, length);
        self.position = self.file.stream_position()?;
        let end = match copied {
            Ok(()) => self.position,
            // Whatever was written lies before the end of the file.
            Err(_) => self.file.metadata()?.len(),
        };
        self.blocks.forget(start..end);
        copied
    }
}

impl Output for SummedFile {
    fn set_len(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.blocks.cut(length);
        Ok(())
    }

    fn data_from(&mut self, offset: u64) -> io::Result<Option<u64>> {
        let found = crate::data_from(&self.file, offset);
        self.position = self.file.stream_position()?;
        found
    }
}
