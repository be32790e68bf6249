//! What a collection keeps and what it removes.

use std::time::{Duration, SystemTime};

use crate::{Descriptor, Digest, Reference};

/// How a cache is collected.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Collect {
    /// Bytes that content and artifacts together may take: images that were not used for longest lose their names
    /// until it is met. `None` leaves every name alone.
    pub budget: Option<u64>,
    /// Report what would be removed, and remove nothing.
    pub dry_run: bool,
    /// Content without a name, and what it leads to, stays for this long after it was stored or used last: for tools
    /// that write into the store without taking a lease. Names that were used within this time are not evicted.
    pub grace: Duration,
    /// Partial downloads whose writer is gone stay for this long, at least for [`grace`](Self::grace), so that the next
    /// pull goes on from them. Zero drops them; those that are written or leased at the moment stay in any case.
    pub resumable: Duration,
}

/// What a collection has done, or would do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Collected {
    /// Names removed to meet the budget, in the order of removal.
    pub evicted: Vec<Reference>,
    /// Blobs removed, sorted.
    pub blobs: Vec<Digest>,
    /// Artifacts removed.
    pub artifacts: u64,
    /// Partial downloads removed, sorted.
    pub partials: Vec<Digest>,
    /// Other leftovers of killed writers that were removed, such as temporary files and incomplete block devices.
    pub remains: u64,
    /// Bytes freed by all of these.
    pub freed: u64,
    /// Bytes of blobs and artifacts that are still here.
    pub kept: u64,
    /// Bytes of partial downloads that are still here.
    pub resumable: u64,
    /// By how much the budget is missed, and what needs the room; `None` when it is met, or there is none.
    pub missed: Option<Missed>,
}

/// A budget that is missed: bytes beyond it, and of all that is kept the bytes that may not go, by reason. Content that
/// is kept for several reasons counts for each.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Missed {
    /// Bytes kept beyond the budget.
    pub bytes: u64,
    /// What pinned names need.
    pub pinned: u64,
    /// What leases protect: of pulls and other work that goes on at the moment.
    pub leased: u64,
    /// What was stored or used within the [grace](Collect::grace), and what is needed by that.
    pub recent: u64,
}

/// A part of a blob that an interrupted download has left, or that is being written, and that the next one goes on
/// from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PartialBlob {
    /// The blob.
    pub digest: Digest,
    /// Bytes that are here of it.
    pub size: u64,
    /// When it was written to last.
    pub used: SystemTime,
}

/// Disk usage of a cache. Content that several images share counts once in the totals (rule C 66
/// `size_counts_blob_once`).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Usage {
    /// Every name, sorted.
    pub images: Vec<ImageUsage>,
    /// Bytes of all blobs.
    pub blobs: u64,
    /// Bytes of all artifacts.
    pub artifacts: u64,
    /// Bytes of blobs and artifacts that a collection would free now.
    pub unused: u64,
    /// Partial downloads, sorted by digest. They are in none of the sums.
    pub partials: Vec<PartialBlob>,
}

impl Usage {
    /// Bytes of all partial downloads.
    pub fn partial(&self) -> u64 {
        self.partials.iter().map(|partial| partial.size).fold(0, u64::saturating_add)
    }
}

/// What one name takes.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ImageUsage {
    /// The name.
    pub reference: Reference,
    /// What it stands for.
    pub descriptor: Descriptor,
    /// Bytes of everything that it needs and that is here, artifacts included, each counted once.
    pub size: u64,
    /// Bytes of that which no other name needs.
    pub unique: u64,
    /// Whether it is never evicted.
    pub pinned: bool,
    /// When it was pulled or used last, if the cache knows.
    pub used: Option<SystemTime>,
}
