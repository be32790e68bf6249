//! Where workers are struck, and how.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::scene::{Scene, Start};

#[derive(Clone, Copy, Debug)]
pub(super) enum Blow {
    Error(&'static str),
    Kill,
}

/// One kind of call on one file, where workers are struck.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) syscall: String,
    /// `None` for files that have another name each time: any call of the kind is struck then.
    pub(super) by: Option<PathBuf>,
    pub(super) blow: Blow,
    /// How often a worker that is let alone comes there.
    pub(super) calls: usize,
    /// The blobs that are stored one after another, so many of which are there already in each round.
    pub(super) published: Vec<PathBuf>,
    /// For each round which of a thread's calls are struck.
    pub(super) rounds: Vec<Vec<usize>>,
    /// The files that have the same name each time, for a step on those that have not.
    pub(super) known: BTreeSet<PathBuf>,
}

/// One kind of work, to be done again and again.
pub(super) struct Sweep<'a> {
    pub(super) scene: &'a Scene<'a>,
    pub(super) start: Start,
    pub(super) orders: String,
}
