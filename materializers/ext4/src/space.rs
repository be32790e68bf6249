//! Which blocks files get: each group's from its first on, one group after the other.

use plyfold_core::Result;

use crate::fault::Ext4Fault;
use crate::geometry::Geometry;

/// The blocks that files have not got yet. Those in use in a group are always a run from its start.
#[derive(Debug)]
pub(crate) struct Space {
    geometry: Geometry,
    group: u32,
    next: u64,
    used: u64,
}

impl Space {
    pub(crate) fn new(geometry: Geometry) -> Self {
        Self { geometry, group: 0, next: geometry.data_start(0), used: 0 }
    }

    /// The next run of blocks, and how many it has: at most `wanted`, which is not 0.
    pub(crate) fn take(&mut self, wanted: u64) -> Result<(u64, u64)> {
        while self.next == self.geometry.group_end(self.group) {
            if self.group + 1 == self.geometry.groups {
                return Err(Ext4Fault::Planned(self.used).into());
            }
            self.group += 1;
            self.next = self.geometry.data_start(self.group);
        }
        let count = wanted.min(self.geometry.group_end(self.group) - self.next);
        let start = self.next;
        self.next += count;
        self.used += count;
        Ok((start, count))
    }

    /// Blocks that files have got.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Blocks in use in a group, its metadata included.
    pub(crate) fn used_in(&self, group: u32) -> u32 {
        match group.cmp(&self.group) {
            std::cmp::Ordering::Less => self.geometry.group_blocks(group),
            std::cmp::Ordering::Equal => (self.next - Geometry::group_start(group)) as u32,
            std::cmp::Ordering::Greater => self.geometry.metadata(group),
        }
    }
}
