//! The files of an image while its layers are read.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::data::{Contents, Place, SPOOL, Watched};
use crate::durable::temporary_file;
use crate::{Error, Result};

/// File systems share whole blocks (`FICLONERANGE`), and most have blocks of so many bytes.
const BLOCK: u64 = 4096;
/// Files of layers that are held open.
pub(super) const OPEN_FILES: usize = 128;
/// Bytes on their way to the spool.
const BUFFER: usize = 256 << 10;

/// The spool, which is made when it is needed, and the files in which content lies already.
pub(super) struct Gathered<'a> {
    scratch: &'a Path,
    out: Option<BufWriter<File>>,
    length: u64,
    files: Vec<Watched>,
}

impl<'a> Gathered<'a> {
    pub(super) fn new(scratch: &'a Path) -> Self {
        Self { scratch, out: None, length: 0, files: Vec::new() }
    }

    /// The number that the next file would have; `None` when enough are held open.
    pub(super) fn next_number(&self) -> Option<u16> {
        let next = self.files.len() + 1;
        u16::try_from(next).ok().filter(|_| next <= OPEN_FILES)
    }

    /// Holds a file open.
    pub(super) fn hold(&mut self, file: Watched) {
        self.files.push(file);
    }

    /// Begins a run of `length` bytes, which has its place in the file at `offset`: where it will lie.
    pub(super) fn begin(&mut self, offset: u64, length: u64) -> Result<Place> {
        if length >= BLOCK {
            let beyond = (self.length + BLOCK - offset % BLOCK) % BLOCK;
            self.write(&[0; BLOCK as usize][..((BLOCK - beyond) % BLOCK) as usize])?;
        }
        Place::new(SPOOL, self.length)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.length += bytes.len() as u64;
        let out = match &mut self.out {
            Some(out) => out,
            made => made.insert(BufWriter::with_capacity(BUFFER, temporary_file(self.scratch)?)),
        };
        let written = out.write_all(bytes);
        written.map_err(|e| spooling(e).with_context("path", self.scratch.display()))
    }

    /// Copies a run of a file into the spool; where it lies.
    pub(super) fn copy(&mut self, file: &File, at: u64, (offset, length): (u64, u64)) -> Result<Place> {
        let place = self.begin(offset, length)?;
        let mut buffer = vec![0; BUFFER.min(usize::try_from(length).unwrap_or(BUFFER))];
        let mut done = 0;
        while done < length {
            let count = (length - done).min(buffer.len() as u64) as usize;
            let read = file.read_exact_at(&mut buffer[..count], at + done);
            read.map_err(|e| Error::io("reading a layer's content", e))?;
            self.write(&buffer[..count])?;
            done += count as u64;
        }
        Ok(place)
    }

    pub(super) fn finish(self) -> Result<Contents> {
        let Self { scratch, out, files, .. } = self;
        let flush = |out: BufWriter<File>| {
            let at = |e: Error| e.with_context("path", scratch.display());
            out.into_inner().map_err(|e| at(spooling(e.into_error())))
        };
        Ok(Contents { spool: out.map(flush).transpose()?, files })
    }
}

fn spooling(error: std::io::Error) -> Error {
    Error::io("writing the image's content to a temporary file", error)
}
