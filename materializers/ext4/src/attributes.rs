//! The extended attributes of all inodes: which sets there are, and where each is stored.

use std::collections::HashMap;

use plyfold_core::Result;
use plyfold_core::tree::Xattrs as Given;

use crate::extents::Extents;
use crate::format::{BLOCK_SIZE, Checksum};
use crate::xattr::Xattrs;

/// The most inodes that share a block (`EXT4_XATTR_REFCOUNT_MAX`).
const SHARED: u32 = 1024;

/// The sets of attributes of an image. Those of one content share blocks and values. They stay in the tree: a set is
/// encoded where it is written.
#[derive(Debug)]
pub(crate) struct AttributeTable {
    checksum: Checksum,
    /// The place of each in `sets`.
    places: HashMap<Given, usize>,
    sets: Vec<Set>,
}

#[derive(Debug)]
struct Set {
    given: Given,
    /// Inodes that have it, and those of them whose block is not written yet.
    inodes: u32,
    waiting: u32,
    /// The first of the inodes that values of it have, and how many there are.
    first: u32,
    values: u32,
    value_blocks: u64,
    is_block: bool,
    /// The block that was written last, and how many more inodes may have it.
    block: u64,
    left: u32,
}

/// Where the attributes of an inode go.
#[derive(Debug)]
pub(crate) enum Stored {
    /// Into the inode: its tail.
    Inode(Vec<u8>),
    /// Into a block that there is already.
    Block(u64),
    /// Into a new block, which so many inodes will have.
    NewBlock(Xattrs, u32),
}

/// A value that has an inode of its own.
pub(crate) struct LargeValue {
    pub(crate) value: Vec<u8>,
    pub(crate) checksum: u32,
    /// Blocks that refer to it.
    pub(crate) references: u32,
}

impl AttributeTable {
    pub(crate) fn new(checksum: Checksum) -> Self {
        Self { checksum, places: HashMap::new(), sets: Vec::new() }
    }

    /// Takes the attributes of one more inode.
    ///
    /// # Errors
    /// [`Limit`](plyfold_core::ErrorKind::Limit) for more than fits into one block, the values apart;
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for an ACL that is not one.
    pub(crate) fn add(&mut self, given: &Given) -> Result<()> {
        if given.is_empty() {
            return Ok(());
        }
        if let Some(place) = self.places.get(given) {
            self.sets[*place].inodes += 1;
            return Ok(());
        }
        let set = Xattrs::with_large_values(given, self.checksum)?;
        let values = set.large_values().count() as u32;
        let of = |(value, _): (&[u8], _)| value.len().div_ceil(BLOCK_SIZE) as u64;
        let value_blocks = set.large_values().map(of).sum();
        self.places.insert(given.clone(), self.sets.len());
        self.sets.push(Set {
            given: given.clone(),
            inodes: 1,
            waiting: 0,
            first: 0,
            values,
            value_blocks,
            // Each block refers once to the values that have inodes.
            is_block: values > 0 || set.block().is_some(),
            block: 0,
            left: 0,
        });
        Ok(())
    }

    /// Numbers the inodes of values from `first` on; how many there are, and how many blocks all attributes take.
    pub(crate) fn settle(&mut self, first: u32) -> (u32, u64) {
        let (mut number, mut blocks) = (first, 0);
        for set in self.sets.iter_mut().filter(|set| set.is_block) {
            blocks += u64::from(set.inodes.div_ceil(SHARED));
            (set.first, set.waiting) = (number, set.inodes);
            number += set.values;
            // A value is in one run, or in two at the end of a group.
            blocks += set.value_blocks + Extents::tree_blocks(2) * u64::from(set.values);
        }
        (number - first, blocks)
    }

    /// Whether a value has an inode of its own.
    pub(crate) fn has_large_values(&self) -> bool {
        self.sets.iter().any(|set| set.values > 0)
    }

    /// Where the attributes of the next inode with these go.
    pub(crate) fn store(&mut self, given: &Given) -> Result<Stored> {
        let Some(place) = self.places.get(given) else { return Ok(Stored::Inode(Vec::new())) };
        let set = &mut self.sets[*place];
        if set.left > 0 {
            set.left -= 1;
            return Ok(Stored::Block(set.block));
        }
        let mut stored = Xattrs::with_large_values(given, self.checksum)?;
        if !set.is_block {
            return Ok(Stored::Inode(stored.in_inode()));
        }
        stored.number(set.first);
        let sharing = set.waiting.min(SHARED);
        set.waiting -= sharing;
        set.left = sharing.saturating_sub(1);
        Ok(Stored::NewBlock(stored, sharing))
    }

    /// Notes where the new block of these attributes is.
    pub(crate) fn placed(&mut self, given: &Given, block: u64) {
        if let Some(place) = self.places.get(given) {
            self.sets[*place].block = block;
        }
    }

    /// Blocks of values in inodes of their own, which count as those of each inode that has them.
    pub(crate) fn value_blocks(&self, given: &Given) -> u64 {
        self.places.get(given).map_or(0, |place| self.sets[*place].value_blocks)
    }

    /// The number of sets.
    pub(crate) fn sets(&self) -> usize {
        self.sets.len()
    }

    /// The values of a set that have inodes, in the order of their numbers.
    pub(crate) fn values(&self, set: usize) -> Result<Vec<LargeValue>> {
        let set = &self.sets[set];
        if set.values == 0 {
            return Ok(Vec::new());
        }
        let stored = Xattrs::with_large_values(&set.given, self.checksum)?;
        let references = set.inodes.div_ceil(SHARED);
        let values = stored.large_values().map(|(value, checksum)| LargeValue {
            value: value.to_vec(),
            checksum,
            references,
        });
        Ok(values.collect())
    }
}
