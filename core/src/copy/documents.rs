//! The documents of a copy: what is copied, what is to be asked for, and what is missing.

use std::collections::{HashSet, VecDeque};

use crate::beside::ReferrerCount;
use crate::cache::MissingBlob;
use crate::manifest::{RawManifest, limits};
use crate::{Digest, Error, Result};

/// How many missing documents and blobs an error names.
const NAMED: usize = 20;

/// The manifests and indexes of a copy. A [session's limit](PushSession::LIMIT) bounds how many there are.
#[derive(Default)]
pub(super) struct Documents {
    /// Those that have been copied.
    pub(super) stored: HashSet<Digest>,
    /// Those that have been met: each is asked for its referrers once, however lists lead to it.
    met: HashSet<Digest>,
    /// Those that are still to be asked for.
    pub(super) subjects: VecDeque<Digest>,
    /// Those that refer to the image, or to what does.
    pub(super) referrers: HashSet<Digest>,
    /// How many have been found to do so, there or not.
    pub(super) referring: ReferrerCount,
    /// What indexes list and the source does not have, where that is left out.
    pub(super) absent: HashSet<Digest>,
    /// What is missing of the referrers in the source, each once.
    missing: Vec<MissingBlob>,
}

impl Documents {
    /// Notes a document as a subject; whether it is met for the first time.
    pub(super) fn meet(&mut self, digest: &Digest) -> bool {
        let is_new = self.met.insert(digest.clone());
        if is_new {
            self.subjects.push_back(digest.clone());
        }
        is_new
    }

    /// Whether a document is dealt with already.
    pub(super) fn knows(&self, digest: &Digest) -> bool {
        self.stored.contains(digest) || self.absent.contains(digest)
    }

    pub(super) fn store(&mut self, digest: Digest) {
        self.meet(&digest);
        self.stored.insert(digest);
    }

    /// Notes what an error says is missing.
    pub(super) fn miss(&mut self, error: &Error) {
        if let Some(missing) = error.detail::<MissingBlob>().filter(|missing| !self.missing.contains(missing))
        {
            self.missing.push(missing.clone());
        }
    }

    /// Refuses a copy of which something is missing, and names it.
    pub(super) fn check_complete(&self) -> Result<()> {
        let Some(first) = self.missing.first() else { return Ok(()) };
        let named: Vec<String> = self.missing.iter().take(NAMED).map(ToString::to_string).collect();
        let more = self.missing.len() - named.len();
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let message = format!("not all that refers to the image is there: {}{more}", named.join(", "));
        Err(Error::not_found(message).with_detail(first.clone()))
    }
}

/// Documents that are stored together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) documents: Vec<RawManifest>,
    bytes: u64,
}

impl Batch {
    pub(super) fn add(&mut self, raw: RawManifest) {
        self.bytes += raw.descriptor().size();
        self.documents.push(raw);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// Whether no more may be added: what a copy holds in memory is bounded.
    pub(super) fn is_full(&self) -> bool {
        self.documents.len() >= 1024 || self.bytes >= limits::MANIFEST
    }
}
