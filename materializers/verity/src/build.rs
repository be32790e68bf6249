//! Making a tree.

use std::io::SeekFrom;

use plyfold_core::{Error, ErrorKind, HashTree, Output, ReadAt, Result, TreePlace};

use crate::layout::{DIGEST, TreeLayout};
use crate::leaves::{BlockHash, Chunks, LeafHash, Piece, each_piece};
use crate::root_hash::RootHash;
use crate::spool::LeafSpool;
use crate::superblock;
use crate::tree_uuid::Uuid;
use crate::work::Work;

impl TreeLayout {
    /// The root hash of the data at the start of a file. No tree is written.
    ///
    /// # Errors
    /// [`Io`](plyfold_core::ErrorKind::Io), [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for a file that is shorter
    /// than the data, [`Cancelled`](plyfold_core::ErrorKind::Cancelled).
    pub fn root_hash(&self, data: &dyn ReadAt, work: &Work) -> Result<RootHash> {
        Tree::new(self, None).of_file(data, work)
    }

    /// Writes the tree of the data at the start of a file, and its superblock last; yields the root hash.
    ///
    /// `out` may be the file of the data, by another descriptor: for a tree [behind](Self::appended) them. It is made
    /// exactly as long as the tree needs. Without a `uuid` it is the one [derived](Uuid::derived) from the root hash.
    ///
    /// # Errors
    /// As [`root_hash`](Self::root_hash); those of `out`.
    pub fn write(
        &self,
        data: &dyn ReadAt,
        out: &mut dyn Output,
        uuid: Option<Uuid>,
        work: &Work,
    ) -> Result<RootHash> {
        out.set_len(self.end()).map_err(|e| Error::io("setting the length of a hash tree", e))?;
        let mut put_blocks = |at, blocks: &[u8]| {
            work.stop.check()?;
            put(out, at, blocks)
        };
        let root = Tree::new(self, Some(&mut put_blocks)).of_file(data, work)?;
        if self.has_superblock() {
            let superblock = superblock::encode(self, uuid.unwrap_or_else(|| Uuid::derived(&root)));
            put(out, self.hash_offset(), &superblock)?;
        }
        Ok(root)
    }

    /// What a reader has to know of a tree with this root hash, which has a superblock.
    ///
    /// # Errors
    /// None that is known.
    pub fn hash_tree(&self, root: &RootHash, place: TreePlace) -> Result<HashTree> {
        let digest = format!("sha256:{root}").parse();
        let digest =
            digest.map_err(|e| Error::new(ErrorKind::Internal, "a root hash is no digest").with_source(e))?;
        let parameters = self.parameters();
        let tree = HashTree::new(digest, self.data_blocks())
            .with_block_sizes(parameters.data_block_size(), parameters.hash_block_size())
            .with_salt(parameters.salt_hex());
        Ok(tree.at(place, self.hash_offset()))
    }
}

type Put<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<()>;

/// The bytes of equal blocks that are written at once.
const REPEATED: u64 = 1 << 20;

/// A tree that grows from its leaves on.
pub(crate) struct Tree<'a> {
    layout: &'a TreeLayout,
    /// Writes blocks from a byte on, if they are wanted.
    put: Option<Put<'a>>,
    hash: BlockHash,
    /// Of each level the digests of a block that is not complete yet. Those of the lowest are not used.
    open: Vec<Vec<u8>>,
    /// How many blocks of each level are written.
    written: Vec<u64>,
    root: Option<RootHash>,
}

impl<'a> Tree<'a> {
    pub(crate) fn new(layout: &'a TreeLayout, put: Option<Put<'a>>) -> Self {
        let levels = layout.levels().len();
        Self {
            layout,
            put,
            hash: BlockHash::new(layout.parameters().salt()),
            open: vec![Vec::new(); levels],
            written: vec![0; levels],
            root: None,
        }
    }

    fn of_file(mut self, data: &dyn ReadAt, work: &Work) -> Result<RootHash> {
        let (parameters, size) = (self.layout.parameters(), self.block_size());
        let zeros = LeafHash::new(parameters).zeros.repeat(size / DIGEST);
        let in_chunk = Chunks::leaves(parameters) / size as u64;
        each_piece(self.layout, data, work, |piece| match piece {
            Piece::Leaves(_, leaves) => self.leaves(leaves),
            Piece::Zeros(chunks) => self.repeat(0, &zeros, (chunks.end - chunks.start) * in_chunk),
        })?;
        self.finish()
    }

    /// Writes a tree whose lowest level is known.
    pub(crate) fn of_leaves(mut self, leaves: &LeafSpool) -> Result<RootHash> {
        let mut piece = Vec::new();
        let mut at = 0;
        while at < leaves.size() {
            piece.resize(Chunks::leaves(self.layout.parameters()).min(leaves.size() - at) as usize, 0);
            leaves.read(&mut piece, at)?;
            at += piece.len() as u64;
            self.leaves(&piece)?;
        }
        self.finish()
    }

    fn finish(mut self) -> Result<RootHash> {
        for level in 1..self.open.len() {
            if !self.open[level].is_empty() {
                self.close(level)?;
            }
        }
        self.root.ok_or_else(|| Error::new(ErrorKind::Internal, "a hash tree has no root"))
    }

    /// Takes blocks of the lowest level.
    fn leaves(&mut self, leaves: &[u8]) -> Result<()> {
        if self.open.is_empty() {
            // The digest of the only block of data.
            self.root = leaves.first_chunk().copied().map(RootHash::new);
            return Ok(());
        }
        self.write(0, leaves)?;
        for block in leaves.chunks_exact(self.block_size()) {
            self.add(1, self.hash.digest(block))?;
        }
        Ok(())
    }

    /// Takes so many equal blocks of a level. All digests of a complete block above them are equal, too: the work is that of
    /// one block for each level.
    fn repeat(&mut self, level: usize, block: &[u8], count: u64) -> Result<()> {
        let size = block.len() as u64;
        if self.put.is_none() {
            self.written[level] += count;
        } else {
            let blocks = block.repeat(count.min(REPEATED / size) as usize);
            let mut left = count * size;
            while left > 0 {
                let now = left.min(blocks.len() as u64);
                self.write(level, &blocks[..now as usize])?;
                left -= now;
            }
        }
        self.add_equal(level + 1, self.hash.digest(block), count)
    }

    /// Takes the digest of so many equal blocks of the level below.
    fn add_equal(&mut self, level: usize, digest: [u8; DIGEST], mut count: u64) -> Result<()> {
        let in_block = (self.block_size() / DIGEST) as u64;
        while count > 0 {
            if self.open.get(level).is_some_and(Vec::is_empty) && count >= in_block {
                self.repeat(level, &digest.repeat(in_block as usize), count / in_block)?;
                count %= in_block;
            } else {
                self.add(level, digest)?;
                count -= 1;
            }
        }
        Ok(())
    }

    /// Takes the digest of a block of the level below.
    fn add(&mut self, level: usize, digest: [u8; DIGEST]) -> Result<()> {
        let Some(open) = self.open.get_mut(level) else {
            self.root = Some(RootHash::new(digest));
            return Ok(());
        };
        open.extend_from_slice(&digest);
        if open.len() == self.block_size() { self.close(level) } else { Ok(()) }
    }

    /// Writes a block, whose digest goes to the level above.
    fn close(&mut self, level: usize) -> Result<()> {
        let mut block = std::mem::take(&mut self.open[level]);
        block.resize(self.block_size(), 0);
        self.write(level, &block)?;
        self.add(level + 1, self.hash.digest(&block))
    }

    fn write(&mut self, level: usize, blocks: &[u8]) -> Result<()> {
        let size = self.block_size() as u64;
        let offset = self.layout.levels()[level].offset + self.written[level] * size;
        self.written[level] += blocks.len() as u64 / size;
        self.put.as_mut().map_or(Ok(()), |put| put(offset, blocks))
    }

    fn block_size(&self) -> usize {
        self.layout.parameters().hash_block_size() as usize
    }
}

fn put(out: &mut dyn Output, offset: u64, bytes: &[u8]) -> Result<()> {
    let written = out.seek(SeekFrom::Start(offset)).and_then(|_| out.write_all(bytes));
    written.map_err(|e| Error::io("writing a hash tree", e))
}
