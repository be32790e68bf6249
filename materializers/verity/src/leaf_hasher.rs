//! The lowest level of a tree of data that come in order, and then the tree.

use std::io::{self, SeekFrom};
use std::num::NonZero;

use plyfold_core::{Error, Result, Role, Sink};

use crate::build::Tree;
use crate::layout::TreeLayout;
use crate::leaves::{Chunks, LeafHash};
use crate::parameters::Parameters;
use crate::pool::{HashPool, HashedChunk};
use crate::root_hash::RootHash;
use crate::spool::LeafSpool;
use crate::superblock;
use crate::tree_uuid::Uuid;
use crate::work::all_threads;

/// Hashes data on other threads, chunk by chunk. The sink is where digests go that memory does not hold.
pub(crate) struct LeafHasher {
    pub(crate) parameters: Parameters,
    pool: HashPool,
    leaves: LeafSpool,
    /// The bytes from the start on that were handed to the pool, or are in `chunk`.
    fed: u64,
    /// The part of a chunk.
    chunk: Vec<u8>,
}

impl LeafHasher {
    pub(crate) fn new(parameters: Parameters, threads: Option<NonZero<usize>>) -> Self {
        let pool = HashPool::new(parameters.clone(), threads.unwrap_or_else(all_threads));
        Self { parameters, pool, leaves: LeafSpool::default(), fed: 0, chunk: Vec::new() }
    }

    /// The bytes from the start on that it has.
    pub(crate) fn fed(&self) -> u64 {
        self.fed
    }

    /// The bytes of a chunk.
    pub(crate) fn chunk_size(&self) -> u64 {
        Chunks::size(&self.parameters)
    }

    /// Takes the next bytes.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], sink: &mut dyn Sink) -> Result<()> {
        let size = self.chunk_size() as usize;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(size - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            self.fed += now.len() as u64;
            bytes = later;
            if self.chunk.len() == size {
                self.push(sink)?;
            }
        }
        Ok(())
    }

    /// Takes all the rest up to `size` from `read`, which fills a piece, and waits for the digests.
    pub(crate) fn read_to(
        &mut self,
        size: u64,
        sink: &mut dyn Sink,
        mut read: impl FnMut(&mut dyn Sink, &mut [u8]) -> io::Result<()>,
    ) -> Result<()> {
        while self.fed < size {
            let filled = self.chunk.len();
            let count = (self.chunk_size() - filled as u64).min(size - self.fed);
            self.chunk.resize(filled + count as usize, 0);
            read(sink, &mut self.chunk[filled..]).map_err(reading)?;
            self.fed += count;
            if self.chunk.len() as u64 == self.chunk_size() {
                self.push(sink)?;
            }
        }
        if !self.chunk.is_empty() {
            self.push(sink)?;
        }
        while let Some(hashed) = self.pool.take()? {
            self.keep(hashed, sink)?;
        }
        Ok(())
    }

    /// Forgets all that it has.
    pub(crate) fn clear(&mut self) -> Result<()> {
        while self.pool.take()?.is_some() {}
        self.chunk.clear();
        (self.leaves, self.fed) = (LeafSpool::default(), 0);
        Ok(())
    }

    /// Hashes a chunk again that is other than it was.
    pub(crate) fn replace(&mut self, number: u64, chunk: &[u8]) -> Result<()> {
        let leaves = LeafHash::new(&self.parameters).leaves(chunk);
        self.leaves.replace(&leaves, number * Chunks::leaves(&self.parameters))
    }

    /// Writes the tree of what was read, and its superblock last.
    pub(crate) fn write(self, layout: &TreeLayout, role: Role, sink: &mut dyn Sink) -> Result<RootHash> {
        let mut put = |at, bytes: &[u8]| {
            let out = sink.output(role)?;
            let written = out.seek(SeekFrom::Start(at)).and_then(|_| out.write_all(bytes));
            written.map_err(|e| Error::io("writing a hash tree", e))
        };
        let root = Tree::new(layout, Some(&mut put)).of_leaves(&self.leaves)?;
        put(layout.hash_offset(), &superblock::encode(layout, Uuid::derived(&root)))?;
        // Where there is one block of data, nothing follows the superblock.
        let out = sink.output(role)?;
        let sized = out.set_len(layout.end()).and_then(|()| out.flush());
        sized.map_err(|e| Error::io("setting the length of a hash tree", e))?;
        Ok(root)
    }

    /// Hands the chunk to the pool, and takes an empty one.
    fn push(&mut self, sink: &mut dyn Sink) -> Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        let hashed = self.pool.push(chunk)?;
        self.chunk = hashed.map_or_else(|| Ok(Vec::new()), |hashed| self.keep(hashed, sink))?;
        let size = self.chunk_size() as usize;
        self.chunk.reserve_exact(size.saturating_sub(self.chunk.capacity()));
        Ok(())
    }

    /// Keeps the digests of a chunk, which is emptied.
    fn keep(&mut self, (mut chunk, leaves): HashedChunk, sink: &mut dyn Sink) -> Result<Vec<u8>> {
        self.leaves.push(&leaves, sink)?;
        chunk.clear();
        Ok(chunk)
    }
}

pub(crate) fn reading(error: io::Error) -> Error {
    Error::io("reading the image", error)
}
