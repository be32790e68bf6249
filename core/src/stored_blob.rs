//! The file of a blob that is kept on this machine.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use crate::{Blob, Error, Result};

/// Reads the file of a blob from its first byte on, whatever else is read through the same descriptor. Nothing is verified.
#[derive(Debug)]
pub(crate) struct StoredBlob {
    file: File,
    at: u64,
}

impl StoredBlob {
    /// The file of a blob, if it has one of the blob's size.
    pub(crate) fn take(blob: &mut Blob) -> Option<Self> {
        let file = blob.take_file()?;
        let is_whole = file.metadata().is_ok_and(|found| found.len() == blob.descriptor().size());
        is_whole.then_some(Self { file, at: 0 })
    }

    /// The file itself.
    pub(crate) fn file(&self) -> Result<File> {
        self.file.try_clone().map_err(|e| Error::io("opening the file of a blob", e))
    }
}

/// The bytes of a blob: of its file, where it has one, or of its stream, which verifies them.
pub(crate) fn reader(mut blob: Blob) -> Box<dyn Read + Send> {
    match StoredBlob::take(&mut blob) {
        Some(file) => Box::new(file),
        None => Box::new(blob.into_reader()),
    }
}

impl Read for StoredBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
