//! Verifying data and a tree against a root hash.

use plyfold_core::{ReadAt, Result};

use crate::fault::VerityFault;
use crate::layout::{DIGEST, SUPERBLOCK_SIZE, TreeLayout, appended_at};
use crate::leaves::{BlockHash, Chunks, LeafHash, Piece, each_piece, read};
use crate::root_hash::RootHash;
use crate::work::Work;

/// How much of the lowest level is read at once for a hole, in bytes.
const LEAVES: u64 = 1 << 20;

impl TreeLayout {
    /// Verifies a tree against its root hash, from the top down, and then the data against the tree. Everything is
    /// read but the UUID, which no digest covers.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) with a [`VerityFault`] that names the first block that does not
    /// match: of the tree before those of the data. [`Io`](plyfold_core::ErrorKind::Io),
    /// [`Cancelled`](plyfold_core::ErrorKind::Cancelled).
    pub fn verify(&self, root: &RootHash, data: &dyn ReadAt, tree: &dyn ReadAt, work: &Work) -> Result<()> {
        let hash = BlockHash::new(self.parameters().salt());
        self.verify_padding(tree)?;
        let found = self.stated_root(data, tree)?;
        if found != *root {
            return Err(VerityFault::Root(root.to_string(), found.to_string()).into());
        }
        for level in (1..self.levels().len()).rev() {
            self.verify_below(level, tree, &hash, work)?;
        }
        if self.levels().is_empty() {
            return Ok(());
        }
        self.verify_data(data, tree, work)
    }

    /// Before the superblock or the tree, up to the end of the data, and between the two there is nothing. Each is less
    /// than a block of the tree.
    fn verify_padding(&self, tree: &dyn ReadAt) -> Result<()> {
        let offset = self.hash_offset();
        let is_appended = appended_at(self.parameters(), self.data_size()) == offset;
        let before = if is_appended { self.data_size()..offset } else { offset..offset };
        let behind = offset + if self.has_superblock() { SUPERBLOCK_SIZE } else { 0 };
        for range in [before, behind..self.tree_offset()] {
            let mut padding = vec![0; (range.end - range.start) as usize];
            read(tree, &mut padding, range.start)?;
            if let Some(at) = padding.iter().position(|byte| *byte != 0) {
                return Err(VerityFault::Padding(range.start + at as u64).into());
            }
        }
        Ok(())
    }

    /// The root hash that a tree has, by its topmost block, or by the only block of the data: nothing else is read, and
    /// nothing is verified.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for a file that ends before; [`Io`](plyfold_core::ErrorKind::Io).
    pub fn stated_root(&self, data: &dyn ReadAt, tree: &dyn ReadAt) -> Result<RootHash> {
        let (file, offset, size) = match self.levels().last() {
            Some(top) => (tree, top.offset, self.parameters().hash_block_size()),
            None => (data, 0, self.parameters().data_block_size()),
        };
        let mut block = vec![0; size as usize];
        read(file, &mut block, offset)?;
        Ok(RootHash::new(BlockHash::new(self.parameters().salt()).digest(&block)))
    }

    /// The blocks of the level below `level`, whose own blocks are verified.
    fn verify_below(&self, level: usize, tree: &dyn ReadAt, hash: &BlockHash, work: &Work) -> Result<()> {
        let (above, below) = (self.levels()[level], self.levels()[level - 1]);
        let size = self.parameters().hash_block_size() as usize;
        let in_block = (size / DIGEST) as u64;
        let (mut digests, mut blocks) = (vec![0; size], Vec::new());
        for parent in 0..above.blocks {
            work.stop.check()?;
            read(tree, &mut digests, above.offset + parent * size as u64)?;
            let first = parent * in_block;
            blocks.resize(in_block.min(below.blocks - first) as usize * size, 0);
            read(tree, &mut blocks, below.offset + first * size as u64)?;
            let (used, unused) = digests.split_at(blocks.len() / size * DIGEST);
            if unused.iter().any(|byte| *byte != 0) {
                return Err(self.hash_block(level, parent));
            }
            for ((digest, block), index) in
                used.chunks_exact(DIGEST).zip(blocks.chunks_exact(size)).zip(first..)
            {
                if hash.digest(block) != digest {
                    return Err(self.hash_block(level - 1, index));
                }
            }
        }
        Ok(())
    }

    /// The data, by the lowest level of the tree, which is verified.
    fn verify_data(&self, data: &dyn ReadAt, tree: &dyn ReadAt, work: &Work) -> Result<()> {
        let zeros = LeafHash::new(self.parameters()).zeros;
        let (in_chunk, mut expected) = (Chunks::leaves(self.parameters()), Vec::new());
        each_piece(self, data, work, |piece| match piece {
            Piece::Leaves(chunk, found) => {
                let at = self.read_leaves(tree, chunk * in_chunk, found.len() as u64, &mut expected)?;
                let pairs = expected.chunks_exact(DIGEST).zip(found.chunks_exact(DIGEST));
                self.check_digests(at, pairs)
            }
            Piece::Zeros(chunks) => {
                let (mut at, end) = (chunks.start * in_chunk, chunks.end * in_chunk);
                while at < end {
                    work.stop.check()?;
                    let size = (end - at).min(LEAVES);
                    let first = self.read_leaves(tree, at, size, &mut expected)?;
                    self.check_digests(
                        first,
                        expected.chunks_exact(DIGEST).map(|digest| (digest, &zeros[..])),
                    )?;
                    at += size;
                }
                Ok(())
            }
        })
    }

    /// Digests from a byte of the lowest level on, which is that of the data block whose number is returned.
    fn read_leaves(&self, tree: &dyn ReadAt, at: u64, size: u64, into: &mut Vec<u8>) -> Result<u64> {
        into.resize(size as usize, 0);
        read(tree, into, self.levels()[0].offset + at)?;
        Ok(at / DIGEST as u64)
    }

    /// Compares digests of the lowest level, from that of a data block on, with those of the data.
    fn check_digests<'d>(
        &self,
        first: u64,
        mut pairs: impl Iterator<Item = (&'d [u8], &'d [u8])>,
    ) -> Result<()> {
        let Some(bad) = pairs.position(|(expected, found)| expected != found) else { return Ok(()) };
        let block = first + bad as u64;
        if block < self.data_blocks() {
            let at = block * u64::from(self.parameters().data_block_size());
            return Err(VerityFault::DataBlock(block, at).into());
        }
        // An unused place for a digest is not zero.
        Err(self.hash_block(0, self.levels()[0].blocks - 1))
    }

    fn hash_block(&self, level: usize, block: u64) -> plyfold_core::Error {
        let at = self.levels()[level].offset + block * u64::from(self.parameters().hash_block_size());
        VerityFault::HashBlock(level, block, at).into()
    }
}
