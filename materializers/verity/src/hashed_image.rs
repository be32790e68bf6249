//! An image that is hashed while a materializer writes it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::num::NonZero;

use plyfold_core::layer::TreeLimits;
use plyfold_core::{Error, HashTree, Output, Result, Role, Sink, TreePlace};

use crate::build::Tree;
use crate::layout::TreeLayout;
use crate::leaves::{BlockHash, Chunks, hash_chunk};
use crate::parameters::Parameters;
use crate::pool::{HashPool, HashedChunk};
use crate::spool::LeafSpool;
use crate::superblock;
use crate::tree_uuid::Uuid;
use crate::work::all_threads;

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
    parameters: Parameters,
    pool: HashPool,
    leaves: LeafSpool,
    /// The position of the output.
    at: u64,
    /// The bytes from the start on that were handed to the pool, or are in `chunk`.
    fed: u64,
    /// Whether what is written behind them is hashed.
    is_feeding: bool,
    /// The part of a chunk.
    chunk: Vec<u8>,
    /// Chunks, by their number, that were written to after they were hashed.
    changed: BTreeSet<u64>,
}

impl<'a> HashedImage<'a> {
    pub(crate) fn new(
        sink: &'a mut dyn Sink,
        parameters: Parameters,
        threads: Option<NonZero<usize>>,
    ) -> Self {
        let pool = HashPool::new(parameters.clone(), threads.unwrap_or_else(all_threads));
        let (leaves, changed) = (LeafSpool::default(), BTreeSet::new());
        let (at, fed, is_feeding, chunk) = (0, 0, true, Vec::new());
        Self { sink, parameters, pool, leaves, at, fed, is_feeding, chunk, changed }
    }

    /// Writes the tree of all that the image has.
    pub(crate) fn finish(mut self, place: TreePlace) -> Result<HashTree> {
        let image = self.image()?;
        let size = image.flush().and_then(|()| image.seek(SeekFrom::End(0)));
        let size = size.map_err(|e| Error::io("finding the size of the image", e))?;
        let (role, layout) = match place {
            TreePlace::Separate => (Role::HashTree, TreeLayout::beside(self.parameters.clone(), size)?),
            _ => (Role::Image, TreeLayout::appended(self.parameters.clone(), size)?),
        };
        self.hash_rest(size)?;
        self.hash_changed(size)?;
        let Self { sink, leaves, .. } = self;
        let mut put = |at, bytes: &[u8]| {
            let out = sink.output(role)?;
            let written = out.seek(SeekFrom::Start(at)).and_then(|_| out.write_all(bytes));
            written.map_err(|e| Error::io("writing a hash tree", e))
        };
        let root = Tree::new(&layout, &mut put).of_leaves(&leaves)?;
        put(layout.hash_offset(), &superblock::encode(&layout, Uuid::derived(&root)))?;
        // Where there is one block of data, nothing follows the superblock.
        let out = sink.output(role)?;
        let sized = out.set_len(layout.end()).and_then(|()| out.flush());
        sized.map_err(|e| Error::io("setting the length of a hash tree", e))?;
        layout.hash_tree(&root, place)
    }

    fn image(&mut self) -> Result<&mut dyn Output> {
        self.sink.output(Role::Image)
    }

    fn chunk_size(&self) -> u64 {
        Chunks::size(&self.parameters)
    }

    /// Takes note of what was written at the position.
    fn written(&mut self, bytes: &[u8]) -> Result<()> {
        let (start, end) = (self.at, self.at + bytes.len() as u64);
        self.at = end;
        self.change(start..end.min(self.fed));
        let Some(new) = bytes.get(self.fed.saturating_sub(start) as usize..) else { return Ok(()) };
        if new.is_empty() || !self.is_feeding {
            return Ok(());
        }
        let gap = start.saturating_sub(self.fed);
        if gap > GAP {
            self.is_feeding = false;
            return Ok(());
        }
        if gap > 0 {
            // What is there may be written later, or before.
            let before = self.fed;
            self.feed(&vec![0; gap as usize])?;
            self.change(before..self.fed);
        }
        self.feed(new)
    }

    /// Chunks that are to be hashed again.
    fn change(&mut self, range: std::ops::Range<u64>) {
        if !range.is_empty() {
            let size = self.chunk_size();
            self.changed.extend(range.start / size..=(range.end - 1) / size);
        }
    }

    fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        let size = self.chunk_size() as usize;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(size - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            self.fed += now.len() as u64;
            bytes = later;
            if self.chunk.len() == size {
                self.push()?;
            }
        }
        Ok(())
    }

    /// Hands the chunk to the pool, and takes an empty one.
    fn push(&mut self) -> Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        let hashed = self.pool.push(chunk)?;
        self.chunk = hashed.map_or_else(|| Ok(Vec::new()), |hashed| self.keep(hashed))?;
        let size = self.chunk_size() as usize;
        self.chunk.reserve_exact(size.saturating_sub(self.chunk.capacity()));
        Ok(())
    }

    /// Keeps the digests of a chunk, which is emptied.
    fn keep(&mut self, (mut chunk, leaves): HashedChunk) -> Result<Vec<u8>> {
        self.leaves.push(&leaves, self.sink)?;
        chunk.clear();
        Ok(chunk)
    }

    /// Hashes what is behind the bytes that were hashed on their way.
    fn hash_rest(&mut self, size: u64) -> Result<()> {
        let behind = SeekFrom::Start(self.fed);
        self.image()?.seek(behind).map_err(reading)?;
        while self.fed < size {
            let filled = self.chunk.len();
            let count = (self.chunk_size() - filled as u64).min(size - self.fed);
            let mut chunk = std::mem::take(&mut self.chunk);
            chunk.resize(filled + count as usize, 0);
            self.image()?.read_exact(&mut chunk[filled..]).map_err(reading)?;
            self.chunk = chunk;
            self.fed += count;
            if self.chunk.len() as u64 == self.chunk_size() {
                self.push()?;
            }
        }
        if !self.chunk.is_empty() {
            self.push()?;
        }
        while let Some(hashed) = self.pool.take()? {
            self.keep(hashed)?;
        }
        Ok(())
    }

    /// Hashes again what has changed.
    fn hash_changed(&mut self, size: u64) -> Result<()> {
        let chunk_size = self.chunk_size();
        let leaves_size = Chunks::leaves(&self.parameters);
        let hash = BlockHash::new(self.parameters.salt());
        for number in std::mem::take(&mut self.changed) {
            let start = number * chunk_size;
            self.chunk.resize(chunk_size.min(size - start) as usize, 0);
            let image = self.sink.output(Role::Image)?;
            let read = image.seek(SeekFrom::Start(start)).and_then(|_| image.read_exact(&mut self.chunk));
            read.map_err(reading)?;
            let leaves = hash_chunk(&self.parameters, &self.chunk, &hash);
            self.leaves.replace(&leaves, number * leaves_size)?;
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
        if length < self.fed {
            // All that is left is hashed at the end.
            while self.pool.take()?.is_some() {}
            self.chunk.clear();
            self.changed.clear();
            (self.leaves, self.fed, self.is_feeding) = (LeafSpool::default(), 0, false);
        }
        Ok(())
    }

    fn copy_range(&mut self, source: &File, from: u64, length: u64) -> io::Result<()> {
        self.image()?.copy_range(source, from, length)?;
        let end = self.at + length;
        self.change(self.at..end.min(self.fed));
        // It may share blocks of a disk with the source: to read it here would be no gain.
        self.is_feeding &= end <= self.fed;
        self.at = end;
        Ok(())
    }
}

fn reading(error: io::Error) -> Error {
    Error::io("reading the image", error)
}
