//! The document of a snapshot.

use serde::{Deserialize, Serialize};

use super::check::{self, Form};
use super::empty::EmptyDisk;
use super::fault::invalid;
use super::image::{SnapshotImage, check_size};
use super::record::{SetFile, SetRecord};
use super::{roles, tree_form};
use crate::{Digest, HashTree, HashedPartition, KernelVersion, Result, Role, digest};

/// The media type of the document, and the artifact type of a manifest with it.
pub const MEDIA_TYPE: &str = "application/vnd.plyfold.snapshot.v1+json";

/// The disks of one image at one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The image that they are of.
    pub image: SnapshotImage,
    /// The oldest Linux that can mount all of it, where it is known.
    pub kernel: Option<KernelVersion>,
    /// The files, each behind those that it refers to.
    pub files: Vec<SnapshotFile>,
}

/// A file of a snapshot.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SnapshotFile {
    /// What it is.
    pub file: SetFile,
    /// Its size in bytes.
    pub size: u64,
    /// Its content.
    pub content: Content,
}

/// How a file is stored.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Content {
    /// Byte for byte: what its digest is.
    Whole(Digest),
    /// As what differs from an empty disk.
    Delta(Delta),
}

/// A [delta](super::delta), and what it is made of.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Delta {
    /// The digest of the delta.
    pub digest: Digest,
    /// The bytes of the delta.
    pub size: u64,
    /// The digest of the disk, as a delta against zeros: holes cost nothing.
    pub disk: Digest,
    /// The disk that it is a delta of; zeros if there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base: Option<Base>,
}

/// The disk that a delta is of, which is made again.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Base {
    /// How it is made.
    pub empty: EmptyDisk,
    /// Its digest, as a delta against zeros.
    pub digest: Digest,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FileForm {
    name: String,
    role: Role,
    format: String,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    diff_id: Option<Digest>,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    delta: Option<Delta>,
    #[serde(skip_serializing_if = "Option::is_none", default, with = "tree_form::tree")]
    hash_tree: Option<HashTree>,
    #[serde(skip_serializing_if = "Vec::is_empty", default, with = "tree_form::partitions")]
    partitions: Vec<HashedPartition>,
}

impl Base {
    /// An empty disk, and what its digest is as a delta against zeros.
    pub fn new(empty: EmptyDisk, digest: Digest) -> Self {
        Self { empty, digest }
    }
}

impl Delta {
    /// A stored delta.
    pub fn new(digest: Digest, size: u64, disk: Digest, base: Option<Base>) -> Self {
        Self { digest, size, disk, base }
    }
}

impl SnapshotFile {
    /// A file with its content, whose digest it has.
    pub fn new(file: SetFile, size: u64, content: Content) -> Self {
        let whole = match &content {
            Content::Whole(digest) => Some((digest.clone(), size)),
            Content::Delta(_) => None,
        };
        Self { file: file.of_content(whole), size, content }
    }

    /// The digest and the size of what is stored.
    pub fn stored(&self) -> (&Digest, u64) {
        match &self.content {
            Content::Whole(digest) => (digest, self.size),
            Content::Delta(delta) => (&delta.digest, delta.size),
        }
    }
}

impl Snapshot {
    /// A snapshot of these files.
    ///
    /// # Errors
    /// As [`Snapshot::parse`].
    pub fn new(
        image: SnapshotImage,
        kernel: Option<KernelVersion>,
        files: Vec<SnapshotFile>,
    ) -> Result<Self> {
        let snapshot = Self { image, kernel, files };
        snapshot.check()?;
        Ok(snapshot)
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for what is no such document: an unknown field, a key twice, a name that is
    /// not `STEM.EXTENSION` of lower-case letters, digits and `-`, a name twice, a size that no file has;
    /// [`Limit`](crate::ErrorKind::Limit) beyond 4 MiB or [`MAX_FILES`](super::MAX_FILES);
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for another version, and for digests that cannot be verified.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let Form { image, kernel, files, .. } = check::parse::<FileForm>(bytes)?;
        let files = files.into_iter().map(SnapshotFile::try_from).collect::<Result<_>>()?;
        Self::new(image, kernel, files)
    }

    /// The document as JSON, the same bytes for the same content.
    pub fn to_json(&self) -> Vec<u8> {
        let files: Vec<FileForm> = self.files.iter().cloned().map(FileForm::from).collect();
        check::json(&Form::new(self.image.clone(), self.kernel, files))
    }

    /// What is written beside the disks when they are here again.
    pub fn record(&self) -> SetRecord {
        let files = self.files.iter().map(|file| file.file.clone()).collect();
        SetRecord::new(self.image.clone(), self.kernel, files)
    }

    /// The bytes that are stored of all files, each file counted.
    pub fn stored_size(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.stored().1))
    }

    fn check(&self) -> Result<()> {
        self.image.check()?;
        let stored: Vec<String> = self.files.iter().map(|file| file.file.stored_name()).collect();
        check::names(self.files.iter().zip(&stored).map(|(file, stored)| [&*file.file.name, stored]))?;
        for file in &self.files {
            let at = |e: crate::Error| e.with_context("file", &file.file.name);
            file.check().map_err(at)?;
        }
        roles::check(self.files.iter().map(|file| file.file.part()))
    }
}

impl SnapshotFile {
    fn check(&self) -> Result<()> {
        check::format(&self.file.format, &self.file.key)?;
        check_size(self.size)?;
        let (digest, stored) = self.stored();
        digest::supported(digest)?;
        check_size(stored)?;
        self.file.diff_id.iter().try_for_each(digest::supported)?;
        if self.file.writable != matches!(self.content, Content::Delta(_)) {
            return Err(invalid("what guests write to is stored as a delta, and nothing else is"));
        }
        let Content::Delta(delta) = &self.content else { return Ok(()) };
        digest::supported(&delta.disk)?;
        if let Some(base) = &delta.base {
            digest::supported(&base.digest)?;
        }
        Ok(())
    }
}

impl TryFrom<FileForm> for SnapshotFile {
    type Error = crate::Error;

    fn try_from(form: FileForm) -> Result<Self> {
        let FileForm { name, role, format, key, diff_id, size, digest, delta, hash_tree, partitions } = form;
        let empty = delta.as_ref().and_then(|delta| Some(delta.base.as_ref()?.empty.clone()));
        let file = SetFile {
            writable: delta.is_some(),
            diff_id,
            empty,
            hash_tree,
            partitions,
            ..SetFile::new(name, role, format, key)
        };
        let content = match (digest, delta) {
            (Some(digest), None) => Content::Whole(digest),
            (None, Some(delta)) => Content::Delta(delta),
            _ => return Err(invalid(format!("{:?} has not one digest or one delta", file.name))),
        };
        Ok(Self::new(file, size, content))
    }
}

impl From<SnapshotFile> for FileForm {
    fn from(file: SnapshotFile) -> Self {
        let SnapshotFile { file, size, content } = file;
        let (digest, delta) = match content {
            Content::Whole(digest) => (Some(digest), None),
            Content::Delta(delta) => (None, Some(delta)),
        };
        let SetFile { name, role, format, key, diff_id, hash_tree, partitions, .. } = file;
        Self { name, role, format, key, diff_id, size, digest, delta, hash_tree, partitions }
    }
}
