//! What a runtime holds: backends, a cache, and the verbs that runtimes know.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use plyfold_core::{
    Advice, Backends, CacheProvider, CacheProviderExt as _, CachedNames, Collect, Collected, Credential,
    Descriptor, ImageProvider, Lease, Materializers, NameChange, Opened, Options, PackageResolver, Page,
    Platform, PullOptions, PullResult, PulledImage, Reference, RegistrySource, Result, Shared, Usage,
    Verified, Verify, reference,
};

pub use load::LoadedImage;
#[cfg(feature = "command")]
pub(crate) use load::Spooled;
pub use save::Saved;
#[cfg(feature = "sync")]
pub use sync::{SyncOptions, SyncTarget};

mod attestations;
mod export;
mod files;
#[cfg(feature = "sync")]
pub(crate) mod knowing;
mod load;
mod merged;
mod save;
#[cfg(feature = "layout")]
mod scratch;
#[cfg(feature = "sync")]
mod sync;

/// Images of any backend, kept in a cache: by default in a store on this machine's disk, otherwise in whatever
/// [`CacheProvider`] the program gives.
///
/// Clones are cheap and share the cache; several processes may open one store at once. What they pull is leased: an
/// image stays complete while its [`PulledImage`] exists, whatever is removed or
/// [collected](crate::CacheProvider::collect) meanwhile, here or in another process. Of many that pull one image
/// one fetches it, and the others wait.
///
/// Registries are opened once for each host and options: all pulls of an `Images` and its clones share their
/// connections, tokens and limits. What such a registry reads of this machine (`hosts.toml`, certificates, stored
/// credentials) is read again for pulls that begin five minutes later. A pull with a
/// [credential of its own](PullOptions::credential) shares connections and limits, but no token.
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
#[derive(Clone)]
pub struct Images {
    cache: Box<dyn CacheProvider>,
    backends: Backends,
    materializers: Materializers,
    options: Options,
    packages: Option<Arc<dyn PackageResolver>>,
    /// The folder for temporary files that the program has given.
    pub(crate) scratch: Option<PathBuf>,
    /// Whether a pulled image is to be a layout on this machine.
    needs_layouts: bool,
    /// Whether the place that the cache is, as a URI, is read through it, and by no backend.
    reads_through_cache: bool,
    shared: Shared,
}

impl Images {
    /// Opens a store, which is created when there is none, with every backend that is linked into the program.
    ///
    /// # Errors
    /// Those of [`Store::open`](plyfold_layout::Store::open); [`Config`](crate::ErrorKind::Config) when two linked
    /// crates claim one scheme.
    #[cfg(feature = "layout")]
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let store = crate::blocking::blocking(move |_| plyfold_layout::Store::open(path)).await?;
        Self::with_cache(store)
    }

    /// Keeps images in any cache, with every backend and format that is linked into the program.
    ///
    /// A cache that is no [OCI layout](CacheProvider::layout) needs a [scratch folder](Self::with_scratch), its
    /// [own](CacheProvider::scratch) or one of the program.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) when two linked crates claim one scheme or one format.
    pub fn with_cache(cache: impl CacheProvider) -> Result<Self> {
        Ok(Self {
            cache: Box::new(cache),
            backends: Backends::linked()?,
            materializers: Materializers::linked()?,
            options: Options::default(),
            packages: None,
            scratch: None,
            needs_layouts: true,
            reads_through_cache: false,
            shared: Shared::default(),
        })
    }

    /// The same without a copy of pulled images where the cache is no layout: [`PulledImage::path`] then says where the cache is.
    #[cfg(feature = "command")]
    pub(crate) fn without_layouts(self) -> Self {
        Self { needs_layouts: false, ..self }
    }

    /// The same that reads the place of the cache through it, where others see a part alone.
    #[cfg(feature = "command")]
    pub(crate) fn reading_through_cache(self) -> Self {
        Self { reads_through_cache: true, ..self }
    }

    /// A folder, made when it is needed, for temporary files, and for what programs need as files of a cache that has
    /// none: each image that is pulled is copied into the OCI layout `layout` there, which is its [path](PulledImage::path). A
    /// [collection](Self::collect) removes the copies of images that no process holds. Several processes may share it.
    #[must_use]
    pub fn with_scratch(mut self, folder: impl Into<PathBuf>) -> Self {
        self.scratch = Some(folder.into());
        self
    }

    /// Takes other backends than the linked ones.
    #[must_use]
    pub fn with_backends(mut self, backends: Backends) -> Self {
        self.backends = backends;
        self
    }

    /// Takes other formats than the linked ones, for what a format is made from and for the command.
    #[must_use]
    pub fn with_materializers(mut self, materializers: Materializers) -> Self {
        self.materializers = materializers;
        self
    }

    /// Options for the backends that are opened from now on, as by `-o key=value`.
    #[must_use]
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Makes names out of templates, such as `@pkg:./dir` by a [`GitTree`](plyfold_core::package::GitTree), wherever an
    /// image is named by text. Without one no name makes the program read a directory.
    #[must_use]
    pub fn with_packages(mut self, packages: impl PackageResolver) -> Self {
        self.packages = Some(Arc::new(packages));
        self
    }

    /// Brings an image into the cache.
    ///
    /// `image` is a URI, `scheme:rest`, of any of the [`backends`](Self::backends), or a name with its registry,
    /// such as `ghcr.io/org/app:1.2`, which stands for `registry:ghcr.io/org/app:1.2`. A name without a registry
    /// is refused: the program decides about the registry.
    ///
    /// Directories and archives of one file name may give one name to different images. Pull those by
    /// [`PullPolicy::Always`](plyfold_core::PullPolicy::Always), which costs no network there.
    ///
    /// # Errors
    /// Those of [`Backends::open`] and [`pull`](fn@plyfold_core::pull); [`Config`](crate::ErrorKind::Config) when
    /// the cache is no layout and no [scratch folder](Self::with_scratch) is known.
    pub async fn pull(&self, image: &str, options: PullOptions) -> Result<PulledImage> {
        let operation = options.progress.operation();
        let (place, options) = (self.place()?, self.with_own(options));
        let opened = self.opened(image, options.credential.clone()).await?;
        let reference = opened.reference().await?;
        operation.hand_over();
        let result = self.cache.image_pull(&opened.registry, &reference, &options).await?;
        self.pulled(result, &options.platform, &place).await
    }

    /// Brings an image into the cache again: what is there is read and verified, what is damaged is replaced, and
    /// the backend is asked what the name stands for now.
    ///
    /// # Errors
    /// As [`Images::pull`].
    pub async fn force_pull(&self, image: &str, options: PullOptions) -> Result<PulledImage> {
        self.pull(image, PullOptions { force: true, ..options }).await
    }

    /// A pulled image, opened for reading: this one, also when its name stands for another image by now or for none.
    pub fn source(&self, image: &PulledImage) -> RegistrySource {
        image.source(&self.cache)
    }

    /// Whether an image is in the cache, whole. No network.
    ///
    /// # Errors
    /// As [`CacheProviderExt::completeness`](plyfold_core::CacheProviderExt::completeness).
    pub async fn is_cached(&self, name: &Reference, platform: &Platform) -> Result<bool> {
        self.cache.image_in_cache(name, platform).await
    }

    /// Removes a name; whether there was one. The content stays until it is collected.
    ///
    /// # Errors
    /// As [`CacheProvider::update`](plyfold_core::CacheProvider::update).
    pub async fn remove(&self, name: &Reference) -> Result<bool> {
        let there = self.cache.find_descriptor(name).await?.is_some();
        self.cache.remove(name).await?;
        Ok(there)
    }

    /// Every name in the cache and what it stands for, sorted by name.
    ///
    /// # Errors
    /// As [`CacheProvider::list`].
    pub async fn list_cached(&self) -> Result<Vec<(Reference, Descriptor)>> {
        self.cache.list().await
    }

    /// A page of the names in the cache, for caches of many.
    ///
    /// # Errors
    /// As [`CacheProvider::list_page`].
    pub async fn list_page(&self, page: &Page) -> Result<CachedNames> {
        self.cache.list_page(page).await
    }

    /// Keeps a name whatever [budget](plyfold_core::Collect::budget) a collection is given.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is no such name; otherwise as
    /// [`CacheProvider::update`](plyfold_core::CacheProvider::update).
    pub async fn pin(&self, name: &Reference) -> Result<()> {
        self.cache.update(&[NameChange::Pin(name.clone())]).await
    }

    /// Lets a collection remove a name again.
    ///
    /// # Errors
    /// As [`CacheProvider::update`](plyfold_core::CacheProvider::update).
    pub async fn unpin(&self, name: &Reference) -> Result<()> {
        self.cache.update(&[NameChange::Unpin(name.clone())]).await
    }

    /// What each image takes of the cache, and what all of them take.
    ///
    /// # Errors
    /// As [`CacheProvider::usage`](plyfold_core::CacheProvider::usage).
    pub async fn usage(&self) -> Result<Usage> {
        self.cache.usage().await
    }

    /// Removes what no name needs, and names to meet a budget. Safe beside pulls, in whatever process. Copies in a
    /// [scratch folder](Self::with_scratch) that no [`PulledImage`] holds are removed, too; they are not counted.
    ///
    /// # Errors
    /// As [`CacheProvider::collect`].
    pub async fn collect(&self, policy: &Collect) -> Result<Collected> {
        #[cfg(feature = "layout")]
        if let Ok(Place::Scratch(folder)) = self.place() {
            scratch::collect(&folder, policy.dry_run).await?;
        }
        self.cache.collect(policy).await
    }

    /// Reads content again, and says what is damaged or missing.
    ///
    /// # Errors
    /// As [`CacheProvider::verify`].
    pub async fn verify(&self, what: &Verify) -> Result<Verified> {
        self.cache.verify(what).await
    }

    /// The name that `image`, written as for [`Images::pull`], has in the cache. No network.
    ///
    /// # Errors
    /// As [`Images::pull`], as far as a backend has to be opened to know.
    pub async fn name(&self, image: &str) -> Result<Reference> {
        let image = &*self.resolved(image).await?;
        let name = if let Some(name) = self.qualified(image) {
            name
        } else {
            let opened = self.backends.open_with(image, &self.options, None, &self.shared);
            opened.await?.reference().await?
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
        self.opened(image, None).await
    }

    async fn opened(&self, image: &str, credential: Option<Credential>) -> Result<Opened> {
        let uri = self.uri(image).await?;
        if let Some(own) = self.own(&uri) {
            return Ok(own);
        }
        self.backends.open_with(&uri, &self.options, credential, &self.shared).await
    }

    /// The cache itself, if that is what a URI names.
    pub(crate) fn own(&self, uri: &str) -> Option<Opened> {
        let is_own = uri == self.cache.to_string() && (self.reads_through_cache || !self.backends.knows(uri));
        is_own.then(|| Opened { registry: Box::new(self.cache.as_registry()), reference: None })
    }

    /// The URI that `image` stands for.
    async fn uri<'a>(&self, image: &'a str) -> Result<Cow<'a, str>> {
        let image = self.resolved(image).await?;
        let named = self.qualified(&image).map(|name| format!("registry:{}", name.whole()));
        Ok(named.map_or(image, Cow::from))
    }

    /// The name that a template stands for; other texts are what they are.
    async fn resolved<'a>(&self, image: &'a str) -> Result<Cow<'a, str>> {
        let Some(packages) = &self.packages else { return Ok(image.into()) };
        let resolved = packages.resolve(image).await.map_err(|e| e.with_image(image))?;
        Ok(resolved.map_or(image.into(), Cow::from))
    }

    /// A name with its registry, if that is what `image` is.
    fn qualified(&self, image: &str) -> Option<Reference> {
        let host = image.split_once('/').map_or("", |(host, _)| host);
        if self.backends.knows(image) || !(host == "localhost" || host.contains(['.', ':'])) {
            return None;
        }
        reference::parse(image).ok()
    }

    /// The cache itself: a clone, which shares everything with it.
    pub fn cache(&self) -> Box<dyn CacheProvider> {
        self.cache.clone()
    }

    /// The formats that images can be made into.
    pub fn materializers(&self) -> &Materializers {
        &self.materializers
    }

    /// The backends that images come from.
    pub fn backends(&self) -> &Backends {
        &self.backends
    }

    /// The scratch folder is that of the program, unless the caller has another one.
    fn with_own(&self, options: PullOptions) -> PullOptions {
        PullOptions { scratch: options.scratch.or_else(|| self.scratch.clone()), ..options }
    }

    /// Where pulled images are as files.
    fn place(&self) -> Result<Place> {
        if let Some(layout) = self.cache.layout() {
            return Ok(Place::Layout(layout.to_owned()));
        }
        if !self.needs_layouts {
            return Ok(Place::Cache);
        }
        let folder = self.scratch().ok_or_else(|| {
            let error = crate::Error::config("no folder is known for temporary files");
            error.with_endpoint(&self.cache).with_advice(Advice::GiveFolder)
        });
        folder.map(Place::Scratch)
    }

    async fn pulled(
        &self,
        mut result: PullResult,
        platform: &Platform,
        place: &Place,
    ) -> Result<PulledImage> {
        let path = match place {
            Place::Cache => PathBuf::from(self.cache.to_string()),
            Place::Layout(path) => path.clone(),
            Place::Scratch(folder) => {
                let (path, lease) = Box::pin(self.copied(folder, &result, platform)).await?;
                result.lease = Lease::new((result.lease, lease));
                path
            }
        };
        Ok(PulledImage::new(path, result, platform.clone()))
    }

    /// The image as a layout in the scratch folder, and the lease that keeps it there.
    #[cfg(feature = "layout")]
    async fn copied(
        &self,
        folder: &Path,
        result: &PullResult,
        platform: &Platform,
    ) -> Result<(PathBuf, Lease)> {
        let copied = scratch::copy(self.cache.clone(), folder, result, platform).await;
        copied.map_err(|e| e.with_image(&result.reference))
    }

    #[cfg(not(feature = "layout"))]
    #[expect(clippy::unused_async, reason = "the signature of the other one")]
    async fn copied(&self, _: &Path, result: &PullResult, _: &Platform) -> Result<(PathBuf, Lease)> {
        let error =
            crate::Error::unsupported("the cache is no OCI layout, and plyfold was built without layouts");
        Err(error.with_image(&result.reference).with_endpoint(&self.cache))
    }
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images").field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// Its own methods, for what is written against the trait.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl ImageProvider for Images {
    async fn pull(&self, image: &str, options: PullOptions) -> Result<PulledImage> {
        Self::pull(self, image, options).await
    }

    async fn force_pull(&self, image: &str, options: PullOptions) -> Result<PulledImage> {
        Self::force_pull(self, image, options).await
    }

    async fn is_cached(&self, name: &Reference, platform: &Platform) -> Result<bool> {
        Self::is_cached(self, name, platform).await
    }

    async fn remove(&self, name: &Reference) -> Result<bool> {
        Self::remove(self, name).await
    }

    async fn list_cached(&self) -> Result<Vec<(Reference, Descriptor)>> {
        Self::list_cached(self).await
    }

    async fn list_page(&self, page: &Page) -> Result<CachedNames> {
        Self::list_page(self, page).await
    }
}

/// Where pulled images are as files.
enum Place {
    /// Nowhere: they are read through the cache.
    Cache,
    /// In the cache, which is a layout.
    Layout(PathBuf),
    /// In a layout within this folder.
    Scratch(PathBuf),
}
