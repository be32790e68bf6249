//! Finding a tree that is there.

use plyfold_core::{Error, ReadAt, Result};

use crate::layout::{SUPERBLOCK_SIZE, TreeLayout, appended_at};
use crate::leaves::read;
use crate::parameters::Parameters;
use crate::superblock;
use crate::tree_uuid::Uuid;

const BLOCK_SIZES: [u32; 4] = [4096, 512, 1024, 2048];

impl TreeLayout {
    /// Reads the superblock at `hash_offset`, in bytes, with its UUID.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for what is not one, or is damaged;
    /// [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for another version, hash type or algorithm, and for larger
    /// blocks; [`Io`](plyfold_core::ErrorKind::Io).
    pub fn read(tree: &dyn ReadAt, hash_offset: u64) -> Result<(Self, Uuid)> {
        let mut bytes = [0; SUPERBLOCK_SIZE as usize];
        read(tree, &mut bytes, hash_offset)?;
        Self::of_superblock(&bytes, hash_offset)
    }

    /// The same of the 512 bytes that were read there.
    ///
    /// # Errors
    /// Those of [`read`](Self::read), without `Io`.
    pub fn of_superblock(bytes: &[u8; 512], hash_offset: u64) -> Result<(Self, Uuid)> {
        superblock::decode(bytes, hash_offset)
    }

    /// The tree that a file ends with, if there is one with a superblock behind all data, as
    /// [`appended`](Self::appended) places it. The size of the file says where that would be.
    ///
    /// # Errors
    /// Those of [`read`](Self::read) for a superblock that is damaged.
    pub fn find(file: &dyn ReadAt) -> Result<Option<(Self, Uuid)>> {
        let size = file.size().map_err(|e| Error::io("looking at the file", e))?;
        for data_block in BLOCK_SIZES {
            for hash_block in BLOCK_SIZES {
                let parameters = Parameters::default().with_data_block_size(data_block)?;
                let parameters = parameters.with_hash_block_size(hash_block)?;
                let Some(expected) = Self::ending_at(&parameters, size, true) else { continue };
                let mut signature = [0; 8];
                read(file, &mut signature, expected.hash_offset())?;
                if signature != superblock::SIGNATURE {
                    continue;
                }
                let found = Self::read(file, expected.hash_offset())?;
                let covered = appended_at(found.0.parameters(), found.0.data_size());
                if (covered, found.0.end()) == (found.0.hash_offset(), size) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// The tree without a superblock that a file of this size, in bytes, ends with. `None` where no size of the data, or
    /// more than one, makes such a file: data whose blocks are smaller than those of the tree are padded.
    pub fn bare(parameters: &Parameters, size: u64) -> Option<Self> {
        let found = Self::ending_at(parameters, size, false)?;
        let next = Self::behind(parameters, found.data_blocks() + 1, false);
        if next.is_some_and(|next| next.end() == size) { None } else { Some(found) }
    }

    /// The least data that make a file of this size with a tree behind them.
    fn ending_at(parameters: &Parameters, size: u64, has_superblock: bool) -> Option<Self> {
        // More data never make a smaller file.
        let (mut least, mut most) = (1, size / u64::from(parameters.data_block_size()));
        while least < most {
            let middle = least + (most - least) / 2;
            match Self::behind(parameters, middle, has_superblock) {
                Some(layout) if layout.end() < size => least = middle + 1,
                _ => most = middle,
            }
        }
        Self::behind(parameters, least, has_superblock).filter(|layout| layout.end() == size)
    }

    fn behind(parameters: &Parameters, blocks: u64, has_superblock: bool) -> Option<Self> {
        let data_size = blocks.checked_mul(u64::from(parameters.data_block_size()))?;
        Self::new(parameters.clone(), blocks, appended_at(parameters, data_size), has_superblock).ok()
    }
}
