//! What files are written to in ranges of other files: a tar, a disk.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;

/// Bytes that are read and written at once.
const PIECE: u64 = 128 << 10;

/// A writer that takes ranges of files. Where it is a file itself, the kernel copies them.
pub trait RangeWrite: Write {
    /// Writes `length` bytes of `source` from its byte `from` on, at the current position. The position of `source` may
    /// move. Files of Linux are copied by `copy_file_range(2)`: they share blocks where the file system can.
    ///
    /// # Errors
    /// What the file system reports; [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) when `source` ends before.
    fn copy_range(&mut self, source: &File, from: u64, length: u64) -> io::Result<()> {
        let end = from.checked_add(length).ok_or(io::ErrorKind::InvalidInput)?;
        let mut buffer = vec![0; length.min(PIECE) as usize];
        let mut at = from;
        while at < end {
            let piece = &mut buffer[..(end - at).min(PIECE) as usize];
            source.read_exact_at(piece, at)?;
            self.write_all(piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }
}

impl RangeWrite for File {
    fn copy_range(&mut self, mut source: &File, from: u64, length: u64) -> io::Result<()> {
        let end = from.checked_add(length).ok_or(io::ErrorKind::InvalidInput)?;
        let mut at = source.seek(SeekFrom::Start(from))?;
        while at < end {
            // For two files this is the system call.
            match io::copy(&mut source.take(end - at), self) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
                // Both positions say how far it came.
                _ => at = source.stream_position()?,
            }
        }
        Ok(())
    }
}

impl<W: RangeWrite + ?Sized> RangeWrite for &mut W {
    fn copy_range(&mut self, source: &File, from: u64, length: u64) -> io::Result<()> {
        (**self).copy_range(source, from, length)
    }
}

impl<W: RangeWrite> RangeWrite for BufWriter<W> {
    fn copy_range(&mut self, source: &File, from: u64, length: u64) -> io::Result<()> {
        self.flush()?;
        self.get_mut().copy_range(source, from, length)
    }
}

impl RangeWrite for io::Sink {}

impl RangeWrite for Vec<u8> {}
