//! Mutants of archives.

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use plyfold_archive::{Archive, Config};
use plyfold_conformance::ArchiveFixture;
use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::{
    Blob, BlobRange, Capabilities, Descriptor, Digest, ImageRegistry, MediaType, Names, Page, RawManifest,
    Reference, Result,
};

use super::registry::reserialised;

/// What is wrong with a mutant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ArchiveFault {
    DockerSidePreferred,
    LayerlessTaken,
    LayersRepeated,
    None,
    PipeTruncated,
    Reserialises,
    WrittenInPlace,
}

/// Archives with one fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BrokenArchives(pub(crate) ArchiveFault);

#[async_trait]
impl ArchiveFixture for BrokenArchives {
    async fn open(&self, path: &Path) -> Result<Box<dyn ImageRegistry>> {
        let mut path = path.to_owned();
        match self.0 {
            ArchiveFault::DockerSidePreferred => without(&path, &["index.json", "oci-layout"]),
            ArchiveFault::LayerlessTaken => without(&path, &["manifest.json"]),
            ArchiveFault::PipeTruncated if fs::metadata(&path).is_ok_and(|it| it.file_type().is_fifo()) => {
                let bytes = fs::read(&path).unwrap();
                path = path.with_extension("cut");
                fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            }
            _ => {}
        }
        let inner = Archive::new(&path, Config::default());
        Ok(Box::new(BrokenArchive { inner, fault: self.0, path }))
    }
}

#[derive(Clone, Debug)]
struct BrokenArchive {
    inner: Archive,
    fault: ArchiveFault,
    path: PathBuf,
}

/// The files of an archive.
fn files(path: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = fs::read(path).unwrap_or_default();
    let mut files = Vec::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if entry.header().entry_type().is_file() {
            files.push((name, content));
        }
    }
    files
}

fn write(path: &Path, files: &[(String, Vec<u8>)]) {
    let archive = LayerBuilder::new();
    let archive = files.iter().fold(archive, |archive, (name, content)| archive.file(name, 0o644, content));
    fs::write(path, archive.finish()).unwrap();
}

/// The archive without some documents.
fn without(path: &Path, documents: &[&str]) {
    let mut files = files(path);
    files.retain(|(name, _)| !documents.contains(&name.as_str()));
    write(path, &files);
}

#[async_trait]
impl ImageRegistry for BrokenArchive {
    async fn manifest(&self, name: &Reference) -> Result<RawManifest> {
        self.inner.manifest(name).await
    }

    async fn blob(&self, name: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.inner.blob(name, blob, range).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        self.inner.tags(repository, page).await
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        self.inner.repositories(page).await
    }

    async fn referrers(
        &self,
        name: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        self.inner.referrers(name, subject, artifact_type).await
    }

    async fn push_blob(&self, name: &Reference, blob: Blob) -> Result<()> {
        if self.fault == ArchiveFault::WrittenInPlace {
            let mut bytes = fs::read(&self.path).unwrap_or_default();
            bytes.extend([0; 512]);
            fs::write(&self.path, bytes).unwrap();
        }
        self.inner.push_blob(name, blob).await
    }

    async fn has_blob(&self, name: &Reference, blob: &Descriptor) -> Result<bool> {
        self.inner.has_blob(name, blob).await
    }

    async fn push_manifest(&self, name: &Reference, manifest: &RawManifest) -> Result<()> {
        self.inner.push_manifest(name, manifest).await
    }

    async fn push_names(&self, names: &[(Reference, RawManifest)]) -> Result<()> {
        let mut names = names.to_vec();
        if self.fault == ArchiveFault::Reserialises {
            for (_, raw) in &mut names {
                *raw = reserialised(raw);
            }
        }
        self.inner.push_names(&names).await?;
        if self.fault == ArchiveFault::LayersRepeated {
            let mut files = files(&self.path);
            let blobs: Vec<_> =
                files.iter().filter(|(name, _)| name.starts_with("blobs/")).cloned().collect();
            files.extend(blobs);
            write(&self.path, &files);
        }
        Ok(())
    }

    async fn push_referrers(&self, repository: &Reference, manifests: &[RawManifest]) -> Result<()> {
        self.inner.push_referrers(repository, manifests).await
    }
}

impl fmt::Display for BrokenArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mutant {:?}", self.fault)
    }
}
