//! A cache, seen as a registry of what it holds.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;

use super::content::{MissingBlob, of_blob};
use super::{CacheProvider, attach, content};
use crate::manifest::{RawManifest, limits};
use crate::registry::{Capabilities, ImageRegistry, Names, Page, TagTable};
use crate::source::{ImageSource as _, RegistrySource};
use crate::{
    Advice, Blob, BlobRange, Descriptor, Digest, Error, ErrorKind, MediaType, Platform, Reference, Result,
    reference, select,
};

/// What a cache lacks of an image for one platform.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Completeness {
    /// Manifest, config and every layer are here with the right sizes.
    Complete,
    /// The name is known, these are missing: config, layers, or the manifest of the platform itself.
    Incomplete(Vec<Digest>),
    /// The name is unknown.
    Unknown,
}

/// A [`CacheProvider`] seen as an [`ImageRegistry`], to read and to copy from.
#[derive(Clone, Debug)]
pub struct CacheRegistry {
    cache: Box<dyn CacheProvider>,
    /// A name fixed to a document: later changes of the name are ignored.
    fixed: Option<(Reference, RawManifest)>,
    /// Documents that are not in the cache, and that the fixed name leads to.
    documents: HashMap<Digest, RawManifest>,
}

impl CacheRegistry {
    async fn tag_table(&self) -> Result<TagTable> {
        let names = self.cache.list().await?;
        Ok(TagTable::of(names.iter().map(|(name, _)| name)))
    }

    /// The same cache, in which `name` stands for `root`, also when it is moved or removed meanwhile. What `root` leads
    /// to is found by its digest alone.
    #[must_use]
    pub fn fixed(self, name: Reference, root: RawManifest) -> Self {
        Self { fixed: Some((name, root)), ..self }
    }

    /// The same with documents that the fixed name leads to, by their digests, and that the cache does not have.
    pub(super) fn with_documents(self, documents: HashMap<Digest, RawManifest>) -> Self {
        Self { documents, ..self }
    }

    /// A document by its digest, whatever names lead to it.
    async fn document(&self, digest: &Digest) -> Result<RawManifest> {
        if let Some(document) = self.documents.get(digest) {
            return Ok(document.clone());
        }
        let bytes = content::read_digest(&self.cache, digest, limits::MANIFEST).await?;
        RawManifest::verified(bytes, None, digest)
    }

    /// What the fixed name and the digests below it stand for; `None` for every other name.
    async fn in_hand(&self, reference: &Reference) -> Result<Option<RawManifest>> {
        let Some((name, root)) = &self.fixed else { return Ok(None) };
        match reference::digest_of(reference)? {
            Some(digest) if digest == *root.digest() => Ok(Some(root.clone())),
            None if reference == name => Ok(Some(root.clone())),
            Some(digest) => {
                let found = self.document(&digest).await;
                let at = |e| of_blob(e, &digest).with_image(reference).with_endpoint(self);
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
            return Err(match reference::digest_of(reference)? {
                Some(digest) => of_blob(error, &digest),
                None => error.with_advice(Advice::Pull { image: reference.to_string() }),
            });
        };
        let found = content::read(&self.cache, &descriptor, limits::MANIFEST).await;
        let at = |e| of_blob(e, descriptor.digest()).with_image(reference).with_endpoint(self);
        RawManifest::described(found.map_err(at)?, &descriptor).map_err(at)
    }

    async fn blob(&self, _: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.cache.open(blob, range).await.map_err(|e| of_blob(e, blob.digest()))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { referrers: true, repositories: true, tags: true, ..Capabilities::READ }
    }

    async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        attach::referrers(&self.cache, reference, subject, artifact_type).await
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        Ok(self.tag_table().await?.tags(repository, &page).unwrap_or_default())
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        Ok(self.tag_table().await?.repositories(&page))
    }
}

impl fmt::Display for CacheRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cache)
    }
}

/// The cache seen as a registry of what it holds.
pub(super) fn as_registry(cache: &dyn CacheProvider) -> CacheRegistry {
    CacheRegistry { cache: dyn_clone::clone_box(cache), fixed: None, documents: HashMap::new() }
}

/// An image of the cache, opened for reading.
pub(super) async fn new_source(
    cache: &dyn CacheProvider,
    reference: &Reference,
    platform: &Platform,
) -> Result<RegistrySource> {
    let registry = as_registry(cache);
    let root = select::raw(&registry, reference).await?;
    RegistrySource::open(Box::new(registry.fixed(reference.clone(), root)), reference, platform).await
}

/// The image for a platform that a descriptor leads to, whatever the name `image` stands for by now.
pub(crate) async fn source_of(
    cache: &dyn CacheProvider,
    image: &Reference,
    top: &Descriptor,
    platform: &Platform,
) -> Result<RegistrySource> {
    let at = |e| of_blob(e, top.digest()).with_image(image).with_endpoint(cache);
    let found = content::read(cache, top, limits::MANIFEST).await.map_err(at)?;
    let root = RawManifest::described(found, top).map_err(at)?;
    let registry = as_registry(cache).fixed(image.clone(), root);
    RegistrySource::open(Box::new(registry), image, platform).await
}

/// What the cache lacks of an image for a platform.
pub(crate) async fn completeness(
    cache: &dyn CacheProvider,
    reference: &Reference,
    platform: &Platform,
) -> Result<Completeness> {
    let Some(top) = cache.find_descriptor(reference).await? else { return Ok(Completeness::Unknown) };
    let source = match source_of(cache, reference, &top, platform).await {
        Ok(source) => source,
        // The index is here, what it chose is not.
        Err(e) if *e.kind() == ErrorKind::NotFound => {
            let missing = e.detail().map(|MissingBlob(digest)| digest.clone());
            return Ok(Completeness::Incomplete(missing.into_iter().collect()));
        }
        Err(e) => return Err(e),
    };
    let missing = content::absent(cache, source.raw().references()).await?;
    Ok(if missing.is_empty() { Completeness::Complete } else { Completeness::Incomplete(missing) })
}
