//! What a runtime's boot path holds: something that gives it images.

use std::fmt::Debug;
use std::path::PathBuf;

use async_trait::async_trait;
use dyn_clone::DynClone;

use crate::cache::{CacheProvider, CacheProviderExt as _, CachedNames, Lease};
use crate::manifest::{RawConfig, RawManifest};
use crate::pull::{PullOptions, PullResult, PulledLayer};
use crate::registry::Page;
use crate::snapshot::Process;
use crate::source::RegistrySource;
use crate::{Descriptor, Digest, Platform, Reference, Result};

/// Images by their names, wherever they come from and wherever they are kept.
///
/// A runtime that is written against `Box<dyn ImageProvider>` does not know whether an image comes from a registry, a
/// layout, an archive or a backend of a third party: that is the scheme of its URI. `plyfold::Images` is the one for
/// production, `plyfold_conformance::fixtures::MemoryImages` the one for a runtime's own tests.
///
/// ```
/// use plyfold_core::{ImageProvider, PullOptions, Result};
///
/// async fn boot(images: &dyn ImageProvider, image: &str) -> Result<()> {
///     let image = images.pull(image, PullOptions::default()).await?;
///     println!("{} is an OCI layout with {}", image.path.display(), image.reference);
///     Ok(())
/// }
/// ```
#[async_trait]
pub trait ImageProvider: DynClone + Debug + Send + Sync + 'static {
    /// Brings an image here, and keeps it while the result or a clone of it lives. `image` is a URI, `scheme:rest`, of
    /// a backend that the provider knows.
    ///
    /// # Errors
    /// As [`Backends::open`](crate::Backends::open) and [`pull`](fn@crate::pull).
    async fn pull(&self, image: &str, options: PullOptions) -> Result<PulledImage>;

    /// Brings an image here again: what is here is read and verified, what is damaged is replaced, and the backend is
    /// asked what the name stands for now.
    ///
    /// # Errors
    /// As [`ImageProvider::pull`].
    async fn force_pull(&self, image: &str, options: PullOptions) -> Result<PulledImage> {
        self.pull(image, PullOptions { force: true, ..options }).await
    }

    /// Whether an image is here, whole, for a platform. No network.
    ///
    /// # Errors
    /// As [`CacheProviderExt::completeness`](crate::CacheProviderExt::completeness).
    async fn is_cached(&self, name: &Reference, platform: &Platform) -> Result<bool>;

    /// Removes a name; whether there was one. The content stays until it is collected.
    ///
    /// # Errors
    /// As [`CacheProvider::update`].
    async fn remove(&self, name: &Reference) -> Result<bool>;

    /// Every name that is here and what it stands for, sorted by name.
    ///
    /// # Errors
    /// As [`CacheProvider::list`].
    async fn list_cached(&self) -> Result<Vec<(Reference, Descriptor)>>;

    /// A page of the names.
    ///
    /// # Errors
    /// As [`CacheProvider::list_page`].
    async fn list_page(&self, page: &Page) -> Result<CachedNames> {
        Ok(CachedNames::of(self.list_cached().await?, page))
    }
}

dyn_clone::clone_trait_object!(ImageProvider);

// A boxed provider is a provider.
crate::forward! {
    ImageProvider, Box<dyn ImageProvider>, |images| (**images);
    async pull(image: &str, options: PullOptions) -> Result<PulledImage>;
    async force_pull(image: &str, options: PullOptions) -> Result<PulledImage>;
    async is_cached(name: &Reference, platform: &Platform) -> Result<bool>;
    async remove(name: &Reference) -> Result<bool>;
    async list_cached() -> Result<Vec<(Reference, Descriptor)>>;
    async list_page(page: &Page) -> Result<CachedNames>;
}

/// An image that is here. Its content is not collected until it and its clones are dropped, even when its name is
/// removed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PulledImage {
    /// An OCI layout directory in which the image has the name [`reference`](Self::reference), while this or a clone
    /// of it lives; with [`PullNaming`](crate::PullNaming) it may be there by its digest alone.
    pub path: PathBuf,
    /// The image's name here.
    pub reference: Reference,
    /// What the name stands for: the digest of an index or of a manifest.
    pub digest: Digest,
    /// What the name stood for until now, if that was another image.
    pub replaced: Option<Digest>,
    /// The digest of the manifest for [`platform`](Self::platform).
    pub manifest: Digest,
    /// The platform that was asked for.
    pub platform: Platform,
    /// The layers, bottom first.
    pub layers: Vec<PulledLayer>,
    /// Whether every layer was here already; the name may still have been asked for.
    pub cached: bool,
    /// The lease that keeps it in the cache and at its path: for programs that need only the files.
    pub lease: Lease,
    raw: RawManifest,
    indexes: Vec<RawManifest>,
    config: Option<RawConfig>,
}

impl PulledImage {
    /// An image that was pulled for a platform, and the layout that it is in.
    pub fn new(path: PathBuf, pulled: PullResult, platform: Platform) -> Self {
        Self {
            path,
            reference: pulled.reference,
            digest: pulled.descriptor.digest().clone(),
            replaced: pulled.replaced.map(|replaced| replaced.digest().clone()),
            manifest: pulled.manifest.digest().clone(),
            platform,
            layers: pulled.layers,
            cached: pulled.cached,
            lease: pulled.lease,
            raw: pulled.manifest,
            indexes: pulled.indexes,
            config: pulled.config,
        }
    }

    /// The descriptor of its [manifest](Self::manifest).
    pub fn descriptor(&self) -> &Descriptor {
        self.raw.descriptor()
    }

    /// The platform that it was made for, as its configuration says; `None` for an artifact, which has none.
    pub fn made_for(&self) -> Option<Platform> {
        self.config.as_ref().map(|config| config.platform_or(self.raw.platform()))
    }

    /// What its configuration says of its process; `None` for an artifact.
    pub fn process(&self) -> Option<Process> {
        self.config.as_ref().and_then(|config| Process::of(config.document()))
    }

    /// The image opened for reading from the cache that it is in: this one, also when its name stands for another image
    /// by now or for none.
    pub fn source(&self, cache: &dyn CacheProvider) -> RegistrySource {
        let registry = Box::new(dyn_clone::clone_box(cache).as_registry());
        RegistrySource::in_hand(registry, self.reference.clone(), self.raw.clone(), self.config.clone())
            .with_indexes(self.indexes.clone())
    }
}
