//! An image that is hashed while a materializer writes it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::num::NonZero;

use plyfold_core::layer::TreeLimits;
use plyfold_core::{Error, HashTree, Output, RangeWrite, Result, Role, Sink, TreePlace};

use crate::layout::TreeLayout;
use crate::leaf_hasher::{LeafHasher, reading};
use crate::parameters::Parameters;

/// The longest gap that is passed over without an end of the hashing, in bytes.
const GAP: u64 = 1 << 20;

/// A sink whose image is hashed on its way.
pub(crate) struct HashedSink<'a>(pub(crate) HashedImage<'a>);

impl Sink for HashedSink<'_> {
    fn output(&mut self, role: Role) -> Result<&mut dyn Output> {
        match role {
            Role::Image => Ok(&mut self.0),
            other => self.0.sink.output(other),
        }
    }

    fn scratch(&mut self) -> Result<File> {
        self.0.sink.scratch()
    }

    fn limits(&self) -> TreeLimits {
        self.0.sink.limits()
    }
}

/// The image. What is written behind all the rest is hashed at once, by other threads. What is written elsewhere, or copied
/// from another file, is read again at the end.
pub(crate) struct HashedImage<'a> {
    sink: &'a mut dyn Sink,
    hasher: LeafHasher,
    /// The position of the output.
    at: u64,
    /// Whether what is written behind the bytes that were hashed is hashed, too.
    is_feeding: bool,
    /// Chunks, by their number, that were written to after they were hashed.
    changed: BTreeSet<u64>,
}

impl<'a> HashedImage<'a> {
    pub(crate) fn new(
        sink: &'a mut dyn Sink,
        parameters: Parameters,
        threads: Option<NonZero<usize>>,
    ) -> Self {
        let hasher = LeafHasher::new(parameters, threads);
        Self { sink, hasher, at: 0, is_feeding: true, changed: BTreeSet::new() }
    }

    /// Writes the tree of all that the image has.
    pub(crate) fn finish(mut self, place: TreePlace) -> Result<HashTree> {
        let image = self.image()?;
        let size = image.flush().and_then(|()| image.seek(SeekFrom::End(0)));
        let size = size.map_err(|e| Error::io("finding the size of the image", e))?;
        let parameters = self.hasher.parameters.clone();
        let (role, layout) = match place {
            TreePlace::Separate => (Role::HashTree, TreeLayout::beside(parameters, size)?),
            _ => (Role::Image, TreeLayout::appended(parameters, size)?),
        };
        let behind = SeekFrom::Start(self.hasher.fed());
        self.image()?.seek(behind).map_err(reading)?;
        let read = |sink: &mut dyn Sink, piece: &mut [u8]| sink.output(Role::Image)?.read_exact(piece);
        self.hasher.read_to(size, self.sink, read)?;
        self.hash_changed(size)?;
        let root = self.hasher.write(&layout, role, self.sink)?;
        layout.hash_tree(&root, place)
    }

    fn image(&mut self) -> Result<&mut dyn Output> {
        self.sink.output(Role::Image)
    }

    /// Takes note of what was written at the position.
    fn written(&mut self, bytes: &[u8]) -> Result<()> {
        let (start, end) = (self.at, self.at + bytes.len() as u64);
        self.at = end;
        let fed = self.hasher.fed();
        self.change(start..end.min(fed));
        let Some(new) = bytes.get(fed.saturating_sub(start) as usize..) else { return Ok(()) };
        if new.is_empty() || !self.is_feeding {
            return Ok(());
        }
        let gap = start.saturating_sub(fed);
        if gap > GAP {
            self.is_feeding = false;
            return Ok(());
        }
        if gap > 0 {
            // What is there may be written later, or before.
            self.hasher.feed(&vec![0; gap as usize], self.sink)?;
            self.change(fed..fed + gap);
        }
        self.hasher.feed(new, self.sink)
    }

    /// Chunks that are to be hashed again.
    fn change(&mut self, range: std::ops::Range<u64>) {
        if !range.is_empty() {
            let size = self.hasher.chunk_size();
            self.changed.extend(range.start / size..=(range.end - 1) / size);
        }
    }

    /// Hashes again what has changed.
    fn hash_changed(&mut self, size: u64) -> Result<()> {
        let (chunk_size, mut chunk) = (self.hasher.chunk_size(), Vec::new());
        for number in std::mem::take(&mut self.changed) {
            let start = number * chunk_size;
            chunk.resize(chunk_size.min(size - start) as usize, 0);
            let image = self.sink.output(Role::Image)?;
            let read = image.seek(SeekFrom::Start(start)).and_then(|_| image.read_exact(&mut chunk));
            read.map_err(reading)?;
            self.hasher.replace(number, &chunk)?;
        }
        Ok(())
    }
}

impl Read for HashedImage<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.image()?.read(buffer)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for HashedImage<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.image()?.write(bytes)?;
        self.written(&bytes[..count])?;
        Ok(count)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = self.image()?.write_vectored(pieces)?;
        let mut left = count;
        for piece in pieces {
            let now = piece.len().min(left);
            self.written(&piece[..now])?;
            left -= now;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.image()?.flush()
    }
}

impl Seek for HashedImage<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.image()?.seek(to)?;
        Ok(self.at)
    }
}

impl Output for HashedImage<'_> {
    fn set_len(&mut self, length: u64) -> io::Result<()> {
        self.image()?.set_len(length)?;
        if length < self.hasher.fed() {
            // All that is left is hashed at the end.
            self.hasher.clear()?;
            self.changed.clear();
            self.is_feeding = false;
        }
        Ok(())
    }
}

impl RangeWrite for HashedImage<'_> {
    fn copy_range(&mut self, source: &File, from: u64, length: u64) -> io::Result<()> {
        self.image()?.copy_range(source, from, length)?;
        let (end, fed) = (self.at + length, self.hasher.fed());
        self.change(self.at..end.min(fed));
        // It may share blocks of a disk with the source: to read it here would be no gain.
        self.is_feeding &= end <= fed;
        self.at = end;
        Ok(())
    }
}
