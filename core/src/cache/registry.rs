//! A cache, seen as a registry of what it holds.

use std::fmt;

use async_trait::async_trait;

use super::{CacheProvider, CacheProviderExt};
use crate::manifest::{RawManifest, limits};
use crate::registry::{Capabilities, ImageRegistry, Names, Page};
use crate::{Blob, BlobRange, Descriptor, Error, Reference, Result, reference};

/// A [`CacheProvider`] seen as an [`ImageRegistry`], to read and to copy from.
#[derive(Clone, Debug)]
pub struct CacheRegistry(pub(super) Box<dyn CacheProvider>);

#[async_trait]
impl ImageRegistry for CacheRegistry {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        let Some(descriptor) = self.0.find_descriptor(reference).await? else {
            let error = Error::not_found("not in the store").with_image(reference).with_endpoint(self);
            return Err(match reference.digest() {
                Some(digest) => error.with_context("blob", digest),
                None => error.with_hint(format!("`plyfold pull {reference}` fetches it")),
            });
        };
        let content = self.0.content(&descriptor, limits::MANIFEST).await;
        let at =
            |e: Error| e.with_image(reference).with_endpoint(self).with_context("blob", descriptor.digest());
        RawManifest::described(content.map_err(at)?, &descriptor).map_err(at)
    }

    async fn blob(&self, _: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.0.open(blob, range).await.map_err(|e| e.with_context("blob", blob.digest()))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { repositories: true, tags: true, ..Capabilities::READ }
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        let names = self.0.list().await?;
        let here = names.iter().filter(|(name, _)| reference::repository_of(name) == repository);
        let mut tags: Vec<&str> = here.filter_map(|(name, _)| name.tag()).collect();
        tags.sort_unstable();
        Ok(page.of(tags))
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        let names = self.0.list().await?;
        let mut repositories: Vec<String> =
            names.iter().map(|(name, _)| reference::repository_of(name)).collect();
        repositories.sort();
        repositories.dedup();
        Ok(page.of(repositories))
    }
}

impl fmt::Display for CacheRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
