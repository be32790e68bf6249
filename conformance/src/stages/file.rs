//! Backends that read files: layout directories and archives.

use std::future::Future;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use plyfold_core::{ImageRegistry, Result};
use tempfile::TempDir;

use super::Opener;
use crate::samples::{self, Sample};
use crate::{Fidelity, Stage, Staged, Subject};

/// OCI layout directories, with full names in `org.opencontainers.image.ref.name`.
#[derive(Debug)]
pub struct Layout(Opener<PathBuf>);

/// oci-archive files.
#[derive(Debug)]
pub struct OciArchive(Opener<PathBuf>);

/// docker-archive files.
#[derive(Debug)]
pub struct DockerArchive {
    form: Form,
    opener: Opener<PathBuf>,
}

/// Which Docker wrote a docker-archive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// Docker 25 and later: an OCI layout with a `manifest.json`. Nothing is lost.
    Hybrid,
    /// Docker up to 24: configs and uncompressed layers alone.
    Legacy,
}

impl Layout {
    /// A stage whose backend is opened on a directory.
    pub fn new<F>(open: impl Fn(PathBuf) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Box<dyn ImageRegistry>>> + Send + 'static,
    {
        Self(Opener::new(open))
    }
}

impl OciArchive {
    /// A stage whose backend is opened on a file.
    pub fn new<F>(open: impl Fn(PathBuf) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Box<dyn ImageRegistry>>> + Send + 'static,
    {
        Self(Opener::new(open))
    }
}

impl DockerArchive {
    /// A stage whose backend is opened on a file of this form.
    pub fn new<F>(form: Form, open: impl Fn(PathBuf) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Box<dyn ImageRegistry>>> + Send + 'static,
    {
        Self { form, opener: Opener::new(open) }
    }
}

#[async_trait]
impl Stage for Layout {
    async fn open(&self, images: &[Staged<'_>]) -> Subject {
        subject(&self.0, images, &[], write_layout).await
    }

    async fn open_with_untagged(&self, images: &[Staged<'_>], untagged: &[&Sample]) -> Option<Subject> {
        Some(subject(&self.0, images, untagged, write_layout).await)
    }
}

#[async_trait]
impl Stage for OciArchive {
    async fn open(&self, images: &[Staged<'_>]) -> Subject {
        subject(&self.0, images, &[], write_oci).await
    }

    async fn open_with_untagged(&self, images: &[Staged<'_>], untagged: &[&Sample]) -> Option<Subject> {
        Some(subject(&self.0, images, untagged, write_oci).await)
    }
}

#[async_trait]
impl Stage for DockerArchive {
    fn fidelity(&self) -> Fidelity {
        match self.form {
            Form::Hybrid => Fidelity::Exact,
            Form::Legacy => Fidelity::DiffIds,
        }
    }

    async fn open(&self, images: &[Staged<'_>]) -> Subject {
        subject(&self.opener, images, &[], |path, images| self.write(path, images)).await
    }

    async fn open_with_untagged(&self, images: &[Staged<'_>], untagged: &[&Sample]) -> Option<Subject> {
        Some(subject(&self.opener, images, untagged, |path, images| self.write(path, images)).await)
    }
}

impl DockerArchive {
    fn write(&self, path: &Path, images: &[(String, &Sample)]) {
        let archive = match self.form {
            Form::Hybrid => samples::hybrid_archive(images),
            Form::Legacy => samples::docker_archive(images),
        };
        write(path, &archive);
    }
}

async fn subject(
    opener: &Opener<PathBuf>,
    images: &[Staged<'_>],
    untagged: &[&Sample],
    fill: impl FnOnce(&Path, &[(String, &Sample)]),
) -> Subject {
    let folder = TempDir::new().expect("a temporary directory can be made");
    let path = folder.path().join("medium");
    let named = images.iter().map(|image| (image.reference.whole(), image.sample));
    let all: Vec<_> = named.chain(untagged.iter().map(|sample| (String::new(), *sample))).collect();
    fill(&path, &all);
    let references = images.iter().map(|image| image.reference.clone()).collect();
    Subject::new(opener.open(path).await, references, folder)
}

fn write_layout(path: &Path, images: &[(String, &Sample)]) {
    samples::write_layout(path, images).expect("a layout can be written");
}

fn write_oci(path: &Path, images: &[(String, &Sample)]) {
    write(path, &samples::oci_archive(images));
}

fn write(path: &Path, content: &[u8]) {
    std::fs::write(path, content).expect("an archive can be written");
}
