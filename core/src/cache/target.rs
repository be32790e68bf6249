//! A cache as the target of a copy.

use std::{fmt, io};

use async_trait::async_trait;

use super::registry::as_registry;
use super::{CacheProvider, Lease, NameChange, attach, content, index};
use crate::manifest::RawManifest;
use crate::registry::{Capabilities, ImageRegistry};
use crate::{Blob, BlobRange, Descriptor, Digest, Error, Reference, Result};

/// A [`CacheProvider`] seen as an [`ImageRegistry`] that stores: what a [copy](fn@crate::copy) puts there is in the cache.
///
/// A cache has each blob once for all repositories. An index may list images that are not there, as after a pull for one
/// platform.
#[derive(Clone, Debug)]
pub struct CacheTarget(pub(super) Box<dyn CacheProvider>);

#[async_trait]
impl ImageRegistry for CacheTarget {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        as_registry(&self.0).manifest(reference).await
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        as_registry(&self.0).blob(reference, blob, range).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            atomic_names: true,
            partial_blobs: true,
            push: true,
            sparse: true,
            ..as_registry(&self.0).capabilities()
        }
    }

    async fn push_blob(&self, _: &Reference, blob: Blob) -> Result<()> {
        content::put_resumable(&self.0, blob).await
    }

    async fn partial_blob(&self, _: &Reference, blob: &Descriptor) -> Result<u64> {
        self.0.partial(blob.digest()).await
    }

    async fn has_blob(&self, _: &Reference, blob: &Descriptor) -> Result<bool> {
        Ok(self.0.stat(blob.digest()).await? == Some(blob.size()))
    }

    async fn push_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        self.name(&[(reference.clone(), manifest.clone())], |name| name.tag().is_some()).await
    }

    async fn push_names(&self, names: &[(Reference, RawManifest)]) -> Result<()> {
        // An image without a tag has its digest as its name, as after a load; without any it would be collected.
        self.name(names, |_| true).await
    }

    async fn push_sparse(&self, names: &[(Reference, RawManifest)], _: &[Digest]) -> Result<()> {
        self.name(names, |name| name.tag().is_some()).await
    }

    async fn push_referrers(&self, repository: &Reference, manifests: &[RawManifest]) -> Result<()> {
        for manifest in manifests {
            self.put(manifest).await?;
        }
        attach::list(&self.0, repository, manifests).await
    }

    async fn check_target(&self) -> Result<()> {
        if !self.0.is_read_only() {
            return Ok(());
        }
        Err(Error::io("storing an image", io::ErrorKind::ReadOnlyFilesystem.into()).with_endpoint(self))
    }

    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        self.0.lease(content).await
    }

    fn unsupported(&self, what: &str) -> Error {
        Error::unsupported(format!("a cache cannot {what}")).with_endpoint(self)
    }
}

impl CacheTarget {
    /// Stores documents, and sets the names of those that have one.
    async fn name(
        &self,
        names: &[(Reference, RawManifest)],
        is_named: impl Fn(&Reference) -> bool + Send,
    ) -> Result<()> {
        for (_, manifest) in names {
            self.put(manifest).await?;
        }
        let tagged = names.iter().filter(|(name, _)| is_named(name));
        let (tops, changes): (Vec<_>, Vec<_>) = tagged
            .map(|(name, manifest)| {
                let top = manifest.descriptor().clone();
                (top.clone(), NameChange::Set(name.clone(), top))
            })
            .unzip();
        let _lease = index::present(&self.0, &tops, &[]).await?;
        let referrers: Vec<_> = names.iter().map(|(name, manifest)| (name, manifest)).collect();
        attach::set(&self.0, &referrers, &changes).await
    }

    async fn put(&self, manifest: &RawManifest) -> Result<()> {
        let content = Blob::from_bytes(manifest.descriptor(), BlobRange::FULL, manifest.bytes())?;
        content::put(&self.0, content).await
    }
}

impl fmt::Display for CacheTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
