//! Backends that read files: layout directories and archives.

use std::future::Future;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use plyfold_core::{ImageRegistry, Result};
use tempfile::TempDir;

use super::Opener;
use crate::samples::{self, Sample};
use crate::{Fidelity, Stage, Staged, Subject};

/// What files give no occasion for: refusals and outages.
const FILE: &[&str] = &[
    "not_found_vs_unauthorized_vs_denied_vs_unavailable",
    "rate_limited_carries_delay_in_all_three_shapes",
    "retryable_flag_consistent",
];

/// The same, and what needs manifests, indexes and digests of the medium's own.
const LEGACY: &[&str] = &[
    "child_manifest_verified_by_descriptor_digest_and_size",
    "cyclic_or_too_deep_index_bounded",
    "descriptor_without_platform_handled",
    "digest_header_disagrees_with_body_is_error",
    "index_bytes_verified_before_platform_selection",
    "nested_index_descends",
    "no_matching_platform_lists_available",
    "not_found_vs_unauthorized_vs_denied_vs_unavailable",
    "platform_exact_match_beats_compatible",
    "platform_mismatch_carries_available",
    "rate_limited_carries_delay_in_all_three_shapes",
    "retryable_flag_consistent",
    "unknown_unknown_attestations_never_selected",
    "unsupported_media_type_not_not_found",
    "variant_matching_arm_v6_v7_v8_distinct",
];

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

    fn not_judged(&self) -> &'static [&'static str] {
        FILE
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

    fn not_judged(&self) -> &'static [&'static str] {
        FILE
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

    fn not_judged(&self) -> &'static [&'static str] {
        match self.form {
            Form::Hybrid => FILE,
            Form::Legacy => LEGACY,
        }
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
