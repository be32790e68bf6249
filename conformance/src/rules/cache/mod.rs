//! C, K and D: what a cache must do.

mod artifacts;
mod blobs;
mod collect;
mod damage;
mod edits;
mod ends;
mod foreign_handles;
mod indexes;
mod kept;
mod loads;
mod names;
mod pulls;
mod reentry;
mod setup;
mod tasks;

use crate::CacheFixture;
use crate::rule::Rule;

/// The rules of each file in turn.
pub(super) const RULES: &[&[Rule<dyn CacheFixture>]] = &[
    blobs::RULES,
    names::RULES,
    pulls::RULES,
    ends::RULES,
    indexes::RULES,
    collect::RULES,
    artifacts::RULES,
    tasks::RULES,
    reentry::RULES,
    foreign_handles::RULES,
    damage::RULES,
    kept::RULES,
    loads::RULES,
    edits::RULES,
];
