//! Where the blocks of a file are: by extents, or by the maps of ext2 and ext3.

use std::io::{Read, Seek};

use plyfold_core::{Error, Result};

use crate::fault::Ext4Fault;
use crate::fields::{
    EE_BLOCK, EE_LEN, EE_START_HI, EE_START_LO, EH_DEPTH, EH_ENTRIES, EH_MAGIC, EH_MAX, EI_LEAF_HI,
    EI_LEAF_LO, EXTENT_ENTRY, EXTENT_LONGEST, EXTENT_MAGIC, EXTENTS_FL,
};
use crate::format::{le16, le32};
use crate::reader::{FileSystem, StoredInode};

const DEEPEST: u16 = 5;
/// The most blocks of a file: their numbers have 32 bits.
const MOST: u64 = 1 << 32;
/// Block numbers in an inode; the three behind them are of maps.
const DIRECT: usize = 12;

/// Blocks of a file that follow each other on the disk, or a hole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Run {
    pub(crate) block: Option<u64>,
    pub(crate) count: u64,
}

impl<R: Read + Seek> FileSystem<R> {
    /// What is at a block of a file, and how far that goes.
    pub(crate) fn run(&mut self, inode: &StoredInode, logical: u64) -> Result<Run> {
        inode.readable()?;
        if inode.size.div_ceil(self.block_size) > MOST {
            return Err(bad(inode, "has no possible size"));
        }
        if inode.flags & EXTENTS_FL == 0 { self.mapped(inode, logical) } else { self.extent(inode, logical) }
    }

    fn extent(&mut self, inode: &StoredInode, logical: u64) -> Result<Run> {
        let mut node = Node::of(&inode.data, inode, None)?;
        let mut end = u64::MAX;
        loop {
            let (found, next) = node.find(logical);
            end = next.unwrap_or(end).min(end);
            let Some(entry) = found else { return Ok(Run { block: None, count: end - logical }) };
            let Some(depth) = node.depth.checked_sub(1) else { return Ok(of_leaf(&entry, logical, end)) };
            let block = u64::from(le32(&entry, EI_LEAF_LO)) | u64::from(le16(&entry, EI_LEAF_HI)) << 32;
            let check = |bytes: &[u8]| Node::of(bytes, inode, Some(depth))?.check(bytes, inode);
            node = Node::of(self.block(depth.into(), block, check)?, inode, Some(depth))?;
        }
    }

    /// ext2 and ext3: block numbers, the last three of maps of one, two and three levels.
    fn mapped(&mut self, inode: &StoredInode, logical: u64) -> Result<Run> {
        let Some(mut within) = logical.checked_sub(DIRECT as u64) else {
            return Ok(of_map(&inode.data[..4 * DIRECT], logical as usize));
        };
        let each = self.block_size / 4;
        for top in 0..3 {
            let all = each.pow(top + 1);
            if within >= all {
                within -= all;
                continue;
            }
            let mut number = le32(&inode.data, 4 * (DIRECT + top as usize));
            for level in (0..=top).rev() {
                // Blocks of each number in the map.
                let spanned = each.pow(level);
                if number == 0 {
                    return Ok(Run { block: None, count: spanned * each - within });
                }
                let map = self.block(level as usize, number.into(), |_| Ok(()))?;
                let at = (within / spanned) as usize;
                if level == 0 {
                    return Ok(of_map(map, at));
                }
                (number, within) = (le32(map, 4 * at), within % spanned);
            }
        }
        Err(bad(inode, "has blocks beyond its maps"))
    }
}

/// What begins with a number of a map: numbers that follow each other, or zeros.
fn of_map(map: &[u8], at: usize) -> Run {
    let (numbers, _) = map[4 * at..].as_chunks();
    let numbers = numbers.iter().map(|number| u64::from(u32::from_le_bytes(*number)));
    let first = u64::from(le32(map, 4 * at));
    let step = u64::from(first != 0);
    let count = (0..).zip(numbers).take_while(|(at, number)| *number == first + at * step).count();
    Run { block: (first != 0).then_some(first), count: count as u64 }
}

fn of_leaf(entry: &[u8; EXTENT_ENTRY], logical: u64, end: u64) -> Run {
    let (first, length) = (u64::from(le32(entry, EE_BLOCK)), le16(entry, EE_LEN));
    let is_written = length <= EXTENT_LONGEST;
    let length = u64::from(if is_written { length } else { length - EXTENT_LONGEST });
    let within = logical - first;
    if within >= length {
        return Run { block: None, count: end - logical };
    }
    let start = u64::from(le16(entry, EE_START_HI)) << 32 | u64::from(le32(entry, EE_START_LO));
    Run { block: is_written.then_some(start + within), count: (length - within).min(end - logical) }
}

/// A node of an extent tree.
struct Node<'a> {
    depth: u16,
    max: usize,
    entries: &'a [[u8; EXTENT_ENTRY]],
}

impl<'a> Node<'a> {
    fn of(bytes: &'a [u8], inode: &StoredInode, depth: Option<u16>) -> Result<Self> {
        let [entries, max] = [EH_ENTRIES, EH_MAX].map(|at| usize::from(le16(bytes, at)));
        let found = le16(bytes, EH_DEPTH);
        let is_right = depth.map_or(found <= DEEPEST, |depth| depth == found);
        if le16(bytes, EH_MAGIC) != EXTENT_MAGIC
            || !is_right
            || entries > max
            || EXTENT_ENTRY * (max + 1) > bytes.len()
        {
            return Err(bad(inode, "has a damaged extent tree"));
        }
        let (entries, _) = bytes[EXTENT_ENTRY..EXTENT_ENTRY * (entries + 1)].as_chunks();
        Ok(Self { depth: found, max, entries })
    }

    /// The checksum that follows the most entries.
    fn check(&self, bytes: &[u8], inode: &StoredInode) -> Result<()> {
        let (covered, tail) = bytes.split_at(EXTENT_ENTRY * (self.max + 1));
        match inode.checksum {
            Some(checksum) if tail.len() < 4 || checksum.over(&[covered]) != le32(tail, 0) => {
                Err(bad(inode, "has an extent tree with a wrong checksum"))
            }
            _ => Ok(()),
        }
    }

    /// The last entry that begins at a block or before it, and where the next one begins.
    fn find(&self, logical: u64) -> (Option<[u8; EXTENT_ENTRY]>, Option<u64>) {
        // ee_block and ei_block are at one place.
        let first = |entry: &[u8; EXTENT_ENTRY]| u64::from(le32(entry, EE_BLOCK));
        let at = self.entries.partition_point(|entry| first(entry) <= logical);
        let next = self.entries.get(at).map(first).filter(|next| *next > logical);
        (at.checked_sub(1).and_then(|at| self.entries.get(at).copied()), next)
    }
}

pub(crate) fn bad(inode: &StoredInode, what: &str) -> Error {
    Ext4Fault::Unreadable(format!("inode {} {what}", inode.number)).into()
}
