//! The tar of a root file system as an image of one layer: `tar:FILE`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use plyfold_core::blocking::blocking;
use plyfold_core::edit::{ConfigChange, NewImage, NewLayer};
use plyfold_core::layout_index::image_in;
use plyfold_core::{
    Backend, Blob, BlobRange, Capabilities, Descriptor, Error, ImageRegistry, Location, Names, Opened,
    Options, Page, Platform, RawManifest, Reference, Result, digest, reference,
};
use tokio::sync::Mutex;

use self::options::TarOptions;
use crate::Config;
use crate::members::Member;
use crate::spool;

mod options;

plyfold_core::register!(Backend {
    schemes: &["tar"],
    package: env!("CARGO_PKG_NAME"),
    summary: "the tar of a root file system as an image of one layer",
    syntax: "tar:FILE[:TAG|:NAME]",
    options: "cmd=WORD, entrypoint=WORD, env=NAME=VALUE, expose=PORT, label=NAME=VALUE, platform=PLATFORM, \
              spool-limit=BYTES, stop-signal=SIGNAL, user=USER, volume=PATH, workdir=PATH",
    capabilities: CAPABILITIES,
    takes_credentials: false,
    open: |request| Box::pin(async move { open(&request.location, &request.options).await }),
});

const CAPABILITIES: Capabilities = Capabilities { repositories: true, tags: true, ..Capabilities::READ };

async fn open(location: &Location, options: &Options) -> Result<Opened> {
    let (path, image) = location.path_and_image();
    if path.is_empty() {
        return Err(Error::config(format!("{location} names no file")).with_hint("write tar:FILE"));
    }
    let options: TarOptions = options.config()?;
    let tar = TarImage::new(path, &options.platform()?, options.config()?)?.with_config(options.reading());
    let tar = match image {
        Some(image) if !image.contains('@') => tar.named(image_in(&spool::place(Path::new(path)), image)?),
        Some(_) => return Err(Error::config(format!("{location} has a digest, which is not known before"))),
        None => tar,
    };
    let file = tar.path.clone();
    if blocking(move |_| Ok(spool::is_stream(&file))).await? {
        // A pipe can be read once only; a failed read cannot be tried again.
        tar.image().await?;
    }
    let reference = Some(tar.name.clone());
    Ok(Opened { registry: Box::new(tar), reference })
}

/// The tar of a root file system, plain or compressed, as an image of one layer.
///
/// The layer is the file as it is, compressed by gzip or zstd or not at all; one that is compressed by xz or bzip2, which
/// no image may have, is expanded. It is read to its end at the first question, for its digests and to see that it is a
/// layer; clones share what was found. The same file, platform and configuration are the same image.
#[derive(Clone)]
pub struct TarImage {
    path: PathBuf,
    config: Config,
    name: Reference,
    platform: Platform,
    change: ConfigChange,
    image: Arc<Mutex<Option<Arc<Made>>>>,
}

/// The image, and the content of its layer.
struct Made {
    image: NewImage,
    layer: Member,
}

impl TarImage {
    /// Of the file at `path`, which is looked at only when it is used, for a platform; `change` is the configuration of what
    /// runs in it.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for a configuration that cannot be.
    pub fn new(path: impl Into<PathBuf>, platform: &Platform, change: ConfigChange) -> Result<Self> {
        let (path, platform) = (path.into(), platform.clone());
        // Before anything is read.
        NewImage::of(&platform, Vec::new(), &change)?;
        let name = reference::local(&spool::place(&path), "latest")?;
        Ok(Self { path, config: Config::default(), name, platform, change, image: Arc::default() })
    }

    /// Under another name than that of the file.
    #[must_use]
    pub fn named(self, name: Reference) -> Self {
        Self { name, ..self }
    }

    /// With other limits.
    #[must_use]
    pub fn with_config(self, config: Config) -> Self {
        Self { config, ..self }
    }

    /// What the image is called.
    pub fn name(&self) -> &Reference {
        &self.name
    }

    async fn image(&self) -> Result<Arc<Made>> {
        let mut image = self.image.lock().await;
        if let Some(made) = &*image {
            return Ok(Arc::clone(made));
        }
        let made = self.made().await.map_err(|e| e.with_endpoint(self))?;
        Ok(Arc::clone(image.insert(Arc::new(made))))
    }

    async fn made(&self) -> Result<Made> {
        let (path, config) = (self.path.clone(), self.config.clone());
        let (file, size) = blocking(move |stop| {
            let file = spool::layer(&path, &config, stop)?;
            let size = file.metadata().map_err(|e| Error::io("reading the size of the tar", e))?.len();
            Ok((file, size))
        })
        .await?;
        let same = file.try_clone().map_err(|e| Error::io("opening the tar", e))?;
        let layer = NewLayer::read(same, self.path.display().to_string()).await?;
        for warning in layer.warnings() {
            tracing::warn!("{}: {warning}", self.path.display());
        }
        let image = NewImage::of(&self.platform, vec![layer], &self.change)?;
        Ok(Made { image, layer: Member::new(Arc::new(file), 0, size) })
    }

    fn missing(&self, what: &str, reference: &Reference) -> Error {
        let error = Error::not_found(format!("no such {what} in the image of the tar"));
        error.with_image(reference).with_endpoint(self).with_hint(format!("it is called {}", self.name))
    }
}

#[async_trait]
impl ImageRegistry for TarImage {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        let made = self.image().await?;
        let raw = made.image.manifest();
        let is_it = match reference::digest_of(reference)? {
            Some(digest) => digest == *raw.digest(),
            None => *reference == self.name,
        };
        if is_it { Ok(raw.clone()) } else { Err(self.missing("image", reference)) }
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        digest::supported(blob.digest())?;
        let made = self.image().await?;
        let (config, bytes) = made.image.config();
        if blob.digest() == config.digest() {
            return Blob::from_bytes(blob, range, bytes);
        }
        if !made.image.manifest().references().iter().any(|known| known.digest() == blob.digest()) {
            return Err(self.missing(&format!("blob {}", blob.digest()), reference));
        }
        let start = range.resolve(blob.size())?.start;
        Blob::from_reader(blob, range, made.layer.reader(start))
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        self.image().await?;
        if repository != reference::repository_of(&self.name) {
            return Err(Error::not_found(format!("no such repository {repository}")).with_endpoint(self));
        }
        Ok(page.of(self.name.tag()))
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        self.image().await?;
        Ok(page.of([reference::repository_of(&self.name)]))
    }
}

impl fmt::Display for TarImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tar:{}", self.path.display())
    }
}

impl fmt::Debug for TarImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TarImage({self})")
    }
}
