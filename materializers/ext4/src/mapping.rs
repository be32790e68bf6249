//! Where the blocks of a file are: by extents, or by the maps of ext2 and ext3.

use std::io::{Read, Seek};

use plyfold_core::{Error, Result};

use crate::fault::Ext4Fault;
use crate::reader::{EXTENTS, Inode, Volume, le16, le32};

const MAGIC: u16 = 0xf30a;
const DEEPEST: u16 = 5;
/// Bytes of a header, and of each entry behind it.
const ENTRY: usize = 12;
/// The most blocks of an extent; more of them are allocated and not written.
const WRITTEN: u16 = 32768;
/// The most blocks of a file: their numbers have 32 bits.
const MOST: u64 = 1 << 32;
/// Block numbers in an inode; the three behind them are of maps.
const DIRECT: u64 = 12;

/// Blocks of a file that follow each other on the disk, or a hole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Run {
    pub(crate) block: Option<u64>,
    pub(crate) count: u64,
}

impl<R: Read + Seek> Volume<R> {
    /// What is at a block of a file, and how far that goes.
    pub(crate) fn run(&mut self, inode: &Inode, logical: u64) -> Result<Run> {
        inode.readable()?;
        if inode.size.div_ceil(self.block_size) > MOST {
            return Err(bad(inode, "has no possible size"));
        }
        if inode.flags & EXTENTS == 0 { self.mapped(inode, logical) } else { self.extent(inode, logical) }
    }

    fn extent(&mut self, inode: &Inode, logical: u64) -> Result<Run> {
        let mut node = Node::of(&inode.data, inode, None)?;
        let mut end = u64::MAX;
        for level in 0.. {
            let (found, next) = node.find(logical);
            end = next.unwrap_or(end).min(end);
            let Some(entry) = found else { return Ok(Run { block: None, count: end - logical }) };
            let low = u64::from(le32(&entry, 8));
            if node.depth == 0 {
                return Ok(of_leaf(&entry, low, logical, end));
            }
            let block = u64::from(le32(&entry, 4)) | u64::from(le16(&entry, 8)) << 32;
            let expected = Some(node.depth - 1);
            let read = self.block(level, block).and_then(|(bytes, is_new)| {
                let node = Node::of(bytes, inode, expected)?;
                if is_new { node.check(bytes, inode).map(|()| node) } else { Ok(node) }
            });
            node = read.inspect_err(|_| self.forget(level))?;
        }
        Err(bad(inode, "has an extent tree without an end"))
    }

    /// ext2 and ext3: block numbers, the last three of maps of one, two and three levels.
    fn mapped(&mut self, inode: &Inode, logical: u64) -> Result<Run> {
        if let Some(direct) = usize::try_from(logical).ok().filter(|_| logical < DIRECT) {
            return Ok(single(le32(&inode.data, 4 * direct)));
        }
        let each = self.block_size / 4;
        let (mut within, mut spanned) = (logical - DIRECT, 1_u64);
        for levels in 1..=3_usize {
            // Blocks of each number in the topmost map.
            let all = spanned * each;
            if within >= all {
                (within, spanned) = (within - all, all);
                continue;
            }
            let mut number = le32(&inode.data, 4 * (DIRECT as usize + levels - 1));
            for level in 0..levels {
                if number == 0 {
                    // The first time of the whole map, then of what one number stands for.
                    let hole = if level == 0 { all } else { spanned * each };
                    return Ok(Run { block: None, count: hole - within });
                }
                let (bytes, _) = self.block(level, number.into())?;
                number = le32(bytes, 4 * (within / spanned) as usize);
                (within, spanned) = (within % spanned, spanned / each);
            }
            return Ok(single(number));
        }
        Err(bad(inode, "has blocks beyond its maps"))
    }
}

fn single(number: u32) -> Run {
    Run { block: (number != 0).then_some(number.into()), count: 1 }
}

fn of_leaf(entry: &[u8; ENTRY], low: u64, logical: u64, end: u64) -> Run {
    let (first, length) = (u64::from(le32(entry, 0)), le16(entry, 4));
    let is_written = length <= WRITTEN;
    let length = u64::from(if is_written { length } else { length - WRITTEN });
    let within = logical - first;
    if within >= length {
        return Run { block: None, count: end - logical };
    }
    let start = u64::from(le16(entry, 6)) << 32 | low;
    Run { block: is_written.then_some(start + within), count: (length - within).min(end - logical) }
}

/// A node of an extent tree.
struct Node {
    depth: u16,
    max: usize,
    entries: Vec<[u8; ENTRY]>,
}

impl Node {
    fn of(bytes: &[u8], inode: &Inode, depth: Option<u16>) -> Result<Self> {
        let (entries, max, found) =
            (usize::from(le16(bytes, 2)), usize::from(le16(bytes, 4)), le16(bytes, 6));
        let is_right = depth.map_or(found <= DEEPEST, |depth| depth == found);
        if le16(bytes, 0) != MAGIC || !is_right || entries > max || ENTRY * (max + 1) > bytes.len() {
            return Err(bad(inode, "has a damaged extent tree"));
        }
        let (entries, _) = bytes.get(ENTRY..ENTRY * (entries + 1)).unwrap_or_default().as_chunks();
        Ok(Self { depth: found, max, entries: entries.to_vec() })
    }

    /// The checksum that follows the most entries.
    fn check(&self, bytes: &[u8], inode: &Inode) -> Result<()> {
        let (covered, tail) = bytes.split_at_checked(ENTRY * (self.max + 1)).unwrap_or_default();
        match inode.seed {
            Some(seed) if tail.len() < 4 || crate::format::crc32c(seed, covered) != le32(tail, 0) => {
                Err(bad(inode, "has an extent tree with a wrong checksum"))
            }
            _ => Ok(()),
        }
    }

    /// The last entry that begins at a block or before it, and where the next one begins.
    fn find(&self, logical: u64) -> (Option<[u8; ENTRY]>, Option<u64>) {
        let first = |entry: &[u8; ENTRY]| u64::from(le32(entry, 0));
        let at = self.entries.partition_point(|entry| first(entry) <= logical);
        let next = self.entries.get(at).map(first).filter(|next| *next > logical);
        (at.checked_sub(1).and_then(|at| self.entries.get(at).copied()), next)
    }
}

pub(crate) fn bad(inode: &Inode, what: &str) -> Error {
    Ext4Fault::Unreadable(format!("inode {} {what}", inode.number)).into()
}
