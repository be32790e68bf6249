//! Layers' images of a cache that cannot be written.

use std::fmt;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use plyfold_core::{
    Artifact, ArtifactHandle, ArtifactKey, ArtifactWriter, Blob, BlobRange, CacheProvider, CachedNames,
    Collect, Collected, Descriptor, Digest, Error, Ingest, Lease, LocalArtifact, Made, NameChange, Output,
    Page, Reference, Result, Usage, Verified, Verify,
};
use tempfile::{NamedTempFile, TempDir};

/// A cache whose missing artifacts are made in a folder beside the output. They go away with the last clone.
#[derive(Clone, Debug)]
pub(super) struct ScratchCache {
    cache: Box<dyn CacheProvider>,
    folder: Arc<TempDir>,
    sync: bool,
}

impl ScratchCache {
    /// The folder lies where `out` will be, so that what is made in it can be linked from there.
    pub(super) fn new(cache: Box<dyn CacheProvider>, out: &Path, sync: bool) -> Result<Self> {
        let out = std::path::absolute(out).map_err(|e| Error::io("finding the output directory", e))?;
        let place = out.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(&out);
        let folder = tempfile::Builder::new().prefix(".plyfold-").tempdir_in(place);
        let at = |e| Error::io("making a temporary folder", e).with_context("path", place.display());
        Ok(Self { cache, folder: Arc::new(folder.map_err(at)?), sync })
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl CacheProvider for ScratchCache {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        self.cache.stat(digest).await
    }

    async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.cache.open(blob, range).await
    }

    async fn ingest(&self, blob: &Descriptor) -> Result<Ingest> {
        self.cache.ingest(blob).await
    }

    async fn partial(&self, digest: &Digest) -> Result<u64> {
        self.cache.partial(digest).await
    }

    async fn quarantine(&self, digest: &Digest) -> Result<()> {
        self.cache.quarantine(digest).await
    }

    async fn find_descriptor(&self, name: &Reference) -> Result<Option<Descriptor>> {
        self.cache.find_descriptor(name).await
    }

    async fn list(&self) -> Result<Vec<(Reference, Descriptor)>> {
        self.cache.list().await
    }

    async fn update(&self, changes: &[NameChange]) -> Result<()> {
        self.cache.update(changes).await
    }

    async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
        match self.cache.artifact(key).await {
            Ok(present @ Artifact::Present(_)) => return Ok(present),
            // A missing artifact is an error: nothing can be made in the cache.
            Err(e) if !is_read_only(&e) => return Err(e),
            _ => {}
        }
        let mut builder = tempfile::Builder::new();
        let file = builder.permissions(Permissions::from_mode(0o600)).tempfile_in(self.folder.path());
        let file = file.map_err(|e| Error::io("making a temporary file", e))?;
        Ok(Artifact::Vacant(Box::new(Making { file, _folder: self.folder.clone(), sync: self.sync })))
    }

    async fn lease(&self, content: &[Digest]) -> Result<Lease> {
        self.cache.lease(content).await
    }

    async fn single_flight(&self, work: &str) -> Result<Lease> {
        self.cache.single_flight(work).await
    }

    async fn free(&self) -> Result<Option<u64>> {
        self.cache.free().await
    }

    async fn pins(&self) -> Result<Vec<Reference>> {
        self.cache.pins().await
    }

    async fn usage(&self) -> Result<Usage> {
        self.cache.usage().await
    }

    async fn collect(&self, policy: &Collect) -> Result<Collected> {
        self.cache.collect(policy).await
    }

    async fn verify(&self, what: &Verify) -> Result<Verified> {
        self.cache.verify(what).await
    }

    async fn list_page(&self, page: &Page) -> Result<CachedNames> {
        self.cache.list_page(page).await
    }

    fn layout(&self) -> Option<&Path> {
        self.cache.layout()
    }

    fn scratch(&self) -> Option<PathBuf> {
        Some(self.folder.path().to_owned())
    }

    fn is_read_only(&self) -> bool {
        true
    }
}

impl fmt::Display for ScratchCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cache.fmt(f)
    }
}

/// Whether an error says that nothing can be written there.
fn is_read_only(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    let read_only = [io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied];
    source.is_some_and(|source| read_only.contains(&source.kind()))
}

#[derive(Debug)]
struct Making {
    file: NamedTempFile<File>,
    _folder: Arc<TempDir>,
    sync: bool,
}

impl ArtifactWriter for Making {
    fn output(&mut self) -> &mut dyn Output {
        self.file.as_file_mut()
    }

    fn commit(self: Box<Self>, made: &Made) -> Result<Box<dyn ArtifactHandle>> {
        let at = |e| Error::io("keeping a layer's image", e);
        // As in a store: it may become a hard link, so it is synced and never written to again.
        self.file.as_file().set_permissions(Permissions::from_mode(0o444)).map_err(at)?;
        if self.sync {
            self.file.as_file().sync_all().map_err(at)?;
        }
        let size = self.file.as_file().metadata().map_err(at)?.len();
        let (_, path) = self.file.keep().map_err(|e| at(e.error))?;
        Ok(Box::new(LocalArtifact::new(path, size, made.clone())))
    }
}
