//! A cache in two tiers: one of this machine in front of one that many machines share.

mod artifact;
mod blob;
mod far;
mod names;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::cache::{
    CacheProvider, CachedNames, Collect, Collected, Ingest, Lease, NameChange, Usage, Verified, Verify,
};
use crate::registry::Page;
use crate::{
    Artifact, ArtifactHandle, ArtifactKey, Blob, BlobRange, Descriptor, Digest, Error, ErrorKind, Reference,
    Result,
};

use far::Far;

/// A cache of this machine in front of another one, such as a bucket that a fleet of machines shares.
///
/// What is read and is in the far tier alone is stored in the near one in the same pass, verified. What is stored goes to both:
/// to the near tier first, and from there, as it was proved, to the far one. So a blob is downloaded once, and a layer is
/// converted once, for all machines: the right to do either is that of the far tier, too.
///
/// A name that the near tier has is answered by it, whatever it stands for in the far one: no request is made for an image
/// that is here. [`PullPolicy::Always`](crate::PullPolicy) asks where the image comes from, as without a far tier. A name that the near
/// tier lacks is looked for in the far one.
///
/// | method | near tier | far tier |
/// |---|---|---|
/// | `stat`, `open`, `find_descriptor`, `find_artifact` | first | where the near one has nothing |
/// | `ingest`, `artifact`, `single_flight`, `lease` | first | the same right, when something is missing here |
/// | `update` | second: what it has the content of | first |
/// | `list`, `list_page`, `pins` | both; what a name stands for is said by the near one | |
/// | `usage`, `collect`, `verify`, `partial`, `free`, `layout`, `scratch`, `is_read_only` | alone | its own, by itself |
///
/// When the far tier does not answer, it is not asked for half a minute, with a warning of `tracing`, and the near tier is used alone.
/// It is no error that something could not be published there. Every other error of it is returned, but where the near tier
/// has done what was asked.
///
/// ```
/// use plyfold_core::memory::MemoryCache;
/// use plyfold_core::{CacheProvider, Tiered};
///
/// # fn main() -> plyfold_core::Result<()> {
/// let (near, far) = (MemoryCache::new()?, MemoryCache::new()?);
/// let cache: Box<dyn CacheProvider> = Box::new(Tiered::new(Box::new(near), Box::new(far)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Tiered {
    near: Box<dyn CacheProvider>,
    far: Far,
}

impl Tiered {
    /// `near` in front of `far`.
    pub fn new(near: Box<dyn CacheProvider>, far: Box<dyn CacheProvider>) -> Self {
        Self { near, far: Far::new(far) }
    }

    /// The tier of this machine.
    pub fn near(&self) -> &dyn CacheProvider {
        &*self.near
    }

    /// The tier behind it.
    pub fn far(&self) -> &dyn CacheProvider {
        self.far.cache()
    }
}

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

/// Whether content is missing, and no tier has failed.
fn is_missing(error: &Error) -> bool {
    *error.kind() == ErrorKind::NotFound
}

impl fmt::Display for Tiered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.near.fmt(f)
    }
}
