//! The image as it grows: one stream of blocks, written in large pieces.

use std::io::{ErrorKind, IoSlice, SeekFrom};

use plyfold_core::tree::{MergedTree, NodeId};
use plyfold_core::{Error, Output, Result, Size};

use crate::fault::ErofsFault;

/// Bytes gathered before they are written.
const GATHER: usize = 256 << 10;
/// So many that come at once are not gathered: to copy them would cost more than to write them.
const LARGE: usize = 128 << 10;
/// Files of whole images from so many bytes on are copied by the kernel where that can be: smaller ones take longer that
/// way.
const COPY_MIN: u64 = 64 << 10;
const ZEROS: [u8; 4096] = [0; 4096];
/// So many zeros that come at once are left out of a new file, which reads as zeros there: they take no room on a disk.
const LEFT_OUT: u64 = 16 << 10;
/// Zeros between the runs of sparse files that are always written, in bytes.
const FILL_MIN: u64 = 1 << 30;
/// And more of them, for each byte of data.
const FILL_RATIO: u64 = 1000;

/// Appends to an image, from a block on.
pub(crate) struct BlockStream<'a> {
    out: &'a mut dyn Output,
    gathered: Vec<u8>,
    position: u64,
    block_size: u64,
    /// The image's size is a multiple of so many bytes.
    end: u64,
    /// Zeros written by [`BlockStream::fill`].
    filled: u64,
    /// Whether zeros may be left out.
    is_sparse: bool,
}

impl<'a> BlockStream<'a> {
    /// A stream that starts at a block's first byte; the blocks before it are left for [`BlockStream::finish`].
    pub(crate) fn new(out: &'a mut dyn Output, block_size: u32, first: u32) -> Result<Self> {
        let position = u64::from(block_size) * u64::from(first);
        out.seek(SeekFrom::Start(position)).map_err(failed)?;
        let (gathered, block_size) = (Vec::with_capacity(GATHER), block_size.into());
        Ok(Self { out, gathered, position, block_size, end: block_size, filled: 0, is_sparse: false })
    }

    /// The same for an image whose size is a multiple of so many bytes, of complete blocks.
    pub(crate) fn ending_at(self, end: u64) -> Self {
        Self { end, ..self }
    }

    /// The same in an output that was empty, where what is not written reads as zeros.
    pub(crate) fn sparse(self) -> Self {
        Self { is_sparse: true, ..self }
    }

    /// The place of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The number of the block that the next byte starts, after padding with zeros.
    ///
    /// # Errors
    /// [`Limit`](plyfold_core::ErrorKind::Limit) when the number does not fit 32 bits.
    pub(crate) fn block(&mut self) -> Result<u32> {
        self.zeros(self.position.next_multiple_of(self.block_size) - self.position)?;
        match u32::try_from(self.position / self.block_size) {
            Ok(block) if block < u32::MAX => Ok(block),
            _ => Err(ErofsFault::Blocks(self.block_size).into()),
        }
    }

    /// Ends the image; its size in blocks.
    pub(crate) fn end(&mut self) -> Result<u32> {
        self.zeros(self.position.next_multiple_of(self.end) - self.position)?;
        self.block()
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.position += bytes.len() as u64;
        if self.gathered.len() + bytes.len() < GATHER && bytes.len() < LARGE {
            self.gathered.extend_from_slice(bytes);
            return Ok(());
        }
        // What was gathered and what came go out together: large pieces are never copied.
        let pieces = [IoSlice::new(&self.gathered), IoSlice::new(bytes)];
        let written = loop {
            match self.out.write_vectored(&pieces) {
                Ok(written) => break written,
                // `write_all` goes on after a signal by itself; this call does not.
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(e)),
            }
        };
        if let Some(rest) = self.gathered.get(written..) {
            self.out.write_all(rest).map_err(failed)?;
        }
        let rest = &bytes[written.saturating_sub(self.gathered.len())..];
        self.gathered.clear();
        self.out.write_all(rest).map_err(failed)
    }

    /// Appends the first `length` bytes of a file of a whole image.
    pub(crate) fn copy(&mut self, source: &MergedTree, id: NodeId, length: u64) -> Result<()> {
        if length >= COPY_MIN {
            self.out.write_all(&self.gathered).map_err(failed)?;
            self.gathered.clear();
            source.copy_to(id, 0, length, self.out)?;
            self.position += length;
            return Ok(());
        }
        if self.gathered.len() + length as usize > GATHER {
            self.out.write_all(&self.gathered).map_err(failed)?;
            self.gathered.clear();
        }
        let start = self.gathered.len();
        self.gathered.resize(start + length as usize, 0);
        let read = source.read_at(id, 0, &mut self.gathered[start..])?;
        if (read as u64) < length {
            return Err(ErofsFault::Malformed("a file has fewer bytes than its size says").into());
        }
        self.position += length;
        Ok(())
    }

    pub(crate) fn zeros(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            let piece = count.min(ZEROS.len() as u64);
            self.write(&ZEROS[..piece as usize])?;
            count -= piece;
        }
        Ok(())
    }

    /// Writes zeros that a sparse file has around its data, as its chunks are larger than the data. A few bytes of a tar
    /// can ask for chunks of half a GiB.
    ///
    /// # Errors
    /// [`Limit`](plyfold_core::ErrorKind::Limit) when they are far more than the data.
    pub(crate) fn fill(&mut self, count: u64) -> Result<()> {
        self.filled = self.filled.saturating_add(count);
        let data = self.position.saturating_add(count).saturating_sub(self.filled);
        let most = FILL_MIN.saturating_add(data.saturating_mul(FILL_RATIO));
        if self.filled > most {
            return Err(ErofsFault::Fill(Size(data), Size(self.filled).beyond(Size(most))).into());
        }
        if !self.is_sparse || count < LEFT_OUT {
            return self.zeros(count);
        }
        self.out.write_all(&self.gathered).map_err(failed)?;
        self.gathered.clear();
        self.position += count;
        self.out.seek(SeekFrom::Start(self.position)).map_err(failed)?;
        Ok(())
    }

    /// Ends the last block, and writes what is gathered.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.block()?;
        self.out.write_all(&self.gathered).map_err(failed)?;
        self.gathered.clear();
        // Zeros that were left out may come last.
        if self.is_sparse { self.out.set_len(self.position).map_err(failed) } else { Ok(()) }
    }

    /// Ends the last block and then writes the image's first bytes, which make it one.
    pub(crate) fn finish(mut self, head: &[u8]) -> Result<()> {
        self.flush()?;
        self.out.seek(SeekFrom::Start(0)).map_err(failed)?;
        self.out.write_all(head).map_err(failed)?;
        self.out.flush().map_err(failed)
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("writing the image", error)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};

    use plyfold_core::ErrorKind;

    use super::*;

    #[test]
    fn zeros_of_sparse_files_are_bounded_by_their_data() {
        let mut file = tempfile::tempfile().unwrap();
        let mut stream = BlockStream::new(&mut file, 4096, 0).unwrap();
        stream.fill(1 << 20).unwrap();
        let error = stream.fill(FILL_MIN).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Limit);
        assert!(matches!(error.detail(), Some(ErofsFault::Fill(..))), "{error:?}");
        // Nothing of it is written, and data allows more.
        assert_eq!(stream.position(), 1 << 20);
        let (mut file, data) = (tempfile::tempfile().unwrap(), vec![7; 2 << 20]);
        let mut stream = BlockStream::new(&mut file, 4096, 0).unwrap();
        stream.write(&data).unwrap();
        (stream.filled, stream.position) = (FILL_MIN, FILL_MIN + stream.position);
        stream.fill(1 << 20).unwrap();
    }

    #[test]
    fn zeros_of_sparse_files_take_no_room() {
        use std::os::unix::fs::MetadataExt as _;

        let mut images = [true, false].map(|is_sparse| {
            let mut file = tempfile::tempfile().unwrap();
            let mut stream = BlockStream::new(&mut file, 4096, 1).unwrap();
            stream.is_sparse = is_sparse;
            stream.fill(5 << 20).unwrap();
            stream.write(b"data").unwrap();
            stream.fill(9 << 20).unwrap();
            stream.finish(b"head").unwrap();
            file
        });
        let [sparse, dense] = images.each_ref().map(|file| file.metadata().unwrap());
        assert!(sparse.blocks() * 512 <= 64 << 10, "{} blocks", sparse.blocks());
        assert!(dense.blocks() * 512 > 10 << 20, "{} blocks", dense.blocks());
        let [sparse, dense] = images.each_mut().map(|file| {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_end(&mut bytes).unwrap();
            bytes
        });
        assert_eq!(sparse.len(), 14 << 20 | 8192);
        assert!(sparse == dense, "other bytes");
    }
}
