//! The hash tree of a directory, once it is read.

use crate::hash::NameHash;

/// The tree of a directory, which has each of its blocks once.
pub(crate) struct Tree {
    pub(crate) hash: NameHash,
    pub(crate) version: u8,
    /// Where the hashes of each leaf begin, in order, and its block. The lowest bit is set where the leaf before it may have
    /// names of this hash, too.
    pub(crate) leaves: Vec<(u32, u32)>,
    /// All blocks in order, and which leaf each is, if it is one.
    pub(crate) blocks: Vec<(u32, Option<u32>)>,
}

impl Tree {
    /// Whether a name is found in a block of the directory.
    pub(crate) fn leads_to(&self, name: &[u8], block: u64) -> bool {
        let at = self.blocks.binary_search_by_key(&block, |(block, _)| u64::from(*block));
        let leaf = at.ok().and_then(|at| self.blocks[at].1).map(|leaf| &self.leaves[leaf as usize..]);
        let (Some([(first, _), rest @ ..]), Some(hash)) = (leaf, self.hash.hash(self.version, name)) else {
            return false;
        };
        first & !1 <= hash && rest.first().is_none_or(|(next, _)| hash < *next)
    }

    /// The blocks that may have a name.
    pub(crate) fn blocks_of(&self, name: &[u8]) -> impl Iterator<Item = u32> {
        let hash = self.hash.hash(self.version, name).unwrap_or_default();
        let first = self.leaves.partition_point(|(first, _)| *first <= hash).saturating_sub(1);
        // Names of one hash may go on in the next leaf.
        let leaves = self.leaves[first..].iter().enumerate();
        let leaves = leaves.take_while(move |(at, (first, _))| *at == 0 || first & !1 == hash);
        leaves.map(|(_, (_, block))| *block)
    }
}
