//! The file that is patched.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use plyfold_core::blocking::Stop;
use plyfold_core::{Error, Output, RangeWrite, Result};

use crate::fault::ErofsFault;

/// Bits of a mode that let anyone write.
const WRITABLE: u32 = 0o222;

/// A file by offsets. Tests have one that loses what was not synced.
pub(super) trait PatchFile: Sync {
    fn length(&self) -> io::Result<u64>;
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize>;
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// All that was written before is on the disk then, and the length.
    fn sync(&self) -> io::Result<()>;
}

impl PatchFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, bytes, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, at)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A file that no other process patches meanwhile.
pub(super) struct Locked<'a>(&'a File);

impl<'a> Locked<'a> {
    /// Locks it, unless it is one that must not change.
    pub(super) fn new(file: &'a File) -> Result<Self> {
        let found = file.metadata().map_err(|e| Error::io("looking at the image", e))?;
        if !found.is_file() {
            return Err(ErofsFault::PatchKind.into());
        }
        // Root may write to it all the same.
        if found.mode() & WRITABLE == 0 {
            return Err(ErofsFault::PatchReadOnly.into());
        }
        if found.nlink() > 1 {
            return Err(ErofsFault::PatchNames(found.nlink()).into());
        }
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(ErofsFault::PatchLocked.into()),
            Err(TryLockError::Error(e)) => Err(Error::io("locking the image", e)),
        }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // The end of the process unlocks it, too.
        drop(self.0.unlock());
    }
}

/// A file with a position of its own.
pub(super) struct Cursor<'a> {
    file: &'a dyn PatchFile,
    at: u64,
    stop: Stop,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a dyn PatchFile, stop: &Stop) -> Self {
        Self { file, at: 0, stop: stop.clone() }
    }
}

impl Read for Cursor<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stop.check()?;
        let count = self.file.read_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for Cursor<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stop.check()?;
        let count = self.file.write_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, offset) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::Current(offset) => (self.at, offset),
            SeekFrom::End(offset) => (self.file.length()?, offset),
        };
        self.at = base.checked_add_signed(offset).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

impl RangeWrite for Cursor<'_> {}

impl Output for Cursor<'_> {
    fn set_len(&mut self, length: u64) -> io::Result<()> {
        self.file.set_length(length)
    }
}

/// The last parts of files, and indexes, until the metadata is written. Their addresses go on where the image ends.
pub(super) struct Rests {
    file: File,
    image_end: u64,
    gathered: Vec<u8>,
    written: u64,
}

/// Bytes gathered before they are written.
const GATHER: usize = 256 << 10;

impl Rests {
    pub(super) fn new(file: File, image_end: u64) -> Self {
        Self { file, image_end, gathered: Vec::new(), written: 0 }
    }

    /// Keeps bytes; their address.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<u64> {
        let address = self.image_end + self.written + self.gathered.len() as u64;
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHER {
            self.flush()?;
        }
        Ok(address)
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        let written = self.file.write_all_at(&self.gathered, self.written);
        written.map_err(|e| Error::io("writing to a temporary file", e))?;
        self.written += self.gathered.len() as u64;
        self.gathered.clear();
        Ok(())
    }

    /// Reads bytes of the image, or kept ones that were flushed.
    pub(super) fn read(&self, image: &dyn PatchFile, at: u64, bytes: &mut [u8]) -> Result<()> {
        if let Some(at) = at.checked_sub(self.image_end) {
            let read = self.file.read_exact_at(bytes, at);
            return read.map_err(|e| Error::io("reading a temporary file back", e));
        }
        read_exact(image, at, bytes)
    }
}

pub(super) fn read_exact(file: &dyn PatchFile, at: u64, bytes: &mut [u8]) -> Result<()> {
    let read = Cursor { file, at, stop: Stop::default() }.read_exact(bytes);
    read.map_err(|e| Error::io("reading an image", e))
}

pub(super) fn write_all(file: &dyn PatchFile, at: u64, bytes: &[u8]) -> Result<()> {
    let written = Cursor { file, at, stop: Stop::default() }.write_all(bytes);
    written.map_err(|e| Error::io("writing the image", e))
}
