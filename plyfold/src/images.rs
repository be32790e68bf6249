//! What a runtime holds: backends, a store, and the verbs that runtimes know.

use std::path::{Path, PathBuf};

use plyfold_core::{
    Backends, CacheProvider as _, CacheProviderExt as _, Collect, Collected, Descriptor, Digest, Lease,
    NameChange, Opened, Options, Platform, PullOptions, PullResult, PulledLayer, RawConfig, RawManifest,
    Reference, RegistrySource, Result, Usage, reference,
};
use plyfold_layout::Store;

use crate::whole::blocking;

/// Images of any backend, kept in a store.
///
/// Clones are cheap and share the store; several processes may open one store at once. What they pull is leased: an
/// image stays whole while its [`PulledImage`] lives, whatever is removed or
/// [collected](crate::CacheProvider::collect) meanwhile, here or in another process. Of many that pull one image
/// one fetches it, and the others wait.
///
/// `examples/runtime.rs` shows all that a runtime does: pull, materialize, list, and collect to a budget.
///
/// ```no_run
/// use plyfold::{Images, PullOptions, Rootfs};
///
/// # async fn run() -> plyfold::Result<()> {
/// let images = Images::open("/var/lib/images").await?;
/// let image = images.pull("ghcr.io/org/app:1.2", PullOptions::default()).await?;
/// let disks = images.materialize(&image, &Rootfs::vmdk().upper(8 << 30), "/run/vm1".as_ref()).await?;
/// println!("boot from {:?}, write to {:?}", disks.vmdk, disks.upper);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Images {
    store: Store,
    backends: Backends,
    options: Options,
}

/// An image in the store. Its content is not collected until it and its clones are dropped, even when its name is
/// removed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PulledImage {
    /// The store: an OCI layout directory, in which the image has the name [`reference`](Self::reference).
    pub path: PathBuf,
    /// The image's name in the store.
    pub reference: Reference,
    /// What the name stands for: the digest of an index or of a manifest.
    pub digest: Digest,
    /// The digest of the manifest for [`platform`](Self::platform).
    pub manifest: Digest,
    /// The platform that was asked for.
    pub platform: Platform,
    /// The layers, bottom first.
    pub layers: Vec<PulledLayer>,
    /// Whether every layer was here already; the name may still have been asked for.
    pub cached: bool,
    /// The lease that keeps it in the store: for programs that need only the files.
    pub lease: Lease,
    raw: RawManifest,
    config: Option<RawConfig>,
}

impl Images {
    /// Opens a store, which is created when there is none, with every backend that is linked into the program.
    ///
    /// # Errors
    /// Those of [`Store::open`]; [`Config`](crate::ErrorKind::Config) when two linked crates claim one scheme.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let store = blocking(move |_| Store::open(path)).await?;
        Ok(Self { store, backends: Backends::linked()?, options: Options::default() })
    }

    /// Takes other backends than the linked ones.
    #[must_use]
    pub fn with_backends(mut self, backends: Backends) -> Self {
        self.backends = backends;
        self
    }

    /// Options for the backends that are opened from now on, as by `-o key=value`.
    #[must_use]
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Brings an image into the store.
    ///
    /// `image` is a URI, `scheme:rest`, of any of the [`backends`](Self::backends), or a name with its registry,
    /// such as `ghcr.io/org/app:1.2`, which stands for `registry:ghcr.io/org/app:1.2`. A name without a registry
    /// is refused: the program decides about the registry.
    ///
    /// Directories and archives of one file name may give one name to different images. Pull those by
    /// [`PullPolicy::Always`](plyfold_core::PullPolicy::Always), which costs no network there.
    ///
    /// # Errors
    /// Those of [`Backends::open`] and [`pull`](fn@plyfold_core::pull).
    pub async fn pull(&self, image: &str, options: PullOptions) -> Result<PulledImage> {
        let operation = options.progress.operation();
        let opened = self.locate(image).await?;
        let reference = opened.reference().await?;
        operation.hand_over();
        let result = self.store.image_pull(&opened.registry, &reference, &options).await?;
        Ok(self.pulled(result, &options.platform))
    }

    /// Brings an image into the store again: what is there is read and verified, what is damaged is replaced, and
    /// the backend is asked what the name stands for now.
    ///
    /// # Errors
    /// As [`Images::pull`].
    pub async fn force_pull(&self, image: &str, options: PullOptions) -> Result<PulledImage> {
        self.pull(image, PullOptions { force: true, ..options }).await
    }

    /// Brings every image of an archive or a layout directory into the store, or the one that the URI names.
    ///
    /// # Errors
    /// Those of [`Backends::open`] and [`CacheProviderExt::image_load`](plyfold_core::CacheProviderExt::image_load).
    pub async fn load(&self, archive: &str, options: PullOptions) -> Result<Vec<PulledImage>> {
        let operation = options.progress.operation();
        let opened = self.locate(archive).await?;
        operation.hand_over();
        let loaded = self.store.image_load(&opened, &options).await?;
        Ok(loaded.into_iter().map(|result| self.pulled(result, &options.platform)).collect())
    }

    /// A pulled image, opened for reading: this one, also when its name stands for another image by now or for none.
    pub fn source(&self, image: &PulledImage) -> RegistrySource {
        let registry = Box::new(self.store.as_registry());
        RegistrySource::in_hand(registry, image.reference.clone(), image.raw.clone(), image.config.clone())
    }

    /// Whether an image is in the store, whole. No network.
    ///
    /// # Errors
    /// As [`CacheProviderExt::completeness`](plyfold_core::CacheProviderExt::completeness).
    pub async fn is_cached(&self, name: &Reference, platform: &Platform) -> Result<bool> {
        self.store.image_in_cache(name, platform).await
    }

    /// Removes a name; whether there was one. The content stays until it is collected.
    ///
    /// # Errors
    /// As [`CacheProvider::update`](plyfold_core::CacheProvider::update).
    pub async fn remove(&self, name: &Reference) -> Result<bool> {
        let there = self.store.find_descriptor(name).await?.is_some();
        self.store.remove(name).await?;
        Ok(there)
    }

    /// Every name in the store and what it stands for, sorted by name.
    ///
    /// # Errors
    /// As [`CacheProvider::list`](plyfold_core::CacheProvider::list).
    pub async fn list_cached(&self) -> Result<Vec<(Reference, Descriptor)>> {
        self.store.list().await
    }

    /// Keeps a name whatever [budget](plyfold_core::Collect::budget) a collection is given.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is no such name; otherwise as
    /// [`CacheProvider::update`](plyfold_core::CacheProvider::update).
    pub async fn pin(&self, name: &Reference) -> Result<()> {
        self.store.update(&[NameChange::Pin(name.clone())]).await
    }

    /// Lets a collection remove a name again.
    ///
    /// # Errors
    /// As [`CacheProvider::update`](plyfold_core::CacheProvider::update).
    pub async fn unpin(&self, name: &Reference) -> Result<()> {
        self.store.update(&[NameChange::Unpin(name.clone())]).await
    }

    /// Disk usage of each image and of the store.
    ///
    /// # Errors
    /// As [`CacheProvider::usage`](plyfold_core::CacheProvider::usage).
    pub async fn usage(&self) -> Result<Usage> {
        self.store.usage().await
    }

    /// Removes what no name needs, and names to meet a budget. Safe beside pulls, in whatever process.
    ///
    /// # Errors
    /// As [`CacheProvider::collect`](plyfold_core::CacheProvider::collect).
    pub async fn collect(&self, policy: &Collect) -> Result<Collected> {
        self.store.collect(policy).await
    }

    /// The name that `image`, written as for [`Images::pull`], has in the store. No network.
    ///
    /// # Errors
    /// As [`Images::pull`], as far as a backend has to be opened to know.
    pub async fn name(&self, image: &str) -> Result<Reference> {
        let name = match self.qualified(image) {
            Some(name) => name,
            None => self.backends.open(image, &self.options).await?.reference().await?,
        };
        // A pull by digest keeps the digest alone: the tag may mean something else by now.
        Ok(match reference::digest_of(&name)? {
            Some(digest) => reference::by_digest(&name, &digest),
            None => name,
        })
    }

    /// Opens the backend that `image`, written as for [`Images::pull`], comes from.
    ///
    /// # Errors
    /// Those of [`Backends::open`].
    pub async fn locate(&self, image: &str) -> Result<Opened> {
        match self.qualified(image) {
            Some(name) => self.backends.open(&format!("registry:{}", name.whole()), &self.options).await,
            None => self.backends.open(image, &self.options).await,
        }
    }

    /// A name with its registry, if that is what `image` is.
    fn qualified(&self, image: &str) -> Option<Reference> {
        let host = image.split_once('/').map_or("", |(host, _)| host);
        if self.backends.knows(image) || !(host == "localhost" || host.contains(['.', ':'])) {
            return None;
        }
        reference::parse(image).ok()
    }

    /// The store itself.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The backends that images come from.
    pub fn backends(&self) -> &Backends {
        &self.backends
    }

    fn pulled(&self, result: PullResult, platform: &Platform) -> PulledImage {
        PulledImage {
            path: self.store.path().to_owned(),
            reference: result.reference,
            digest: result.descriptor.digest().clone(),
            manifest: result.manifest.digest().clone(),
            raw: result.manifest,
            config: result.config,
            platform: platform.clone(),
            layers: result.layers,
            cached: result.cached,
            lease: result.lease,
        }
    }
}
