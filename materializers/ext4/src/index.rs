//! The hash tree of a large directory (`directory.rst`, "Hash Tree Directories"), by which a name is found in a few blocks.
//! Linux lists a directory by its tree, too: a name that the tree does not lead to is not there.

use std::io::{Read, Seek};
use std::sync::Arc;

use plyfold_core::Result;

use crate::fault::Ext4Fault;
use crate::fields::{
    DX_BLOCK, DX_COUNT, DX_ENTRY, DX_HASH, DX_HASH_VERSION, DX_INDIRECT_LEVELS, DX_INFO, DX_INFO_LENGTH,
    DX_LIMIT, DX_NODE_ENTRIES, DX_TAIL, DX_UNUSED_FLAGS, INDEX_FL,
};
use crate::format::{le16, le32};
use crate::hash::NameHash;
use crate::mapping::bad;
use crate::names::{check, names_of};
use crate::reader::{FileSystem, StoredInode};
use crate::tree::Tree;

/// The most blocks of names: those of 2 GiB with blocks of 4 KiB.
const MOST: u64 = 1 << 19;

/// A tree that is being read.
struct Walk<'a> {
    directory: &'a StoredInode,
    leaves: Vec<(u32, u32)>,
    /// The root, and the nodes between it and the leaves.
    nodes: Vec<u32>,
}

impl<R: Read + Seek> FileSystem<R> {
    /// The tree of a directory. None where Linux does not use it: it is not looked for in this file system, or its root is not
    /// understood and has no checksum.
    pub(crate) fn tree(&mut self, directory: &StoredInode) -> Result<Option<Arc<Tree>>> {
        let Some(hash) = self.hash.filter(|_| directory.flags & INDEX_FL != 0) else { return Ok(None) };
        if let Some((number, tree)) = &self.tree
            && *number == directory.number
        {
            return Ok(tree.clone());
        }
        let tree = self.read_tree(directory, hash)?.map(Arc::new);
        self.tree = Some((directory.number, tree.clone()));
        Ok(tree)
    }

    fn read_tree(&mut self, directory: &StoredInode, hash: NameHash) -> Result<Option<Tree>> {
        let root = self.directory_block(directory, 0)?;
        let [version, length, levels, flags] =
            [DX_HASH_VERSION, DX_INFO_LENGTH, DX_INDIRECT_LEVELS, DX_UNUSED_FLAGS].map(|at| root[at]);
        let at = DX_INFO + usize::from(length);
        let is_known = hash.hash(version, b"").is_some()
            && flags & 1 == 0
            && levels <= if self.is_large_dir { 2 } else { 1 }
            && entries(directory, &root, at).is_some();
        let damaged = || bad(directory, "has a damaged hash tree");
        if !is_known {
            return if directory.checksum.is_none() { Ok(None) } else { Err(damaged()) };
        }
        let mut walk = Walk { directory, leaves: Vec::new(), nodes: vec![0] };
        self.below(&mut walk, &root, at, levels, 0)?;
        let Walk { leaves, nodes, .. } = walk;
        let mut blocks: Vec<_> = nodes.into_iter().map(|block| (block, None)).collect();
        blocks.extend((0..).zip(&leaves).map(|(leaf, (_, block))| (*block, Some(leaf))));
        blocks.sort_unstable();
        // The blocks from the first to the last, and each of them once.
        let are_all = (0..).zip(&blocks).all(|(number, (block, _))| number == *block);
        let is_whole = are_all && blocks.len() as u64 == directory.size / self.block_size;
        if !is_whole || !leaves.is_sorted_by_key(|(first, _)| *first) {
            return Err(damaged());
        }
        Ok(Some(Tree { hash, version, leaves, blocks }))
    }

    /// The leaves below a block of the tree, whose entries begin at a byte of it and have hashes from `first` on.
    fn below(&mut self, walk: &mut Walk<'_>, node: &[u8], at: usize, levels: u8, first: u32) -> Result<()> {
        let damaged = || bad(walk.directory, "has a damaged hash tree");
        let entries = entries(walk.directory, node, at).ok_or_else(damaged)?;
        if let Some(checksum) = walk.directory.checksum {
            // Behind the room for all entries is an unused number, and the checksum, which counts as zero.
            let (used, tail) = (&node[..at + entries.len() * DX_ENTRY], &node[node.len() - DX_TAIL..]);
            if checksum.over(&[used, &tail[..4], &[0; 4]]) != le32(tail, 4) {
                return Err(damaged());
            }
        }
        for (number, entry) in entries.iter().enumerate() {
            // The first one has the counts in place of a hash.
            let first = if number == 0 { first } else { le32(entry, DX_HASH) };
            let block = le32(entry, DX_BLOCK) & 0x0fff_ffff;
            if let Some(levels) = levels.checked_sub(1) {
                walk.nodes.push(block);
                let node = self.directory_block(walk.directory, block)?;
                self.below(walk, &node, DX_NODE_ENTRIES, levels, first)?;
            } else if walk.leaves.len() as u64 == MOST {
                return Err(Ext4Fault::Leaves(MOST).into());
            } else {
                walk.leaves.push((first, block));
            }
        }
        Ok(())
    }

    fn directory_block(&mut self, directory: &StoredInode, block: u32) -> Result<Vec<u8>> {
        // A block beyond the end is not one of the directory.
        let is_in = u64::from(block) < directory.size / self.block_size;
        let place = if is_in { self.run(directory, block.into())?.block } else { None };
        let place = place.ok_or_else(|| bad(directory, "has a hash tree of blocks that are not there"))?;
        let mut bytes = vec![0; self.block_size as usize];
        self.read(place, &mut bytes)?;
        Ok(bytes)
    }

    /// The number of the inode that has a name in a directory with a tree.
    pub(crate) fn number_by_hash(
        &mut self,
        directory: &StoredInode,
        tree: &Tree,
        name: &[u8],
    ) -> Result<Option<u32>> {
        let mut found = None;
        for block in tree.blocks_of(name) {
            let bytes = self.directory_block(directory, block)?;
            check(directory, false, &bytes)?;
            names_of(directory, self.inodes, &bytes, |number, other| {
                found = (other == name).then_some(number);
                Ok(found.is_some())
            })?;
            if found.is_some() {
                break;
            }
        }
        Ok(found)
    }
}

/// The entries of a block of a tree, if it has as many as it may have, and room for the most.
fn entries<'a>(directory: &StoredInode, node: &'a [u8], at: usize) -> Option<&'a [[u8; DX_ENTRY]]> {
    let tail = if directory.checksum.is_some() { DX_TAIL } else { 0 };
    let most = node.len().checked_sub(at + tail)? / DX_ENTRY;
    let (count, limit) = (usize::from(le16(node, at + DX_COUNT)), usize::from(le16(node, at + DX_LIMIT)));
    let is_right = limit == most && (1..=limit).contains(&count);
    is_right.then(|| node[at..at + count * DX_ENTRY].as_chunks().0)
}
