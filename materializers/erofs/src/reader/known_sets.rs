//! Sets of xattrs that several inodes share.

use std::collections::{HashMap, HashSet};

use plyfold_core::tree::Xattrs;

/// Sets already read.
#[derive(Debug, Default)]
pub(super) struct KnownSets {
    /// By their bodies on disk.
    pub(super) by_body: HashMap<Vec<u8>, Xattrs>,
    pub(super) all: HashSet<Xattrs>,
    /// Bytes of sets that were added since they were last counted.
    pub(super) added: usize,
}

impl KnownSets {
    /// Bytes that are new since this was last asked for.
    pub(super) fn uncounted(&mut self) -> usize {
        std::mem::take(&mut self.added)
    }

    pub(super) fn shared(&mut self, set: Xattrs) -> Xattrs {
        if let Some(known) = self.all.get(&set) {
            return known.clone();
        }
        self.added += set.heap_bytes();
        self.all.insert(set.clone());
        set
    }
}
