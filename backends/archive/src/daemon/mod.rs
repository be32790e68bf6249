//! A Docker daemon as a registry: `docker-daemon:NAME[:TAG]`, over its Unix socket.
//!
//! It saves an image as one stream, as `docker save` does, which goes to a file without a name and is read as an archive.
//! What is pushed goes to an archive in a temporary folder, which it loads when the names are set.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use plyfold_core::cache::MissingBlob;
use plyfold_core::copy::{CopyOptions, copy};
use plyfold_core::{
    Backend, Blob, BlobRange, Capabilities, Descriptor, Digest, Error, ImageRegistry, Location, Names,
    Opened, Options, Page, RawManifest, Reference, Result, TagTable, digest, reference,
};

use self::client::Client;
pub use self::fault::DaemonFault;
use self::loaded::Loading;
pub use self::options::DaemonConfig;
use self::saved::{Saved, Wanted};

mod client;
mod fault;
mod identity;
mod list;
mod loaded;
mod options;
mod saved;
mod scratch;

plyfold_core::register!(Backend {
    schemes: &["docker-daemon"],
    package: env!("CARGO_PKG_NAME"),
    summary: "images of a Docker daemon, over its socket",
    syntax: "docker-daemon:NAME[:TAG] or docker-daemon:sha256:ID, or docker-daemon: for the daemon itself",
    options: "socket=PATH, spool-limit=BYTES, timeout=SECONDS",
    capabilities: CAPABILITIES,
    takes_credentials: false,
    open: |request| Box::pin(async move { open(&request.location, &request.options) }),
});

const CAPABILITIES: Capabilities =
    Capabilities { push: true, repositories: true, tags: true, ..Capabilities::READ };

fn open(location: &Location, options: &Options) -> Result<Opened> {
    let daemon = Daemon::new(&options.config()?)?;
    let wanted = location.rest.as_str();
    if wanted.is_empty() {
        return Ok(Opened { registry: Box::new(daemon), reference: None });
    }
    if let Ok(id) = digest::parse(wanted) {
        let registry = Box::new(daemon.of_image(&id));
        return Ok(Opened { registry, reference: None });
    }
    if wanted.starts_with("sha256:") {
        return Err(DaemonFault::Id(plyfold_core::printable(wanted)).into());
    }
    let name = reference::parse(wanted)?;
    if name.digest().is_some() {
        return Err(DaemonFault::Digest(location.to_string()).into());
    }
    Ok(Opened { registry: Box::new(daemon), reference: Some(name) })
}

/// The images of a Docker daemon.
///
/// An image is saved once for a handle and its clones, whatever is asked of it. The daemon keeps no manifests unless it has
/// the image store of containerd: as in a docker-archive, they are generated, and the digest that is its own is that of the
/// configuration, its image ID. So is what it keeps of an image that is pushed.
#[derive(Clone)]
pub struct Daemon {
    client: Client,
    /// The ID of the one image that is seen; `None` for all that have a name.
    id: Option<Digest>,
    saved: Arc<Saved>,
    loading: Arc<Loading>,
}

impl Daemon {
    /// The daemon at a socket, which is connected to only when it is used.
    ///
    /// # Errors
    /// [`Unsupported`](plyfold_core::ErrorKind::Unsupported) where `DOCKER_HOST` is no Unix socket.
    pub fn new(config: &DaemonConfig) -> Result<Self> {
        let socket = config.socket(std::env::var_os("DOCKER_HOST"))?;
        let client = Client { socket, timeout: config.timeout()? };
        let saved = Arc::new(Saved::new(config.spool_limit));
        Ok(Self { client, id: None, saved, loading: Arc::default() })
    }

    /// One image by its ID, whether it has a name or not.
    #[must_use]
    pub fn of_image(self, id: &Digest) -> Self {
        Self { id: Some(id.clone()), ..self }
    }

    /// The only image, as an archive.
    async fn only(&self) -> Result<Option<Box<dyn ImageRegistry>>> {
        let Some(id) = &self.id else { return Ok(None) };
        self.saved.image(&self.client, Wanted::Id(id)).await.map(Some)
    }

    /// What an image is read from.
    async fn image(&self, name: &Reference) -> Result<Box<dyn ImageRegistry>> {
        // One that was made by hand could hold anything, and its parts go into URLs.
        let name = &reference::parse(&name.whole())?;
        if let Some(only) = self.only().await? {
            return Ok(only);
        }
        if name.digest().is_some() {
            return self.having(name).await;
        }
        self.saved.image(&self.client, Wanted::Name(name)).await
    }

    /// The image of a repository that has a document: which one is not known before it is saved, and mostly it was.
    async fn having(&self, name: &Reference) -> Result<Box<dyn ImageRegistry>> {
        if let Some(seen) = self.saved.having(name).await? {
            return Ok(seen);
        }
        for other in self.names().await? {
            if reference::repository_of(&other) != reference::repository_of(name) {
                continue;
            }
            let image = self.saved.image(&self.client, Wanted::Name(&other)).await?;
            if Error::found(image.manifest(name).await)?.is_some() {
                return Ok(image);
            }
        }
        Err(Error::not_found("no image of the repository has this digest"))
    }

    /// Pushes again what the daemon has of these images under other names. Whether it has all of them.
    async fn pushed_again(&self, names: &[(Reference, RawManifest)]) -> Result<bool> {
        for (name, raw) in names.iter().filter(|(name, _)| name.tag().is_some()) {
            let by_digest = reference::by_digest(name, raw.digest());
            let Some(image) = Error::found(self.having(&by_digest).await)? else { return Ok(false) };
            let to = self.loading.archive().await?;
            copy(&*image, &by_digest, &to, name, &CopyOptions::default()).await?;
        }
        Ok(true)
    }

    fn at(&self, error: Error, name: &Reference) -> Error {
        error.with_image(name).with_endpoint(self)
    }

    /// The names that the daemon has, sorted.
    async fn names(&self) -> Result<Vec<Reference>> {
        list::names(&self.client).await.map_err(|e| e.with_endpoint(self))
    }
}

#[async_trait]
impl ImageRegistry for Daemon {
    async fn manifest(&self, name: &Reference) -> Result<RawManifest> {
        if let Some(pushed) = self.loading.manifest(name).await {
            return pushed.map_err(|e| self.at(e, name));
        }
        let image = self.image(name).await.map_err(|e| self.at(e, name))?;
        image.manifest(name).await.map_err(|e| self.at(e, name))
    }

    async fn blob(&self, name: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        if let Some(pushed) = self.loading.blob(name, blob, range).await {
            return pushed.map_err(|e| self.at(e, name));
        }
        let image = self.image(name).await.map_err(|e| self.at(e, name))?;
        image.blob(name, blob, range).await.map_err(|e| self.at(e, name))
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        if let Some(only) = self.only().await? {
            return only.tags(repository, page).await;
        }
        let tags = TagTable::of(&self.names().await?).tags(repository, &page);
        tags.ok_or_else(|| {
            Error::not_found(format!("no repository {repository} in the daemon")).with_endpoint(self)
        })
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        match self.only().await? {
            Some(only) => only.repositories(page).await,
            None => Ok(TagTable::of(&self.names().await?).repositories(&page)),
        }
    }

    async fn untagged(&self) -> Result<Vec<Reference>> {
        match self.only().await? {
            Some(only) => only.untagged().await,
            None => Ok(Vec::new()),
        }
    }

    async fn push_blob(&self, name: &Reference, blob: Blob) -> Result<()> {
        self.loading.push_blob(name, blob).await.map_err(|e| self.at(e, name))
    }

    async fn has_blob(&self, name: &Reference, blob: &Descriptor) -> Result<bool> {
        self.loading.has_blob(name, blob).await
    }

    fn push_concurrency(&self) -> usize {
        // It is an archive that is written.
        1
    }

    async fn push_manifest(&self, name: &Reference, manifest: &RawManifest) -> Result<()> {
        self.push_names(&[(name.clone(), manifest.clone())]).await
    }

    async fn push_names(&self, names: &[(Reference, RawManifest)]) -> Result<()> {
        let mut done = self.loading.load(&self.client, names).await;
        if done.as_ref().is_err_and(|e| e.detail::<MissingBlob>().is_some())
            && self.pushed_again(names).await?
        {
            done = self.loading.load(&self.client, names).await;
        }
        if names.iter().any(|(name, _)| name.tag().is_some()) {
            // What was saved may be another image now.
            self.saved.forget().await;
        }
        done.map_err(|e| e.with_endpoint(self))
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "docker-daemon:{id}"),
            None => f.write_str("docker-daemon"),
        }
    }
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Daemon({self}, {})", self.client.socket.display())
    }
}
