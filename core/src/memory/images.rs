//! A provider in memory, for tests of runtimes.

use std::fs;
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::TempDir;

use super::MemoryCache;
use crate::backend::Backends;
use crate::cache::{CacheProvider as _, CacheProviderExt as _, Lease, Needs};
use crate::layout_index::{LAYOUT, LayoutIndex};
use crate::options::Options;
use crate::provider::{ImageProvider, PulledImage};
use crate::pull::{PullOptions, PullResult, pull};
use crate::shared::Shared;
use crate::{Descriptor, Digest, Error, ErrorKind, Platform, Reference, Result};

/// An [`ImageProvider`] whose images are in memory: the double for tests of what is written against that trait. Each
/// pulled image is an OCI layout in a temporary directory of its own, which goes with it. Clones share the cache.
#[derive(Clone, Debug)]
pub struct MemoryImages {
    cache: MemoryCache,
    backends: Backends,
}

impl MemoryImages {
    /// No images yet; they come from every backend that is linked into the program, such as `memory:`.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) when two linked crates claim one scheme, [`Io`](crate::ErrorKind::Io).
    pub fn new() -> Result<Self> {
        Ok(Self { cache: MemoryCache::new()?, backends: Backends::linked()? })
    }

    /// Takes other backends than the linked ones.
    #[must_use]
    pub fn with_backends(mut self, backends: Backends) -> Self {
        self.backends = backends;
        self
    }

    /// What it holds, to damage or to count it.
    pub fn cache(&self) -> &MemoryCache {
        &self.cache
    }

    /// Writes what a pulled image leads to into a layout.
    async fn layout(&self, image: &PullResult) -> Result<TempDir> {
        let needs = Needs::of(&self.cache, &image.descriptor).await?;
        let mut blobs = Vec::with_capacity(needs.blobs.len());
        for need in needs.blobs.values() {
            // An index also lists images of other platforms, which are not here.
            match self.cache.content(&need.descriptor, u64::MAX).await {
                Ok(content) => blobs.push((need.descriptor.digest().clone(), content)),
                Err(e) if *e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        let (name, top) = (image.reference.clone(), image.descriptor.clone());
        let written = tokio::task::spawn_blocking(move || {
            let folder = TempDir::new()?;
            write(folder.path(), &name, &top, &blobs)?;
            Ok(folder)
        });
        let written: std::io::Result<TempDir> =
            written.await.unwrap_or_else(|e| Err(std::io::Error::other(e)));
        written.map_err(|e| Error::io("writing a layout", e).with_image(&image.reference))
    }
}

fn write(
    folder: &Path,
    name: &Reference,
    top: &Descriptor,
    blobs: &[(Digest, Bytes)],
) -> std::io::Result<()> {
    for (digest, content) in blobs {
        let place = folder.join("blobs").join(digest.algorithm().as_ref());
        fs::create_dir_all(&place)?;
        fs::write(place.join(digest.digest()), content)?;
    }
    let mut index = LayoutIndex::new(folder);
    index.set(name, top, true);
    fs::write(folder.join("index.json"), index.to_bytes())?;
    fs::write(folder.join("oci-layout"), LAYOUT)
}

#[async_trait]
impl ImageProvider for MemoryImages {
    async fn pull(&self, image: &str, options: PullOptions) -> Result<PulledImage> {
        let operation = options.progress.operation();
        let (options_of, credential) = (Options::default(), options.credential.clone());
        let opened = self.backends.open_with(image, &options_of, credential, &Shared::default()).await?;
        let reference = opened.reference().await?;
        operation.hand_over();
        let mut pulled = pull(&opened.registry, &reference, &self.cache, &options).await?;
        let layout = self.layout(&pulled).await?;
        let path = layout.path().to_owned();
        pulled.lease = Lease::new((pulled.lease, layout));
        Ok(PulledImage::new(path, pulled, options.platform))
    }

    async fn is_cached(&self, name: &Reference, platform: &Platform) -> Result<bool> {
        self.cache.image_in_cache(name, platform).await
    }

    async fn remove(&self, name: &Reference) -> Result<bool> {
        let there = self.cache.find_descriptor(name).await?.is_some();
        self.cache.remove(name).await?;
        Ok(there)
    }

    async fn list_cached(&self) -> Result<Vec<(Reference, Descriptor)>> {
        self.cache.list().await
    }
}
