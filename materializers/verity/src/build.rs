//! Making a tree.

use std::io::SeekFrom;

use plyfold_core::{Error, ErrorKind, HashTree, Output, ReadAt, Result, TreePlace};

use crate::layout::{DIGEST, TreeLayout};
use crate::leaves::{BlockHash, Chunks, each_chunk};
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
        Tree::new(self, &mut |_, _| Ok(())).of_file(data, work)
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
        let root = Tree::new(self, &mut |at, blocks| put(out, at, blocks)).of_file(data, work)?;
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

/// A tree that grows from its leaves on.
pub(crate) struct Tree<'a> {
    layout: &'a TreeLayout,
    /// Writes blocks from a byte on.
    put: &'a mut dyn FnMut(u64, &[u8]) -> Result<()>,
    hash: BlockHash,
    /// Of each level the digests of a block that is not complete yet. Those of the lowest are not used.
    open: Vec<Vec<u8>>,
    /// How many blocks of each level are written.
    written: Vec<u64>,
    root: Option<RootHash>,
}

impl<'a> Tree<'a> {
    pub(crate) fn new(layout: &'a TreeLayout, put: &'a mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Self {
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
        each_chunk(self.layout, data, work, |_, leaves| self.leaves(leaves))?;
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
        (self.put)(offset, blocks)
    }

    fn block_size(&self) -> usize {
        self.layout.parameters().hash_block_size() as usize
    }
}

fn put(out: &mut dyn Output, offset: u64, bytes: &[u8]) -> Result<()> {
    let written = out.seek(SeekFrom::Start(offset)).and_then(|_| out.write_all(bytes));
    written.map_err(|e| Error::io("writing a hash tree", e))
}
