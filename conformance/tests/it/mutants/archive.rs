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
    Blob, BlobRange, Capabilities, Descriptor, Digest, Error, ImageRegistry, Lease, MediaType, Names, Page,
    RawManifest, Reference, Result,
};

use super::registry::reserialised;

/// What is wrong with a mutant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ArchiveFault {
    ChangedOnFailure,
    DockerSidePreferred,
    LayerlessTaken,
    LayersRepeated,
    None,
    OldDropped,
    PipeTruncated,
    ReferrersLost,
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

plyfold_core::forward! {
    ImageRegistry, BrokenArchive, |broken| broken.inner;
    async manifest(name: &Reference) -> Result<RawManifest>;
    async blob(name: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob>;
    async resolve(name: &Reference) -> Result<Descriptor>;
    async tags(repository: &str, page: Page) -> Result<Names>;
    async repositories(page: Page) -> Result<Names>;
    async untagged() -> Result<Vec<Reference>>;
    async bases() -> Result<Vec<String>>;
    async referrers(of: &Reference, subject: &Digest, kind: Option<&MediaType>) -> Result<Vec<Descriptor>>;
    async has_blob(name: &Reference, blob: &Descriptor) -> Result<bool>;
    async mount_blob(name: &Reference, blob: &Descriptor, from: &Reference) -> Result<bool>;
    async push_manifest(name: &Reference, manifest: &RawManifest) -> Result<()>;
    async push_sparse(names: &[(Reference, RawManifest)], absent: &[Digest]) -> Result<()>;
    async check_target() -> Result<()>;
    async lease(content: &[Digest]) -> Result<Lease>;
    async delete(name: &Reference) -> Result<()>;
    async delete_blob(name: &Reference, digest: &Digest) -> Result<()>;
    sync capabilities() -> Capabilities;
    sync concurrency() -> usize;
    sync push_concurrency() -> usize;
    sync unsupported(what: &str) -> Error;
    {
        async fn push_blob(&self, name: &Reference, blob: Blob) -> Result<()> {
            if self.fault == ArchiveFault::WrittenInPlace {
                self.grow();
            }
            self.inner.push_blob(name, blob).await
        }

        async fn push_names(&self, names: &[(Reference, RawManifest)]) -> Result<()> {
            let mut names = names.to_vec();
            match self.fault {
                ArchiveFault::OldDropped if self.path.exists() => fs::remove_file(&self.path).unwrap(),
                ArchiveFault::Reserialises => names.iter_mut().for_each(|(_, raw)| *raw = reserialised(raw)),
                _ => {}
            }
            let set = self.inner.push_names(&names).await;
            if set.is_err() && self.fault == ArchiveFault::ChangedOnFailure {
                self.grow();
            }
            if set.is_ok() && self.fault == ArchiveFault::LayersRepeated {
                let mut files = files(&self.path);
                let blobs: Vec<_> =
                    files.iter().filter(|(name, _)| name.starts_with("blobs/")).cloned().collect();
                files.extend(blobs);
                write(&self.path, &files);
            }
            set
        }

        async fn push_referrers(&self, repository: &Reference, manifests: &[RawManifest]) -> Result<()> {
            if self.fault == ArchiveFault::ReferrersLost {
                return Ok(());
            }
            self.inner.push_referrers(repository, manifests).await
        }
    }
}

impl BrokenArchive {
    /// Adds a block of zeros to the file.
    fn grow(&self) {
        let mut bytes = fs::read(&self.path).unwrap_or_default();
        bytes.extend([0; 512]);
        fs::write(&self.path, bytes).unwrap();
    }
}

impl fmt::Display for BrokenArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mutant {:?}", self.fault)
    }
}
