//! The directory of one image as a registry: `dir:DIRECTORY`, as skopeo, podman and buildah write it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use plyfold_core::blocking::{Stop, blocking};
use plyfold_core::{
    Backend, Blob, BlobRange, Capabilities, Descriptor, Digest, Error, ErrorKind, ImageRegistry, Lease,
    Location, Names, Opened, Options, Page, RawManifest, Reference, Result, digest, reference,
};

use self::folder::Folder;
use crate::config::Config;

mod folder;
mod needs;
mod publish;
mod record;

plyfold_core::register!(Backend {
    schemes: &["dir"],
    package: env!("CARGO_PKG_NAME"),
    summary: "directories of one image, as skopeo and podman write them",
    syntax: "dir:DIRECTORY",
    options: "follow-symlinks=true",
    capabilities: CAPABILITIES,
    takes_credentials: false,
    open: |request| Box::pin(async move { open(&request.location, &request.options) }),
});

const CAPABILITIES: Capabilities = Capabilities {
    atomic_names: true,
    partial_blobs: true,
    push: true,
    repositories: true,
    sparse: true,
    tags: true,
    ..Capabilities::READ
};

fn open(location: &Location, options: &Options) -> Result<Opened> {
    let config: Config = options.config()?;
    // As other tools read it: all of it is the path.
    if location.rest.is_empty() {
        return Err(Error::config(format!("invalid image URI {location}: no directory"))
            .with_hint("write dir:DIRECTORY"));
    }
    let directory = Directory::new(&location.rest, config)?;
    let reference = Some(directory.name.clone());
    Ok(Opened { registry: Box::new(directory), reference })
}

/// The directory of one image: `manifest.json`, each image of an index as `HEX.manifest.json`, and each blob under the
/// hexadecimal digits of its digest.
///
/// The image has no name in it, so it is called after the directory: see [`reference::local`]. It appears, or takes the
/// place of the one before, when its name is set; what only that one needed is removed then, its signatures too.
#[derive(Clone, Debug)]
pub struct Directory {
    folder: Arc<Folder>,
    name: Reference,
}

impl Directory {
    /// The directory at `path`, which is looked at only when it is used.
    ///
    /// # Errors
    /// As [`reference::local`].
    pub fn new(path: impl Into<PathBuf>, config: Config) -> Result<Self> {
        let path = path.into();
        let name = reference::local(&path, "latest")?;
        Ok(Self { folder: Arc::new(Folder::new(path, config.follow_symlinks)), name })
    }

    /// What its image is called.
    pub fn name(&self) -> &Reference {
        &self.name
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder, &Stop) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let folder = Arc::clone(&self.folder);
        blocking(move |stop| work(&folder, stop)).await.map_err(|e| e.with_endpoint(self))
    }

    /// Whether it has an image.
    async fn is_there(&self) -> Result<bool> {
        self.work(|folder, _| Ok(folder.top()?.is_some())).await
    }

    /// The same name, which may have a digest as well.
    fn is_its(&self, name: &Reference) -> bool {
        name.tag() == self.name.tag() && self.is_in_it(name)
    }

    fn is_in_it(&self, name: &Reference) -> bool {
        reference::repository_of(name) == reference::repository_of(&self.name)
    }

    fn absent(&self, name: &Reference) -> Error {
        let error = Error::not_found("no such image in the directory").with_image(name).with_endpoint(self);
        error.with_hint(format!("it is called {}", self.name))
    }
}

#[async_trait]
impl ImageRegistry for Directory {
    async fn manifest(&self, name: &Reference) -> Result<RawManifest> {
        let wanted = reference::digest_of(name)?;
        if wanted.is_none() && !self.is_its(name) {
            return Err(self.absent(name));
        }
        let found = self.work(move |folder, _| folder.manifest(wanted.as_ref())).await;
        found.map_err(|e| e.with_image(name))?.ok_or_else(|| self.absent(name))
    }

    async fn blob(&self, name: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        let wanted = blob.clone();
        self.work(move |folder, _| folder.blob(&wanted, range)).await.map_err(|e| e.with_image(name))
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        if repository != reference::repository_of(&self.name) || !self.is_there().await? {
            return Err(Error::not_found(format!("no such repository {repository}")).with_endpoint(self));
        }
        Ok(page.of(self.name.tag()))
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        let is_there = self.is_there().await?;
        Ok(page.of(is_there.then(|| reference::repository_of(&self.name))))
    }

    async fn push_blob(&self, _: &Reference, blob: Blob) -> Result<()> {
        let wanted = blob.descriptor().clone();
        digest::supported(wanted.digest())?;
        let is_there = move |folder: &Folder, stop: &Stop| {
            folder.prepare(stop)?;
            folder.has_blob(&wanted, stop)
        };
        if self.work(is_there).await? {
            return Ok(());
        }
        let (descriptor, from) = (blob.descriptor().clone(), blob.offset());
        let content = blob.unverified().into_reader();
        self.work(move |folder, stop| folder.write_blob(&descriptor, from, content, stop)).await
    }

    async fn partial_blob(&self, _: &Reference, blob: &Descriptor) -> Result<u64> {
        let wanted = blob.clone();
        self.work(move |folder, _| folder.partial(&wanted)).await
    }

    async fn lease(&self, _: &[Digest]) -> Result<Lease> {
        // A copy to here asks for one before its first look.
        self.work(Folder::begin).await.map(|()| Lease::none())
    }

    async fn has_blob(&self, _: &Reference, blob: &Descriptor) -> Result<bool> {
        digest::supported(blob.digest())?;
        let wanted = blob.clone();
        match self.work(move |folder, stop| folder.has_blob(&wanted, stop)).await {
            // The push may make the directory.
            Err(e) if *e.kind() == ErrorKind::NotFound => Ok(false),
            found => found,
        }
    }

    async fn push_manifest(&self, name: &Reference, manifest: &RawManifest) -> Result<()> {
        self.push_sparse(&[(name.clone(), manifest.clone())], &[]).await
    }

    async fn push_names(&self, names: &[(Reference, RawManifest)]) -> Result<()> {
        self.push_sparse(names, &[]).await
    }

    async fn push_sparse(&self, names: &[(Reference, RawManifest)], absent: &[Digest]) -> Result<()> {
        let (mut documents, mut top) = (Vec::new(), None::<RawManifest>);
        for (name, raw) in names {
            let digest = reference::digest_of(name)?.unwrap_or_else(|| raw.digest().clone());
            let kind = raw.descriptor().media_type();
            let raw = RawManifest::verified(raw.bytes().clone(), Some(kind), &digest);
            let raw = raw.map_err(|e| e.with_image(name))?;
            if name.tag().is_none() {
                documents.push(raw);
            } else if !self.is_its(name) || top.as_ref().is_some_and(|top| top.digest() != raw.digest()) {
                return Err(Error::unsupported("the directory holds one image, which has no other name")
                    .with_image(name)
                    .with_endpoint(self)
                    .with_hint(format!("it is called {}; a layout, oci:DIRECTORY, holds many", self.name)));
            } else {
                top = Some(raw);
            }
        }
        let absent = absent.to_vec();
        let stored = self.work(move |folder, stop| {
            folder.prepare(stop)?;
            for raw in &documents {
                folder.write(&folder::document_name(raw.digest()), &raw.bytes()[..], stop)?;
            }
            top.map_or(Ok(()), |top| publish::publish(folder, &top, &absent, stop))
        });
        stored.await.map_err(|e| e.with_image(&self.name))
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dir:{}", self.folder.path().display())
    }
}

#[cfg(test)]
mod tests {
    use plyfold_core::Backends;

    use super::*;

    #[tokio::test]
    async fn uris() {
        let backends = Backends::linked().unwrap();
        for (uri, place, name) in [
            ("dir:/srv/Base", "dir:/srv/Base", "localhost/base:latest"),
            ("dir:base:3.20", "dir:base:3.20", "localhost/base-3-20:latest"),
        ] {
            let opened = backends.open(uri, &Options::default()).await.unwrap();
            assert_eq!(opened.registry.to_string(), place);
            assert_eq!(opened.reference.unwrap().whole(), name);
        }
        let error = backends.open("dir:", &Options::default()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Config);
        let unknown = Options::parse(["colour=red"]).unwrap();
        assert_eq!(*backends.open("dir:base", &unknown).await.unwrap_err().kind(), ErrorKind::Config);
    }
}
