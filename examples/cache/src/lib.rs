//! A third party's cache: images as objects in a bucket, as in an object store. Nothing of it is a file on this
//! machine; here the bucket is a part of the memory, which tasks share as machines would share a service.
//!
//! `Images::with_cache(BucketCache::default())` pulls into it. The manual's page `add_a_cache` explains what is done
//! here.

mod bucket;
mod collect;
mod writers;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use plyfold_core::blocking::blocking;
use plyfold_core::cache::{check_names, find_among, verify_artifacts, verify_names};
use plyfold_core::digest::Hasher;
use plyfold_core::{
    Artifact, ArtifactKey, Blob, BlobRange, CacheProvider, Collect, Collected, Descriptor, Digest, Error,
    Ingest, Lease, NameChange, Reference, Result, Usage, Verified, Verify, digest,
};
use tokio::sync::OwnedMutexGuard;

use self::bucket::Shared;
use self::collect::{collect, inventory};
use self::writers::{ArtifactInProgress, BlobInProgress};

/// Images in a bucket. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct BucketCache(Arc<Shared>);

impl BucketCache {
    /// Stores content under a digest without a check: for tests that want damage.
    pub fn insert_blob(&self, digest: Digest, content: &[u8]) {
        self.0.bucket().put(digest, content.to_vec().into());
    }

    /// Changes an artifact without a check: for tests that want damage. Whether it was there.
    pub fn damage_artifact(&self, key: &ArtifactKey, content: &[u8]) -> bool {
        let mut bucket = self.0.bucket();
        let stored = bucket.artifacts.get_mut(key).map(|stored| &mut stored.artifact);
        stored.map(|artifact| artifact.content = content.to_vec().into()).is_some()
    }

    /// How many objects the bucket has.
    pub fn objects(&self) -> usize {
        let bucket = self.0.bucket();
        bucket.blobs.len() + bucket.artifacts.len()
    }

    /// Waits until no other task does this work. A service would have a conditional write for it.
    async fn exclusive(&self, work: String) -> OwnedMutexGuard<()> {
        let lock = self.0.bucket().locks.entry(work).or_default().clone();
        lock.lock_owned().await
    }
}

#[async_trait]
impl CacheProvider for BucketCache {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        digest::supported(digest)?;
        Ok(self.0.bucket().size(digest))
    }

    async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        let content = self.0.bucket().blobs.get(blob.digest()).map(|object| object.content.clone());
        match content {
            Some(content) => Blob::from_bytes(blob, range, &content),
            None => Err(Error::not_found(format!("no blob {}", blob.digest())).with_endpoint(self)),
        }
    }

    async fn ingest(&self, blob: &Descriptor) -> Result<Ingest> {
        digest::supported(blob.digest())?;
        let lock = self.exclusive(blob.digest().to_string()).await;
        if self.0.bucket().size(blob.digest()) == Some(blob.size()) {
            return Ok(Ingest::Present);
        }
        Ok(Ingest::Vacant(Box::new(BlobInProgress::new(&self.0, blob, lock))))
    }

    async fn quarantine(&self, digest: &Digest) -> Result<()> {
        self.0.bucket().blobs.remove(digest);
        Ok(())
    }

    async fn find_descriptor(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        let names = self.list().await?;
        find_among(self, &names, reference).await
    }

    async fn list(&self) -> Result<Vec<(Reference, Descriptor)>> {
        Ok(self.0.bucket().names.list())
    }

    async fn update(&self, changes: &[NameChange]) -> Result<()> {
        let _gate = self.0.gate.read().await;
        let mut bucket = self.0.bucket();
        let document = |blob: &Descriptor| {
            Ok(bucket.blobs.get(blob.digest()).map(|o| o.content.clone()).unwrap_or_default())
        };
        let checked = check_names(changes, |digest| Ok(bucket.size(digest)), document);
        checked.and_then(|()| bucket.names.change(changes)).map_err(|e| e.with_endpoint(self))
    }

    async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
        let lock = self.exclusive(format!("{key:?}")).await;
        let stored =
            self.0.bucket().artifacts.get(key).map(|stored| (stored.artifact.clone(), stored.digest.clone()));
        if let Some((artifact, digest)) = stored {
            // Whole, since it may be read from any offset. A service states the checksum of an object.
            let content = artifact.content.clone();
            let hash = blocking(move |stop| {
                let mut hasher = Hasher::sha256();
                hasher.read_all(stop.reader(&*content)).map_err(|e| Error::io("reading an artifact", e))?;
                Ok(hasher.finish())
            });
            if hash.await? == digest {
                return Ok(Artifact::Present(Box::new(artifact)));
            }
        }
        Ok(Artifact::Vacant(Box::new(ArtifactInProgress::new(&self.0, key, lock)?)))
    }

    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        let _gate = self.0.gate.read().await;
        let number = self.0.bucket().lease(content);
        Ok(Lease::new(Leased { shared: self.0.clone(), number }))
    }

    async fn single_flight(&self, work: &str) -> Result<Lease> {
        Ok(Lease::new(self.exclusive(format!("work {work}")).await))
    }

    async fn pins(&self) -> Result<Vec<Reference>> {
        Ok(self.0.bucket().names.pins())
    }

    async fn usage(&self) -> Result<Usage> {
        Ok(inventory(self, &self.0, &Collect::default()).await?.0.usage())
    }

    async fn collect(&self, policy: &Collect) -> Result<Collected> {
        collect(self, &self.0, policy).await.map_err(|e| e.with_endpoint(self))
    }

    async fn verify(&self, what: &Verify) -> Result<Verified> {
        let mut verified = verify_names(self, what).await?;
        let kept = self.0.bucket().kept();
        for key in verify_artifacts(self, what, kept, &mut verified).await? {
            self.0.bucket().artifacts.remove(&key);
        }
        Ok(verified)
    }
}

/// Protects content until it is dropped.
struct Leased {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Leased {
    fn drop(&mut self) {
        self.shared.bucket().leases.remove(&self.number);
    }
}

impl fmt::Display for BucketCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bucket")
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bucket")
    }
}
