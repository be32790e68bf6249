//! The archive as an [`ImageRegistry`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use plyfold_core::blocking::blocking;
use plyfold_core::layout_index::image_in;
use plyfold_core::{
    Backend, Blob, BlobRange, Capabilities, Descriptor, Digest, Error, ImageRegistry, Location, MediaType,
    Names, Opened, Options, Page, RawManifest, Reference, Result, digest, reference, referrers,
};
use tokio::sync::OnceCell;

use crate::Config;
use crate::images::Images;
use crate::spool;

plyfold_core::register!(Backend {
    schemes: &["docker-archive", "oci-archive"],
    package: env!("CARGO_PKG_NAME"),
    summary: "tar files of docker save, podman save and skopeo, in both forms",
    syntax: "docker-archive:FILE[:NAME[:TAG]] or oci-archive:FILE[:TAG|NAME], FILE@DIGEST, FILE:@INDEX",
    options: "spool-limit=BYTES",
    capabilities: CAPABILITIES,
    takes_credentials: false,
    open: |request| Box::pin(async move { open(&request.location, &request.options).await }),
});

const CAPABILITIES: Capabilities =
    Capabilities { referrers: true, repositories: true, tags: true, ..Capabilities::READ };

async fn open(location: &Location, options: &Options) -> Result<Opened> {
    let (path, image) = location.path_and_image();
    if path.is_empty() {
        return Err(
            Error::config(format!("{location} names no file")).with_hint("write docker-archive:FILE:NAME")
        );
    }
    let place = image.and_then(|image| image.strip_prefix('@')?.parse().ok());
    let named = |image: &str| match location.scheme.as_str() {
        // Only OCI layouts know names that are a tag alone.
        "docker-archive" if !image.starts_with('@') => reference::parse(image),
        _ => image_in(&spool::place(Path::new(path)), image),
    };
    let reference = image.filter(|_| place.is_none()).map(named).transpose()?;
    let archive = Archive::new(path, options.config()?);
    let archive = Archive { scheme: location.scheme.clone().into(), place, ..archive };
    let path = archive.path.clone();
    if blocking(move |_| Ok(spool::is_stream(&path))).await? {
        // A pipe can be read once only; a failed read cannot be tried again.
        archive.images().await?;
    }
    Ok(Opened { registry: Box::new(archive), reference })
}

/// A docker-archive or an oci-archive. Read when first asked for something; clones share what was read.
#[derive(Clone)]
pub struct Archive {
    path: PathBuf,
    config: Config,
    scheme: Arc<str>,
    /// The one image that is seen, by its place in the archive's list; `None` for all.
    place: Option<usize>,
    images: Arc<OnceCell<Arc<Images>>>,
}

impl Archive {
    /// The archive at `path`.
    pub fn new(path: impl Into<PathBuf>, config: Config) -> Self {
        Self {
            path: path.into(),
            config,
            scheme: "docker-archive".into(),
            place: None,
            images: Arc::default(),
        }
    }

    /// The visible names, and the images without a name.
    async fn listed(&self) -> Result<(Vec<Reference>, Result<Vec<Reference>>)> {
        let images = self.images().await?;
        match self.place {
            None => Ok((images.names(), images.untagged())),
            Some(place) => {
                let chosen = images.at(place).map_err(|e| e.with_endpoint(self))?;
                let (tagged, others) = [chosen].into_iter().partition(|name| name.tag().is_some());
                Ok((tagged, Ok(others)))
            }
        }
    }

    async fn images(&self) -> Result<&Arc<Images>> {
        let read = || {
            let (path, config) = (self.path.clone(), self.config.clone());
            blocking(move |stop| Images::read(&path, &config, stop).map(Arc::new))
        };
        self.images.get_or_try_init(read).await.map_err(|e| e.with_endpoint(self))
    }

    fn missing(&self, what: &str, reference: &Reference) -> Error {
        Error::not_found(format!("no such {what} in the archive")).with_image(reference).with_endpoint(self)
    }
}

#[async_trait]
impl ImageRegistry for Archive {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        reference::digest_of(reference)?;
        let images = self.images().await?;
        let (here, wanted) = (Arc::clone(images), reference.clone());
        let found = blocking(move |_| here.manifest(&wanted)).await;
        let found = found.map_err(|e| e.with_image(reference).with_endpoint(self))?;
        found.ok_or_else(|| {
            let names: Vec<String> = images.names().iter().take(20).map(Reference::whole).collect();
            self.missing("image", reference).with_hint(match names.as_slice() {
                [] => "no image in it has a name".to_owned(),
                names => format!("it holds {}", names.join(", ")),
            })
        })
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        digest::supported(blob.digest())?;
        let (images, wanted) = (Arc::clone(self.images().await?), blob.digest().clone());
        let found = blocking(move |_| images.member(&wanted)).await;
        let found = found.map_err(|e| e.with_image(reference).with_endpoint(self))?;
        let member = found.ok_or_else(|| self.missing(&format!("blob {}", blob.digest()), reference))?;
        let start = range.resolve(blob.size())?.start;
        Blob::from_reader(blob, range, member.reader(start))
    }

    async fn has_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<bool> {
        digest::supported(blob.digest())?;
        let (images, wanted) = (Arc::clone(self.images().await?), blob.digest().clone());
        let found = blocking(move |_| images.member(&wanted)).await;
        let found = found.map_err(|e| e.with_image(reference).with_endpoint(self))?;
        Ok(found.is_some_and(|member| member.size == blob.size()))
    }

    async fn bases(&self) -> Result<Vec<String>> {
        let images = Arc::clone(self.images().await?);
        blocking(move |_| images.bases()).await.map_err(|e| e.with_endpoint(self))
    }

    async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        let (list, of) = (reference::referrers_of(reference, subject), subject.clone());
        let images = Arc::clone(self.images().await?);
        let found = blocking(move |_| images.referrers(&list, &of)).await;
        let mut found = found.map_err(|e| e.with_endpoint(self))?;
        found.retain(|entry| referrers::is_of_type(entry, artifact_type));
        Ok(found)
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        let (names, _) = self.listed().await?;
        let mut here = names.iter().filter(|name| reference::repository_of(name) == repository).peekable();
        if here.peek().is_none() {
            return Err(
                Error::not_found(format!("no repository {repository} in the archive")).with_endpoint(self)
            );
        }
        Ok(page.of(here.filter_map(Reference::tag)))
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        let (names, _) = self.listed().await?;
        Ok(page.of(names.iter().map(reference::repository_of)))
    }

    async fn untagged(&self) -> Result<Vec<Reference>> {
        self.listed().await?.1.map_err(|e| e.with_endpoint(self))
    }
}

impl fmt::Display for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scheme, self.path.display())
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").field("path", &self.path).finish_non_exhaustive()
    }
}
