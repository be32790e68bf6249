//! A cache, seen as a registry of what it holds.

use std::fmt;

use async_trait::async_trait;

use super::{CacheProvider, CacheProviderExt};
use crate::manifest::{RawManifest, limits};
use crate::registry::{Capabilities, ImageRegistry, Names, Page};
use crate::{Advice, Blob, BlobRange, Descriptor, Digest, Error, Reference, Result, reference};

/// A [`CacheProvider`] seen as an [`ImageRegistry`], to read and to copy from.
#[derive(Clone, Debug)]
pub struct CacheRegistry {
    cache: Box<dyn CacheProvider>,
    /// A name fixed to a document: later changes of the name are ignored.
    fixed: Option<(Reference, RawManifest)>,
}

impl CacheRegistry {
    pub(super) fn new(cache: Box<dyn CacheProvider>) -> Self {
        Self { cache, fixed: None }
    }

    /// The same cache, in which `name` stands for `root`, also when it is moved or removed meanwhile. What `root` leads
    /// to is found by its digest alone.
    #[must_use]
    pub fn fixed(self, name: Reference, root: RawManifest) -> Self {
        Self { fixed: Some((name, root)), ..self }
    }

    /// A document by its digest, whatever names lead to it.
    async fn document(&self, digest: &Digest) -> Result<RawManifest> {
        RawManifest::verified(self.cache.get_content(digest, limits::MANIFEST).await?, None, digest)
    }

    /// What the fixed name and the digests below it stand for; `None` for every other name.
    async fn in_hand(&self, reference: &Reference) -> Result<Option<RawManifest>> {
        let Some((name, root)) = &self.fixed else { return Ok(None) };
        match reference::digest_of(reference)? {
            Some(digest) if digest == *root.digest() => Ok(Some(root.clone())),
            None if reference == name => Ok(Some(root.clone())),
            Some(digest) => {
                let found = self.document(&digest).await;
                let at = |e: Error| e.with_image(reference).with_endpoint(self).with_context("blob", &digest);
                found.map(Some).map_err(at)
            }
            None => Ok(None),
        }
    }
}

#[async_trait]
impl ImageRegistry for CacheRegistry {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        if let Some(raw) = self.in_hand(reference).await? {
            return Ok(raw);
        }
        let Some(descriptor) = self.cache.find_descriptor(reference).await? else {
            let error = Error::not_found("not in the store").with_image(reference).with_endpoint(self);
            return Err(match reference.digest() {
                Some(digest) => error.with_context("blob", digest),
                None => error.with_advice(Advice::Pull { image: reference.to_string() }),
            });
        };
        let content = self.cache.content(&descriptor, limits::MANIFEST).await;
        let at =
            |e: Error| e.with_image(reference).with_endpoint(self).with_context("blob", descriptor.digest());
        RawManifest::described(content.map_err(at)?, &descriptor).map_err(at)
    }

    async fn blob(&self, _: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.cache.open(blob, range).await.map_err(|e| e.with_context("blob", blob.digest()))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { repositories: true, tags: true, ..Capabilities::READ }
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        let names = self.cache.list().await?;
        let here = names.iter().filter(|(name, _)| reference::repository_of(name) == repository);
        let mut tags: Vec<&str> = here.filter_map(|(name, _)| name.tag()).collect();
        tags.sort_unstable();
        Ok(page.of(tags))
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        let names = self.cache.list().await?;
        let mut repositories: Vec<String> =
            names.iter().map(|(name, _)| reference::repository_of(name)).collect();
        repositories.sort();
        repositories.dedup();
        Ok(page.of(repositories))
    }
}

impl fmt::Display for CacheRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cache)
    }
}
