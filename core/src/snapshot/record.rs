//! What is written beside the disks of an image: which image they are of.

use serde::{Deserialize, Serialize};

use super::check::{self, Form};
use super::empty::EmptyDisk;
use super::fault::invalid;
use super::image::SnapshotImage;
use super::roles::{self, Part};
use super::tree_form;
use crate::block_sums::Checksum;
use crate::{Digest, HashTree, HashedPartition, KernelVersion, Result, Role, digest};

/// The file name of the record, beside the files of a set.
pub const RECORD: &str = ".plyfold-image";

/// Which image a set of disks is of, and what its files are. `materialize` writes it as [`RECORD`], and saving a
/// [`Snapshot`](super::Snapshot) reads it: files that guests do not write to have to be those that were made.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SetRecord {
    /// The image.
    pub image: SnapshotImage,
    /// The oldest Linux that can mount all of it, where it is known.
    pub kernel: Option<KernelVersion>,
    /// The files, each behind those that it refers to.
    pub files: Vec<SetFile>,
}

/// A file of a set.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SetFile {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// The [name](crate::Format::name) of its format.
    pub format: String,
    /// All that its bytes depend on beside the image: name, version and options of its format.
    pub key: String,
    /// Whether guests write to it.
    pub writable: bool,
    /// The digest of its bytes, in a snapshot, unless guests write to it: what is said of it holds for these bytes alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digest: Option<Digest>,
    /// The checksum of its bytes, beside disks, unless guests write to it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checksum: Option<Checksum>,
    /// How many bytes it has, unless guests write to it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// The layer that it was made from, if it was made from one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub diff_id: Option<Digest>,
    /// Its hash tree, if it is an image with one.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "tree_form::tree")]
    pub hash_tree: Option<HashTree>,
    /// The partitions whose images have hash trees, if it is a disk with such.
    #[serde(skip_serializing_if = "Vec::is_empty", default, with = "tree_form::partitions")]
    pub partitions: Vec<HashedPartition>,
    /// What it was at first, if it was an empty disk.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub empty: Option<EmptyDisk>,
}

impl SetFile {
    /// A read-only file of one format.
    pub fn new(
        name: impl Into<String>,
        role: Role,
        format: impl Into<String>,
        key: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            role,
            format: format.into(),
            key: key.into(),
            writable: false,
            digest: None,
            checksum: None,
            size: None,
            diff_id: None,
            hash_tree: None,
            partitions: Vec::new(),
            empty: None,
        }
    }

    /// What decides whether it is one of a set.
    pub(super) fn part(&self) -> Part<'_> {
        let Self { name, role, format, writable, hash_tree, .. } = self;
        Part { name, role: *role, format, writable: *writable, has_tree: hash_tree.is_some() }
    }

    /// The name that it has in a snapshot: its own, or `STEM.delta` if guests write to it.
    pub fn stored_name(&self) -> String {
        let stem = self.name.rsplit_once('.').map_or(&*self.name, |(stem, _)| stem);
        if self.writable { format!("{stem}.delta") } else { self.name.clone() }
    }

    /// The same with the digest of its bytes and their number, or without both.
    #[must_use]
    pub fn of_content(mut self, content: Option<(Digest, u64)>) -> Self {
        (self.digest, self.size) = content.unzip();
        self.checksum = None;
        self
    }

    /// The same with the checksum of its bytes and their number.
    #[must_use]
    pub fn of_checksum(mut self, checksum: Checksum, size: u64) -> Self {
        (self.digest, self.checksum, self.size) = (None, Some(checksum), Some(size));
        self
    }

    /// The same, of a layer.
    #[must_use]
    pub fn of_layer(mut self, diff_id: Option<Digest>) -> Self {
        self.diff_id = diff_id;
        self
    }

    /// The same with a hash tree.
    #[must_use]
    pub fn verified(mut self, hash_tree: Option<HashTree>) -> Self {
        self.hash_tree = hash_tree;
        self
    }

    /// The same with hash trees in its partitions.
    #[must_use]
    pub fn with_partitions(mut self, partitions: Vec<HashedPartition>) -> Self {
        self.partitions = partitions;
        self
    }

    /// The same as a file that guests write to, or that they do not.
    #[must_use]
    pub fn writable(mut self, writable: bool) -> Self {
        self.writable = writable;
        self
    }

    /// The same as a file that guests write to, and that was an empty disk at first.
    #[must_use]
    pub fn empty(mut self, empty: EmptyDisk) -> Self {
        (self.writable, self.empty) = (true, Some(empty));
        self
    }
}

impl SetRecord {
    /// A record of these files.
    pub fn new(image: SnapshotImage, kernel: Option<KernelVersion>, files: Vec<SetFile>) -> Self {
        Self { image, kernel, files }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// As [`Snapshot::parse`](super::Snapshot::parse).
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let Form { image, kernel, files, .. } = check::parse::<SetFile>(bytes)?;
        image.check()?;
        check::names(files.iter().map(|file| [file.name.as_str(); 2]))?;
        for file in &files {
            check::format(&file.format, &file.key)?;
            file.digest.iter().chain(&file.diff_id).try_for_each(digest::supported)?;
            let proofs = u8::from(file.digest.is_some()) + u8::from(file.checksum.is_some());
            if proofs != u8::from(!file.writable) || file.size.is_some() == file.writable {
                return Err(invalid(
                    "what guests write to has no digest, no checksum and no size, and everything else has a size and a digest \
                     or a checksum",
                ));
            }
        }
        roles::check(files.iter().map(SetFile::part))?;
        Ok(Self { image, kernel, files })
    }

    /// The record as JSON, the same bytes for the same content.
    pub fn to_json(&self) -> Vec<u8> {
        let Self { image, kernel, files } = self.clone();
        check::json(&Form::new(image, kernel, files))
    }
}
