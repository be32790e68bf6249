//! Where the blocks of a journal are on the disk.

use std::io::{Read, Seek};

use plyfold_core::Result;

use crate::journal_form::damaged;
use crate::reader::{FileSystem, StoredInode};

/// The most runs of blocks: with maps of ext3 and blocks of 4 KiB, those of 256 GiB.
const MOST: usize = 1 << 16;

/// The blocks of a journal, each of which is in it once.
pub(crate) struct Runs(Vec<Placed>);

struct Placed {
    /// The first block, by its number in the journal, and where it is.
    logical: u64,
    block: u64,
    count: u64,
}

impl Runs {
    pub(crate) fn of<R: Read + Seek>(files: &mut FileSystem<R>, inode: &StoredInode) -> Result<Self> {
        let (mut runs, mut logical, end) = (Vec::new(), 0, inode.size / files.block_size);
        for _ in 0..MOST {
            if logical >= end {
                break;
            }
            let run = files.run(inode, logical)?;
            let count = run.count.min(end - logical);
            if let Some(block) = run.block {
                runs.push(Placed { logical, block, count });
            }
            logical += count;
        }
        if logical < end {
            return Err(damaged("is in too many pieces"));
        }
        let mut ranges: Vec<_> = runs.iter().map(|run| (run.block, run.block + run.count)).collect();
        ranges.sort_unstable();
        if ranges.windows(2).any(|pair| pair[0].1 > pair[1].0) {
            return Err(damaged("has a block more than once"));
        }
        if ranges.last().is_some_and(|last| last.1 > files.blocks) {
            return Err(damaged("has blocks beyond the end of the file system"));
        }
        Ok(Self(runs))
    }

    /// Where a block of the journal is.
    pub(crate) fn place(&self, number: u64) -> Result<u64> {
        let before = self.0.partition_point(|run| run.logical <= number);
        let run = before.checked_sub(1).and_then(|at| self.0.get(at));
        let run = run.filter(|run| number - run.logical < run.count);
        run.map(|run| run.block + number - run.logical)
            .ok_or_else(|| damaged("has blocks that are not there"))
    }
}
