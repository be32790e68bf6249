//! The hash tree of a large directory (`directory.rst`, "Hash Tree Directories"), by which a name is found in a few blocks.

use std::io::{Read, Seek};

use plyfold_core::Result;

use crate::fields::{
    DX_BLOCK, DX_COUNT, DX_ENTRY, DX_HASH, DX_HASH_VERSION, DX_INDIRECT_LEVELS, DX_INFO_LENGTH, DX_LIMIT,
    DX_NODE_ENTRIES, DX_ROOT_ENTRIES, DX_UNUSED_FLAGS, INDEX_FL,
};
use crate::format::{le16, le32};
use crate::mapping::bad;
use crate::names::{check, names_of};
use crate::reader::{FileSystem, StoredInode};

/// The most levels between the root and the leaves, with `large_dir`.
const LEVELS: u8 = 2;
/// The most blocks that are read for one name: more of them have names of one hash only in a damaged tree.
const MOST: u32 = 1000;

/// A search for a name.
struct Search<'a> {
    directory: &'a StoredInode,
    name: &'a [u8],
    hash: u32,
    /// Blocks that may still be read.
    left: u32,
}

impl<R: Read + Seek> FileSystem<R> {
    /// As `number`, by the hash tree. Errors also where there is none, or one that is not understood.
    pub(crate) fn number_by_hash(&mut self, directory: &StoredInode, name: &[u8]) -> Result<Option<u32>> {
        let unusable = || bad(directory, "has no hash tree that can be used");
        let hash = self.hash.filter(|_| directory.flags & INDEX_FL != 0).ok_or_else(unusable)?;
        let mut search = Search { directory, name, hash: 0, left: MOST };
        let root = self.directory_block(&mut search, 0)?;
        let [version, length, levels, flags] =
            [DX_HASH_VERSION, DX_INFO_LENGTH, DX_INDIRECT_LEVELS, DX_UNUSED_FLAGS].map(|at| root[at]);
        if length != 8 || levels > LEVELS || flags != 0 {
            return Err(unusable());
        }
        search.hash = hash.hash(version, name).ok_or_else(unusable)?;
        self.below(&mut search, &root, DX_ROOT_ENTRIES, levels)
    }

    /// Searches below a block of the tree, whose entries begin there.
    fn below(&mut self, search: &mut Search<'_>, node: &[u8], at: usize, levels: u8) -> Result<Option<u32>> {
        let (count, limit) = (usize::from(le16(node, at + DX_COUNT)), usize::from(le16(node, at + DX_LIMIT)));
        let fits = (1..=limit).contains(&count) && at + limit * DX_ENTRY <= node.len();
        let sum = search.directory.checksum.filter(|_| fits).map(|checksum| {
            // Behind the room for all entries is an unused number, and the checksum, which counts as zero.
            let (entries, tail) = (&node[..at + count * DX_ENTRY], &node[at + limit * DX_ENTRY..]);
            (checksum.over(&[entries, &tail[..tail.len().min(4)], &[0; 4]]), le32(tail, 4))
        });
        if !fits || sum.is_some_and(|(sum, known)| sum != known) {
            return Err(bad(search.directory, "has a damaged hash tree"));
        }
        let (entries, _) = node[at..at + count * DX_ENTRY].as_chunks::<DX_ENTRY>();
        // The first entry has the counts in place of a hash: it is for all that are lower than the next one.
        let first = entries[1..].partition_point(|entry| le32(entry, DX_HASH) <= search.hash);
        for (number, entry) in entries.iter().enumerate().skip(first) {
            // Names of one hash may go on in the next block, whose lowest bit is set then.
            if number > first && le32(entry, DX_HASH) & !1 != search.hash {
                break;
            }
            let logical = u64::from(le32(entry, DX_BLOCK) & 0x0fff_ffff);
            let block = self.directory_block(search, logical)?;
            let found = match levels.checked_sub(1) {
                Some(levels) => self.below(search, &block, DX_NODE_ENTRIES, levels)?,
                None => in_leaf(search, self.inodes, &block)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn directory_block(&mut self, search: &mut Search<'_>, logical: u64) -> Result<Vec<u8>> {
        let block = self.run(search.directory, logical)?.block.filter(|_| search.left > 0);
        let block = block.ok_or_else(|| bad(search.directory, "has a damaged hash tree"))?;
        search.left -= 1;
        let mut bytes = vec![0; self.block_size as usize];
        self.read(block, &mut bytes)?;
        Ok(bytes)
    }
}

fn in_leaf(search: &Search<'_>, inodes: u32, block: &[u8]) -> Result<Option<u32>> {
    check(search.directory, false, block)?;
    let mut found = None;
    names_of(search.directory, inodes, block, |number, other| {
        found = (other == search.name).then_some(number);
        Ok(found.is_some())
    })?;
    Ok(found)
}
