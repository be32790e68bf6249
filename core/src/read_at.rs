//! Bytes that several threads read: of a disk, and of a part of one.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};

use crate::artifact::seek_to;

/// Bytes that several threads read, each at any place: a file, a part of one, or a disk behind a [`Mutex`], of which one
/// thread reads at a time.
pub trait ReadAt: Sync {
    /// How many there are.
    ///
    /// # Errors
    /// What the medium reports.
    fn size(&self) -> io::Result<u64>;

    /// Reads all of `buffer` from `offset` on.
    ///
    /// # Errors
    /// What the medium reports; [`UnexpectedEof`](ErrorKind::UnexpectedEof) beyond the end.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// The first byte at `offset` or behind it that may be other than zero: nothing before it has to be read. `None` where
    /// there is none. What knows of no holes says `offset`, as a [`File`] does: it may share its position with another
    /// descriptor, which [`data_from`](crate::data_from) moves.
    ///
    /// # Errors
    /// What the medium reports.
    fn data_from(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }
}

impl ReadAt for File {
    fn size(&self) -> io::Result<u64> {
        let metadata = self.metadata()?;
        let mut file = self;
        // The metadata of a block device has no size.
        if metadata.is_file() { Ok(metadata.len()) } else { file.seek(SeekFrom::End(0)) }
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }
}

impl<R: Read + Seek + Send> ReadAt for Mutex<R> {
    fn size(&self) -> io::Result<u64> {
        self.lock().unwrap_or_else(PoisonError::into_inner).seek(SeekFrom::End(0))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        // A thread that panicked has left the position anywhere: it is set for each read.
        let mut source = self.lock().unwrap_or_else(PoisonError::into_inner);
        source.seek(SeekFrom::Start(offset))?;
        source.read_exact(buffer)
    }
}

/// Some of the bytes of another source: such as a partition of a disk.
#[derive(Clone, Copy)]
pub struct Slice<'a> {
    of: &'a dyn ReadAt,
    start: u64,
    size: u64,
    position: u64,
}

impl<'a> Slice<'a> {
    /// So many bytes from `start` on.
    pub fn new(of: &'a dyn ReadAt, start: u64, size: u64) -> Self {
        Self { of, start, size, position: 0 }
    }

    /// All bytes.
    ///
    /// # Errors
    /// Those of [`ReadAt::size`].
    pub fn whole(of: &'a dyn ReadAt) -> io::Result<Self> {
        Ok(Self::new(of, 0, of.size()?))
    }
}

impl ReadAt for Slice<'_> {
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.size);
        match self.start.checked_add(offset).filter(|_| end.is_some()) {
            Some(at) => self.of.read_exact_at(buffer, at),
            None => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<u64>> {
        let Some(at) = self.start.checked_add(offset) else { return Ok(None) };
        let found = self.of.data_from(at)?.map(|at| at.saturating_sub(self.start));
        Ok(found.filter(|at| *at < self.size))
    }
}

impl Read for Slice<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let count = buffer.len().min(left);
        if let Some(buffer) = buffer.get_mut(..count).filter(|buffer| !buffer.is_empty()) {
            self.read_exact_at(buffer, self.position)?;
        }
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Slice<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = seek_to(to, self.position, self.size)?;
        Ok(self.position)
    }
}

impl std::fmt::Debug for Slice<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { start, size, position, .. } = self;
        f.debug_struct("Slice").field("start", start).field("size", size).field("position", position).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn a_slice_is_read_within_its_ends() {
        let source = Mutex::new(Cursor::new((0..100).collect::<Vec<u8>>()));
        let (mut slice, mut read) = (Slice::new(&source, 10, 20), [0; 4]);
        slice.read_exact_at(&mut read, 16).unwrap();
        assert_eq!(read, [26, 27, 28, 29]);
        for offset in [17, 20, 100, u64::MAX] {
            assert_eq!(slice.read_exact_at(&mut read, offset).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
        let mut all = Vec::new();
        assert_eq!((slice.read_to_end(&mut all).unwrap(), all[0], all[19]), (20, 10, 29));
        assert_eq!(
            (slice.seek(SeekFrom::End(-1)).unwrap(), slice.read(&mut read).unwrap(), read[0]),
            (19, 1, 29)
        );
        assert_eq!((slice.seek(SeekFrom::Start(99)).unwrap(), slice.read(&mut read).unwrap()), (99, 0));
        let beyond = Slice::new(&source, u64::MAX - 1, u64::MAX);
        assert!(beyond.read_exact_at(&mut read, 5).is_err());
        assert_eq!(Slice::whole(&slice).unwrap().size().unwrap(), 20);
    }
}
