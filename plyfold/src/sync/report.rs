//! What a sync has changed.

use plyfold_core::manifest::canonical_json;
use plyfold_core::{Digest, Reference, digest};
use serde_json::{Value, json};

use super::list::{Source, SyncList};

/// The media type of the report.
const MEDIA_TYPE: &str = "application/vnd.plyfold.sync.v1+json";

/// What a sync has changed at its target, or would change.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SyncReport {
    /// The digest of the list; `None` where all images of a place were brought.
    pub list: Option<Digest>,
    /// That place.
    pub source: Option<String>,
    /// Where they were brought.
    pub target: String,
    /// What the receiver of a delta archive has: the names of its bases.
    pub since: Vec<String>,
    /// Whether nothing was stored, and all of this only would be.
    pub dry_run: bool,
    /// Every image of the list, in its order.
    pub names: Vec<SyncedName>,
    /// Names of optional images that are not there.
    pub missing: Vec<String>,
    /// Bytes of blobs that were moved.
    pub moved: u64,
    /// Bytes of blobs that were there, of images that have changed.
    pub present: u64,
    /// Bytes of blobs that a delta archive leaves out.
    pub left_out: u64,
}

/// One image of a sync.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SyncedName {
    /// Its name where it comes from.
    pub name: Reference,
    /// Its name at the target.
    pub target: Reference,
    /// What that stood for; nothing in a delta archive, which is new.
    pub before: Option<Digest>,
    /// What it stands for.
    pub after: Digest,
    /// What has become of it.
    pub change: SyncChange,
    /// What its index lists and is not in the place that it comes from.
    pub absent: Vec<Digest>,
    /// Bytes of blobs that were moved for it.
    pub moved: u64,
    /// Bytes of its blobs that were there, or that came for an image before it.
    pub present: u64,
    /// The signatures and other documents that refer to it and are at the target, in the order of their digests; `None` when they
    /// were not looked at, as of an image that has not changed.
    pub referrers: Option<Vec<Digest>>,
}

/// What has become of a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SyncChange {
    /// There was no such name.
    Added,
    /// It stood for another image.
    Replaced,
    /// It stands for the same image.
    Unchanged,
}

impl SyncChange {
    pub(crate) fn of(before: Option<&Digest>, after: &Digest) -> Self {
        match before {
            None => Self::Added,
            Some(before) if before == after => Self::Unchanged,
            Some(_) => Self::Replaced,
        }
    }

    /// `added`, `replaced` or `unchanged`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Replaced => "replaced",
            Self::Unchanged => "unchanged",
        }
    }
}

impl SyncReport {
    /// Of images that are still to come.
    pub(crate) fn new(list: &SyncList, target: &str, dry_run: bool, missing: Vec<String>) -> Self {
        let (list, source) = match &list.source {
            Source::List(digest) => (Some(digest.clone()), None),
            Source::Place(place) => (None, Some(place.clone())),
        };
        let target = target.to_owned();
        let (since, names) = (Vec::new(), Vec::new());
        Self { list, source, target, since, dry_run, names, missing, moved: 0, present: 0, left_out: 0 }
    }

    /// As JSON, with sorted keys and without blanks: the same bytes for the same changes, to be signed.
    pub fn to_json(&self) -> Vec<u8> {
        canonical_json(&self.document())
    }

    /// The digest of [`to_json`](Self::to_json).
    pub fn digest(&self) -> Digest {
        digest::sha256(&self.to_json())
    }

    pub(crate) fn document(&self) -> Value {
        let name = |name: &SyncedName| {
            json!({
                "name": name.name.whole(),
                "target": name.target.whole(),
                "before": name.before,
                "after": name.after,
                "absent": name.absent,
                "change": name.change.name(),
                "moved": name.moved,
                "present": name.present,
                "referrers": name.referrers,
            })
        };
        json!({
            "schemaVersion": 1,
            "mediaType": MEDIA_TYPE,
            "list": self.list,
            "source": self.source,
            "target": self.target,
            "since": self.since,
            "dryRun": self.dry_run,
            "names": self.names.iter().map(name).collect::<Vec<_>>(),
            "missing": self.missing,
            "moved": self.moved,
            "present": self.present,
            "leftOut": self.left_out,
        })
    }
}
