//! What the bucket holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use plyfold_core::{ArtifactKey, Descriptor, Digest, Error, NameChange, Reference, Result};
use tokio::sync::Mutex;

use crate::writers::StoredArtifact;

#[derive(Default)]
pub(crate) struct Bucket {
    pub(crate) blobs: HashMap<Digest, Object>,
    pub(crate) artifacts: HashMap<ArtifactKey, ArtifactObject>,
    /// By their text, which is the order that a list has.
    pub(crate) names: BTreeMap<String, (Reference, Descriptor)>,
    pub(crate) pins: BTreeSet<String>,
    pub(crate) leases: BTreeMap<u64, Vec<Digest>>,
    next_lease: u64,
    /// A lock for each thing that is made.
    pub(crate) turns: HashMap<String, Arc<Mutex<()>>>,
}

/// A blob.
pub(crate) struct Object {
    pub(crate) content: Bytes,
    /// When it was stored or leased last.
    pub(crate) used: SystemTime,
}

/// A file that was made from a layer or an image.
pub(crate) struct ArtifactObject {
    pub(crate) artifact: StoredArtifact,
    pub(crate) used: SystemTime,
}

impl Bucket {
    pub(crate) fn put(&mut self, digest: Digest, content: Bytes) {
        self.blobs.insert(digest, Object { content, used: SystemTime::now() });
    }

    pub(crate) fn size(&self, digest: &Digest) -> Option<u64> {
        self.blobs.get(digest).map(|object| object.content.len() as u64)
    }

    /// Protects content, by a number.
    pub(crate) fn lease(&mut self, content: &[Digest]) -> u64 {
        let now = SystemTime::now();
        for digest in content {
            if let Some(object) = self.blobs.get_mut(digest) {
                object.used = now;
            }
        }
        self.next_lease += 1;
        self.leases.insert(self.next_lease, content.to_vec());
        self.next_lease
    }

    pub(crate) fn pinned(&self) -> impl Iterator<Item = &Reference> {
        self.names.values().map(|(name, _)| name).filter(|name| self.pins.contains(&name.whole()))
    }

    /// All of the changes or none.
    pub(crate) fn change(&mut self, changes: &[NameChange]) -> Result<()> {
        let (mut names, mut pins) = (self.names.clone(), self.pins.clone());
        for change in changes {
            match change {
                NameChange::Pin(name) if !names.contains_key(&name.whole()) => {
                    return Err(Error::not_found("not in the cache").with_image(name));
                }
                NameChange::Pin(name) => _ = pins.insert(name.whole()),
                NameChange::Remove(name) => {
                    names.remove(&name.whole());
                    pins.remove(&name.whole());
                }
                NameChange::Set(name, descriptor) => {
                    names.insert(name.whole(), (name.clone(), descriptor.clone()));
                }
                NameChange::Unpin(name) => _ = pins.remove(&name.whole()),
            }
        }
        (self.names, self.pins) = (names, pins);
        Ok(())
    }
}
