//! What is verified of a cache, and what was found.

use crate::progress::Progress;
use crate::{Digest, Reference};

/// What of a cache is verified.
#[derive(Clone, Debug, Default)]
pub struct Verify {
    /// The images whose blobs and artifacts are read; `None` reads every artifact, and everything that is here, named or
    /// not. A cache that cannot list its blobs reads those that names need.
    pub images: Option<Vec<Reference>>,
    /// Quarantine damaged content, so that the next pull fetches it again.
    pub repair: bool,
    /// Where events go.
    pub progress: Progress,
}

/// What a verification has found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Verified {
    /// Blobs and artifacts read.
    pub checked: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
    /// What killed writers have left behind. It is not damage. Partial downloads are not counted.
    pub remains: Remains,
}

/// Temporary files of killed processes, incomplete block devices and the like: what a kill or a power cut leaves of
/// unfinished work. [`Verify::repair`] and a [collection](super::CacheProvider::collect) remove it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
pub struct Remains {
    /// How many there are.
    pub count: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// How many of them were removed.
    pub removed: u64,
}

impl std::ops::AddAssign for Remains {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.removed += other.removed;
    }
}

/// One damaged item.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Damage {
    /// What it is.
    pub part: DamagedPart,
    /// What is wrong with it, in one line.
    pub reason: String,
    /// Names that need it.
    pub images: Vec<Reference>,
    /// Whether it was quarantined.
    pub repaired: bool,
}

/// Which part of a cache.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DamagedPart {
    /// A file made from a layer or an image: its format as text, and what it was made from.
    Artifact(String, Digest),
    /// Content that is there but not what its digest says.
    Blob(Digest),
    /// Content that an image needs and that is not there.
    Missing(Digest),
    /// The list of names itself.
    Names,
}
