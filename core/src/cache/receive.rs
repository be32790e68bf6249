//! A cache as the target of a copy: what a load takes along of what refers to an image.

use std::collections::HashSet;
use std::fmt;

use async_trait::async_trait;

use super::registry::as_registry;
use super::{CacheProvider, Lease, NameChange, attach, content, index};
use crate::copy::{CopyOptions, copy_referrers};
use crate::manifest::RawManifest;
use crate::pull::{PullOptions, PullResult};
use crate::registry::{Capabilities, ImageRegistry};
use crate::{Blob, BlobRange, Descriptor, Digest, Error, Reference, Result};

/// Brings what refers to an image here that was just pulled from `registry`, where that lists it, and says what that is, and
/// what of it is missing.
pub(super) async fn referrers_of(
    cache: &dyn CacheProvider,
    registry: &dyn ImageRegistry,
    pulled: &PullResult,
    options: &PullOptions,
) -> Result<(HashSet<Digest>, Result<()>)> {
    if !registry.capabilities().referrers {
        return Ok((HashSet::new(), Ok(())));
    }
    let target = Receiver(dyn_clone::clone_box(cache));
    let copying =
        CopyOptions { concurrency: options.concurrency, retry: options.retry, ..CopyOptions::default() };
    let subjects = [pulled.descriptor.digest(), pulled.manifest.digest()].map(Clone::clone);
    let (from, to) = ((registry, &pulled.reference), (&target as &dyn ImageRegistry, &pulled.reference));
    let (mut copied, complete) = copy_referrers(from, subjects.clone(), to, &copying).await?;
    copied.retain(|digest| !subjects.contains(digest));
    Ok((copied, complete.map_err(|e| e.with_image(&pulled.reference).with_endpoint(registry))))
}

#[derive(Clone, Debug)]
struct Receiver(Box<dyn CacheProvider>);

#[async_trait]
impl ImageRegistry for Receiver {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        as_registry(&self.0).manifest(reference).await
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        as_registry(&self.0).blob(reference, blob, range).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { atomic_names: true, push: true, ..as_registry(&self.0).capabilities() }
    }

    async fn push_blob(&self, _: &Reference, blob: Blob) -> Result<()> {
        content::put(&self.0, blob).await
    }

    async fn has_blob(&self, _: &Reference, blob: &Descriptor) -> Result<bool> {
        Ok(self.0.stat(blob.digest()).await? == Some(blob.size()))
    }

    async fn push_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        self.push_names(&[(reference.clone(), manifest.clone())]).await
    }

    async fn push_names(&self, names: &[(Reference, RawManifest)]) -> Result<()> {
        for (name, manifest) in names {
            self.push_referrers(name, std::slice::from_ref(manifest)).await?;
        }
        let tagged = names.iter().filter(|(name, _)| name.tag().is_some());
        let (tops, changes): (Vec<_>, Vec<_>) = tagged
            .map(|(name, manifest)| {
                let top = manifest.descriptor().clone();
                (top.clone(), NameChange::Set(name.clone(), top))
            })
            .unzip();
        if changes.is_empty() {
            return Ok(());
        }
        let _lease = index::present(&self.0, &tops, &[]).await?;
        self.0.update(&changes).await
    }

    async fn push_referrers(&self, repository: &Reference, manifests: &[RawManifest]) -> Result<()> {
        for manifest in manifests {
            let content = Blob::from_bytes(manifest.descriptor(), BlobRange::FULL, manifest.bytes())?;
            content::put(&self.0, content).await?;
        }
        attach::list(&self.0, repository, manifests).await
    }

    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        self.0.lease(content).await
    }

    fn unsupported(&self, what: &str) -> Error {
        Error::unsupported(format!("a cache cannot {what}")).with_endpoint(self)
    }
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
