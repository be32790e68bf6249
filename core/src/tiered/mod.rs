//! A cache in two tiers: one of this machine in front of one that many machines share.

mod artifact;
mod blob;
mod far;
mod names;
mod tiers;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::cache::{CachedNames, Collect, Collected, Ingest, Lease, NameChange, Usage, Verified, Verify};
use crate::registry::Page;
use crate::{Artifact, ArtifactHandle, ArtifactKey, Blob, BlobRange, Descriptor, Digest, Reference, Result};

pub use tiers::Tiered;

crate::forward_cache! {
    Tiered, |tiered| tiered.near;
    async partial(digest: &Digest) -> Result<u64>;
    async free() -> Result<Option<u64>>;
    async usage() -> Result<Usage>;
    async collect(policy: &Collect) -> Result<Collected>;
    async verify(what: &Verify) -> Result<Verified>;
    sync layout() -> Option<&Path>;
    sync scratch() -> Option<PathBuf>;
    sync is_read_only() -> bool;
    {
        async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
            if let Some(size) = self.near.stat(digest).await? {
                return Ok(Some(size));
            }
            match self.far.asked().await? {
                Some(far) => Ok(self.far.answer(far.stat(digest).await)?.flatten()),
                None => Ok(None),
            }
        }

        async fn is_away(&self, digest: &Digest) -> Result<bool> {
            Ok(self.near.stat(digest).await?.is_none())
        }

        async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
            self.read(blob, range).await
        }

        async fn ingest(&self, blob: &Descriptor) -> Result<Ingest> {
            self.write(blob).await
        }

        // Damage of one tier says nothing of the other.
        async fn quarantine(&self, digest: &Digest) -> Result<()> {
            self.near.quarantine(digest).await?;
            let Some(far) = self.far.writable().await? else { return Ok(()) };
            self.far.answer(blob::drop_damaged(far, digest).await).map(drop)
        }

        async fn find_descriptor(&self, reference: &Reference) -> Result<Option<Descriptor>> {
            if let Some(found) = self.near.find_descriptor(reference).await? {
                return Ok(Some(found));
            }
            match self.far.asked().await? {
                Some(far) => Ok(self.far.answer(far.find_descriptor(reference).await)?.flatten()),
                None => Ok(None),
            }
        }

        async fn list(&self) -> Result<Vec<(Reference, Descriptor)>> {
            self.all_names().await
        }

        async fn list_page(&self, page: &Page) -> Result<CachedNames> {
            self.page_of_names(page).await
        }

        async fn update(&self, changes: &[NameChange]) -> Result<()> {
            self.change_names(changes).await
        }

        async fn pins(&self) -> Result<Vec<Reference>> {
            self.pins_of_both().await
        }

        async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
            self.find_or_make(key).await
        }

        async fn find_artifact(&self, key: &ArtifactKey) -> Result<Option<Box<dyn ArtifactHandle>>> {
            if let Some(found) = self.near.find_artifact(key).await? {
                return Ok(Some(found));
            }
            match self.far.asked().await? {
                Some(far) => Ok(self.far.answer(far.find_artifact(key).await)?.flatten()),
                None => Ok(None),
            }
        }

        async fn settle(&self) {
            self.near.settle().await;
            self.far.cache().settle().await;
        }

        async fn lease(&self, content: &[Digest]) -> Result<Lease> {
            let near = self.near.lease(content).await?;
            Ok(Lease::new((near, self.far.to_lease(content))))
        }

        async fn single_flight(&self, work: &str) -> Result<Lease> {
            let near = self.near.single_flight(work).await?;
            let Some(far) = self.far.asked().await? else { return Ok(near) };
            let there = self.far.answer(far.single_flight(work).await)?;
            // The right of the other machines ends first.
            Ok(Lease::new((there, near)))
        }
    }
}

impl fmt::Display for Tiered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.near.fmt(f)
    }
}
