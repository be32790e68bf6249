//! What the bucket holds, and what reads it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use plyfold_core::cache::{ArtifactProof, KeptArtifact, NameTable};
use plyfold_core::{ArtifactHandle, ArtifactKey, Digest, Made};
use tokio::sync::{Mutex, RwLock};

/// What clones of the cache share.
#[derive(Default)]
pub(crate) struct Shared {
    bucket: std::sync::Mutex<Bucket>,
    /// Held by a collection alone, and by leases and changes of names for a moment.
    pub(crate) gate: RwLock<()>,
}

impl Shared {
    pub(crate) fn bucket(&self) -> MutexGuard<'_, Bucket> {
        // Each change is one insertion or removal, which a panic cannot leave half made.
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
pub(crate) struct Bucket {
    pub(crate) blobs: HashMap<Digest, Object>,
    pub(crate) artifacts: HashMap<ArtifactKey, ArtifactObject>,
    pub(crate) names: NameTable,
    pub(crate) leases: BTreeMap<u64, Vec<Digest>>,
    next_lease: u64,
    /// A lock for each thing that is made.
    pub(crate) locks: HashMap<String, Arc<Mutex<()>>>,
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
    /// Of the bytes that were committed.
    pub(crate) digest: Digest,
    pub(crate) used: SystemTime,
}

impl Bucket {
    pub(crate) fn put(&mut self, digest: Digest, content: Bytes) {
        self.blobs.insert(digest, Object { content, used: SystemTime::now() });
    }

    pub(crate) fn size(&self, digest: &Digest) -> Option<u64> {
        self.blobs.get(digest).map(|object| object.content.len() as u64)
    }

    /// The artifacts, for a verification.
    pub(crate) fn kept(&self) -> Vec<KeptArtifact> {
        let kept = |(key, stored): (&ArtifactKey, &ArtifactObject)| KeptArtifact {
            key: key.clone(),
            file: Box::new(stored.artifact.clone()),
            proof: ArtifactProof::Digest(stored.digest.clone()),
        };
        self.artifacts.iter().map(kept).collect()
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
}

/// An artifact in the bucket: it can be read, and has no path.
#[derive(Clone, Debug)]
pub(crate) struct StoredArtifact {
    pub(crate) content: Bytes,
    pub(crate) made: Made,
}

impl ArtifactHandle for StoredArtifact {
    fn size(&self) -> u64 {
        self.content.len() as u64
    }

    fn made(&self) -> &Made {
        &self.made
    }

    fn path(&self) -> Option<&Path> {
        None
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(offset).map_or(self.content.len(), |at| at.min(self.content.len()));
        let count = buffer.len().min(self.content.len() - start);
        buffer[..count].copy_from_slice(&self.content[start..start + count]);
        Ok(count)
    }
}
