//! Files as disks: with their holes, and as what takes the changes of a delta.

use std::borrow::Borrow;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use plyfold_core::snapshot::delta::{Disk, Target};
use rustix::fs::FallocateFlags;

use crate::blocking::Stop;
use crate::data_from;

/// A file that is read as a disk.
pub(super) struct FileDisk<'a> {
    pub(super) file: &'a File,
    pub(super) stop: &'a Stop,
}

impl Disk for FileDisk<'_> {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.stop.check()?;
        self.file.read_exact_at(buffer, offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        data_from(self.file, offset)
    }
}

/// Reads a file from a place on, whatever others read of it.
pub(super) struct FileReader<F> {
    pub(super) file: F,
    pub(super) at: u64,
}

impl<F: Borrow<File>> Read for FileReader<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.borrow().read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// A disk that is written in place.
pub(super) struct WrittenDisk<'a>(pub(super) &'a File);

impl Target for WrittenDisk<'_> {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn clear(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if rustix::fs::fallocate(self.0, how, offset, length).is_ok() {
            return Ok(());
        }
        // A chunk at most.
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.write_at(&vec![0; length], offset)
    }
}
