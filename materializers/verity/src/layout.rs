//! Where the blocks of a hash tree are: the levels, the root's first, behind the superblock if there is one.

use plyfold_core::Result;

use crate::fault::VerityFault;
use crate::parameters::Parameters;

/// The size of a superblock, in bytes.
pub(crate) const SUPERBLOCK_SIZE: u64 = 512;
/// The bytes of a digest.
pub(crate) const DIGEST: usize = 32;

/// What a hash tree is of, and where its blocks are: in a file of their own, or behind the data.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TreeLayout {
    parameters: Parameters,
    data_blocks: u64,
    hash_offset: u64,
    has_superblock: bool,
    /// The leaves first, the block that the root hash is of last; none for one block of data.
    levels: Vec<Level>,
    tree_offset: u64,
    end: u64,
}

/// The blocks of one level, in the order of what their digests are of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Level {
    /// Where the first one is, in bytes.
    pub(crate) offset: u64,
    pub(crate) blocks: u64,
}

impl TreeLayout {
    /// A tree in a file of its own, which begins with the superblock.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) when `data_size`, in bytes, is 0 or is not a multiple of the data
    /// block's: what is behind the last complete block would not be verified.
    /// [`Limit`](plyfold_core::ErrorKind::Limit) for a tree that no file holds.
    pub fn beside(parameters: Parameters, data_size: u64) -> Result<Self> {
        let blocks = data_blocks(&parameters, data_size)?;
        Self::new(parameters, blocks, 0, true)
    }

    /// A tree in the file of the data, behind it, at the next multiple of the hash block's size.
    ///
    /// # Errors
    /// As [`beside`](Self::beside).
    pub fn appended(parameters: Parameters, data_size: u64) -> Result<Self> {
        let blocks = data_blocks(&parameters, data_size)?;
        let offset = appended_at(&parameters, data_size);
        Self::new(parameters, blocks, offset, true)
    }

    /// The same without a superblock: the tree is where that would be, and who opens it has to know the rest.
    ///
    /// # Errors
    /// None for one that was made by [`beside`](Self::beside) or [`appended`](Self::appended).
    pub fn without_superblock(self) -> Result<Self> {
        Self::new(self.parameters, self.data_blocks, self.hash_offset, false)
    }

    /// Of so many blocks, with the superblock or the tree at `hash_offset`.
    pub(crate) fn new(
        parameters: Parameters,
        data_blocks: u64,
        hash_offset: u64,
        has_superblock: bool,
    ) -> Result<Self> {
        let hash_block = u64::from(parameters.hash_block_size());
        let behind = hash_offset.saturating_add(if has_superblock { SUPERBLOCK_SIZE } else { 0 });
        let too_large = || VerityFault::TooLarge(data_blocks, parameters.data_block_size());
        let tree_offset = behind.checked_next_multiple_of(hash_block).ok_or_else(too_large)?;
        let mut counts = Vec::new();
        let mut blocks = data_blocks;
        while blocks > 1 {
            blocks = blocks.div_ceil(hash_block / DIGEST as u64);
            counts.push(blocks);
        }
        let (mut offset, mut levels) = (tree_offset, Vec::with_capacity(counts.len()));
        for blocks in counts.into_iter().rev() {
            levels.push(Level { offset, blocks });
            let size = blocks.checked_mul(hash_block);
            offset = size.and_then(|size| offset.checked_add(size)).ok_or_else(too_large)?;
        }
        levels.reverse();
        let data_size = data_blocks.checked_mul(u64::from(parameters.data_block_size()));
        // off_t is signed.
        if data_size.is_none_or(|size| i64::try_from(size).is_err()) || i64::try_from(offset).is_err() {
            return Err(too_large().into());
        }
        Ok(Self { parameters, data_blocks, hash_offset, has_superblock, levels, tree_offset, end: offset })
    }

    /// Refuses a tree of less, or more, than a file's `size` in bytes: what it does not cover is not verified.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt).
    pub fn check_covers(&self, size: u64) -> Result<()> {
        if self.data_size() == size {
            Ok(())
        } else {
            Err(VerityFault::Covered(self.data_size(), size).into())
        }
    }

    /// What the tree depends on beside the data.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// How many blocks of data there are.
    pub fn data_blocks(&self) -> u64 {
        self.data_blocks
    }

    /// The bytes of data that are verified.
    pub fn data_size(&self) -> u64 {
        self.data_blocks * u64::from(self.parameters.data_block_size())
    }

    /// Where the superblock is, or the tree if there is none: the hash offset of veritysetup and of containerd, in bytes.
    pub fn hash_offset(&self) -> u64 {
        self.hash_offset
    }

    /// Whether there is a superblock.
    pub fn has_superblock(&self) -> bool {
        self.has_superblock
    }

    /// Where the first block of the tree is, in bytes: the hash start block of the kernel's table times its size.
    pub fn tree_offset(&self) -> u64 {
        self.tree_offset
    }

    /// Where the tree ends, in bytes: the least size of the file that it is in.
    pub fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn levels(&self) -> &[Level] {
        &self.levels
    }
}

/// Where a tree begins behind data: at a block of the tree, as both cryptsetup and containerd read it.
pub(crate) fn appended_at(parameters: &Parameters, data_size: u64) -> u64 {
    data_size.checked_next_multiple_of(u64::from(parameters.hash_block_size())).unwrap_or(u64::MAX)
}

fn data_blocks(parameters: &Parameters, data_size: u64) -> Result<u64> {
    let block = u64::from(parameters.data_block_size());
    match data_size {
        0 => Err(VerityFault::Empty.into()),
        size if !size.is_multiple_of(block) => {
            Err(VerityFault::Size(size, parameters.data_block_size()).into())
        }
        size => Ok(size / block),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(blocks: u64, hash_offset: u64) -> TreeLayout {
        TreeLayout::new(Parameters::default(), blocks, hash_offset, true).unwrap()
    }

    #[test]
    fn the_roots_level_is_the_first() {
        let offsets = |layout: &TreeLayout| {
            layout.levels().iter().map(|level| (level.offset / 4096, level.blocks)).collect::<Vec<_>>()
        };
        assert_eq!(offsets(&layout(1, 0)), []);
        assert_eq!(offsets(&layout(2, 0)), [(1, 1)]);
        assert_eq!(offsets(&layout(128, 0)), [(1, 1)]);
        assert_eq!(offsets(&layout(129, 0)), [(2, 2), (1, 1)]);
        assert_eq!(offsets(&layout(128 * 128 + 1, 4096)), [(5, 129), (3, 2), (2, 1)]);
        assert_eq!((layout(1, 0).end(), layout(2, 0).end(), layout(129, 4096).end()), (4096, 8192, 5 * 4096));
    }

    #[test]
    fn a_tree_behind_data_begins_at_a_block() {
        let mixed = Parameters::default().with_data_block_size(512).unwrap();
        let layout = TreeLayout::appended(mixed, 9 * 512).unwrap();
        assert_eq!((layout.hash_offset(), layout.tree_offset(), layout.data_size()), (8192, 12288, 9 * 512));
        let bare = layout.without_superblock().unwrap();
        assert_eq!((bare.hash_offset(), bare.tree_offset(), bare.has_superblock()), (8192, 8192, false));
    }

    #[test]
    fn sizes_that_no_file_has_are_errors() {
        for blocks in [u64::MAX, u64::MAX / 4096, 1 << 52, 1 << 51] {
            assert!(TreeLayout::new(Parameters::default(), blocks, 1 << 62, true).is_err(), "{blocks}");
        }
        assert!(TreeLayout::new(Parameters::default(), 1, u64::MAX, true).is_err());
        assert!(TreeLayout::beside(Parameters::default(), 0).is_err());
        assert!(TreeLayout::beside(Parameters::default(), 4097).is_err());
        let layout = TreeLayout::beside(Parameters::default(), 8192).unwrap();
        assert!(layout.check_covers(8192).is_ok());
        assert!(layout.check_covers(4096).is_err() && layout.check_covers(8193).is_err());
    }
}
