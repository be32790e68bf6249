//! The archive as an [`ImageRegistry`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use plyfold_core::blocking::blocking;
use plyfold_core::layout_index::image_in;
use plyfold_core::manifest::{Document, limits};
use plyfold_core::{
    Backend, Blob, BlobRange, Capabilities, Descriptor, Digest, Error, ImageRegistry, Lease, Location,
    MediaType, Names, Opened, Options, Page, RawManifest, Reference, Result, TagTable, digest, reference,
    referrers,
};
use tokio::sync::Mutex;

use crate::Config;
use crate::images::Images;
use crate::members::Member;
use crate::spool;
use crate::write::{Change, Writer, check, partial, take_left};

plyfold_core::register!(Backend {
    schemes: &["docker-archive", "oci-archive"],
    package: env!("CARGO_PKG_NAME"),
    summary: "tar files of docker save, podman save and skopeo, in both forms",
    syntax: "docker-archive:FILE[:NAME[:TAG]] or oci-archive:FILE[:TAG|NAME], FILE@DIGEST, FILE:@INDEX",
    options: "spool-limit=BYTES, docker-list=false",
    capabilities: CAPABILITIES,
    takes_credentials: false,
    open: |request| Box::pin(async move { open(&request.location, &request.options).await }),
});

const CAPABILITIES: Capabilities = Capabilities {
    atomic_names: true,
    partial_blobs: true,
    push: true,
    referrers: true,
    repositories: true,
    sparse: true,
    tags: true,
    ..Capabilities::READ
};

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
///
/// What is pushed is in the archive when a name is set, or something that refers to an image is stored; until then this handle and its
/// clones alone see it, and the next writer of the archive uses what they leave. One handle at a time writes an archive. A
/// program that does not lock may replace the archive meanwhile: its images are kept, or setting the names fails as unavailable.
#[derive(Clone)]
pub struct Archive {
    path: PathBuf,
    config: Config,
    scheme: Arc<str>,
    /// The one image that is seen, by its place in the archive's list; `None` for all.
    place: Option<usize>,
    images: Arc<Mutex<Option<Arc<Images>>>>,
    writer: Writer,
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
            writer: Writer::default(),
        }
    }

    /// An archive that was read into a file; an image without a name is called after `place`.
    ///
    /// # Errors
    /// As [`Images::read`].
    #[cfg(feature = "daemon")]
    pub(crate) fn of_file(file: std::fs::File, place: &Path) -> Result<Self> {
        let images = Arc::new(Images::of(file, place)?);
        Ok(Self { images: Arc::new(Mutex::new(Some(images))), ..Self::new(place, Config::default()) })
    }

    /// Answers by the tags of the names that are visible.
    async fn of_tags<T>(&self, answer: impl FnOnce(&TagTable) -> T) -> Result<T> {
        let images = self.images().await?;
        let Some(place) = self.place else { return Ok(answer(images.tags())) };
        let chosen = images.at(place).map_err(|e| e.with_endpoint(self))?;
        Ok(answer(&TagTable::of(chosen.tag().map(|_| &chosen))))
    }

    async fn images(&self) -> Result<Arc<Images>> {
        let mut images = self.images.lock().await;
        if let Some(read) = &*images {
            return Ok(Arc::clone(read));
        }
        let (path, config) = (self.path.clone(), self.config.clone());
        let read = blocking(move |stop| Images::read(&path, &config, stop).map(Arc::new)).await;
        Ok(Arc::clone(images.insert(read.map_err(|e| e.with_endpoint(self))?)))
    }

    /// Content that was pushed, or that the archive has.
    async fn member(&self, reference: &Reference, blob: &Descriptor) -> Result<Option<Member>> {
        digest::supported(blob.digest())?;
        if let Some(member) = self.writer.pushed(blob.digest()) {
            return Ok(Some(member));
        }
        let (images, wanted) = (self.images().await?, blob.digest().clone());
        let found = blocking(move |_| images.member(&wanted)).await;
        found.map_err(|e| e.with_image(reference).with_endpoint(self))
    }

    /// Whether a blob was pushed, or is in the archive. A push makes the archive where there is none.
    async fn is_there(&self, reference: &Reference, blob: &Descriptor) -> Result<bool> {
        let found = Error::found(self.member(reference, blob).await)?.flatten();
        Ok(found.is_some_and(|member| member.size == blob.size()))
    }

    /// Stores a document of the archive's, if it is not there.
    async fn document(&self, reference: &Reference, raw: &RawManifest) -> Result<()> {
        self.push_blob(reference, Blob::from_bytes(raw.descriptor(), BlobRange::FULL, raw.bytes())?).await
    }

    /// Makes what was pushed the archive, with these names and referrers.
    async fn publish(&self, change: Change) -> Result<()> {
        let guard = self.writer.begin(&self.path).await.map_err(|e| e.with_endpoint(self))?;
        let images = Arc::clone(&self.images);
        let published = self.writer.publish(guard, change, &self.config, move || {
            *images.blocking_lock() = None;
        });
        published.await.map_err(|e| e.with_endpoint(self))
    }

    /// Stores documents; with a tag, and as one that `is_listed` without a tag, they are in the archive then.
    async fn store(
        &self,
        names: &[(Reference, RawManifest)],
        absent: &[Digest],
        is_listed: impl Fn(&RawManifest) -> bool,
    ) -> Result<()> {
        let mut change = Change { absent: absent.to_vec(), ..Change::default() };
        for (name, raw) in names {
            let digest = reference::digest_of(name)?.unwrap_or_else(|| raw.digest().clone());
            let media_type = raw.descriptor().media_type();
            let raw = RawManifest::verified(raw.bytes().clone(), Some(media_type), &digest);
            let raw = raw.map_err(|e| e.with_image(name))?;
            if name.tag().is_some() || is_listed(&raw) {
                change.names.push((name.clone(), raw));
            } else if raw.subject().is_some() {
                change.referrers.push((name.clone(), raw));
            } else {
                self.document(name, &raw).await?;
            }
        }
        if change.names.is_empty() && change.referrers.is_empty() {
            return Ok(());
        }
        self.publish(change).await
    }

    fn missing(&self, what: &str, reference: &Reference) -> Error {
        Error::not_found(format!("no such {what} in the archive")).with_image(reference).with_endpoint(self)
    }
}

#[async_trait]
impl ImageRegistry for Archive {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        let digest = reference::digest_of(reference)?;
        let pushed = digest.and_then(|digest| Some((self.writer.pushed(&digest)?, digest)));
        if let Some((member, digest)) = pushed {
            let read = blocking(move |_| {
                RawManifest::verified(member.document(digest.as_ref(), limits::MANIFEST)?, None, &digest)
            });
            return read.await.map_err(|e| e.with_image(reference).with_endpoint(self));
        }
        let images = self.images().await?;
        let (here, wanted) = (Arc::clone(&images), reference.clone());
        let found = blocking(move |_| here.manifest(&wanted)).await;
        let found = found.map_err(|e| e.with_image(reference).with_endpoint(self))?;
        found.ok_or_else(|| {
            self.missing("image", reference).with_hint(match images.first_names() {
                [] => "no image in it has a name".to_owned(),
                names => format!("it holds {}", names.join(", ")),
            })
        })
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        let found = self.member(reference, blob).await?;
        let member = found.ok_or_else(|| self.missing(&format!("blob {}", blob.digest()), reference))?;
        let start = range.resolve(blob.size())?.start;
        Blob::from_reader(blob, range, member.reader(start))
    }

    async fn has_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<bool> {
        Ok(self.is_there(reference, blob).await? || self.writer.has_left(blob).await)
    }

    async fn partial_blob(&self, _: &Reference, blob: &Descriptor) -> Result<u64> {
        let guard = self.writer.begin(&self.path).await.map_err(|e| e.with_endpoint(self))?;
        Ok(partial(guard.as_ref(), blob))
    }

    async fn push_blob(&self, reference: &Reference, blob: Blob) -> Result<()> {
        let mut guard = self.writer.begin(&self.path).await.map_err(|e| e.with_endpoint(self))?;
        // Looked for when no other task stores it.
        if self.is_there(reference, blob.descriptor()).await? || take_left(&mut guard, blob.descriptor()) {
            return Ok(());
        }
        self.writer.append(guard, blob).await.map_err(|e| e.with_endpoint(self))
    }

    async fn check_target(&self) -> Result<()> {
        let path = self.path.clone();
        blocking(move |_| check(&path)).await.map_err(|e| e.with_endpoint(self))
    }

    async fn lease(&self, _: &[Digest]) -> Result<Lease> {
        // Before the first look of a copy: a pipe would be read as an archive that is there, by what is to write it.
        self.check_target().await.map(|()| Lease::none())
    }

    fn push_concurrency(&self) -> usize {
        // A tar has one member after the other.
        1
    }

    async fn push_manifest(&self, name: &Reference, manifest: &RawManifest) -> Result<()> {
        self.store(&[(name.clone(), manifest.clone())], &[], |_| false).await
    }

    async fn push_names(&self, names: &[(Reference, RawManifest)]) -> Result<()> {
        self.store(names, &[], |_| true).await
    }

    async fn push_sparse(&self, names: &[(Reference, RawManifest)], absent: &[Digest]) -> Result<()> {
        // Without a tag an index may be the top of what is pushed, and a manifest is a part of it.
        self.store(names, absent, |raw| matches!(raw.document(), Document::Index(_))).await
    }

    async fn push_referrers(&self, repository: &Reference, manifests: &[RawManifest]) -> Result<()> {
        let names: Vec<_> = manifests
            .iter()
            .map(|raw| (reference::by_digest(repository, raw.digest()), raw.clone()))
            .collect();
        self.store(&names, &[], |_| false).await
    }

    async fn bases(&self) -> Result<Vec<String>> {
        let images = self.images().await?;
        blocking(move |_| images.bases()).await.map_err(|e| e.with_endpoint(self))
    }

    async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        let (list, of) = (reference::referrers_of(reference, subject), subject.clone());
        let images = self.images().await?;
        let found = blocking(move |_| images.referrers(&list, &of)).await;
        let mut found = found.map_err(|e| e.with_endpoint(self))?;
        found.retain(|entry| referrers::is_of_type(entry, artifact_type));
        Ok(found)
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        let found = self.of_tags(|tags| tags.tags(repository, &page)).await?;
        found.ok_or_else(|| {
            Error::not_found(format!("no repository {repository} in the archive")).with_endpoint(self)
        })
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        self.of_tags(|tags| tags.repositories(&page)).await
    }

    async fn untagged(&self) -> Result<Vec<Reference>> {
        let images = self.images().await?;
        let untagged = match self.place {
            None => images.untagged(),
            Some(place) => images.at(place).map(|chosen| match chosen.tag() {
                Some(_) => Vec::new(),
                None => vec![chosen],
            }),
        };
        untagged.map_err(|e| e.with_endpoint(self))
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
