//! The root hashes of what is made of an image, as a document that is the same on every machine.

use serde::{Deserialize, Serialize};

use crate::hash_tree::{HashTree, HashedPartition};
use crate::materialize::{MadeFile, MadeImage};
use crate::materializer::Role;
use crate::source::{ImageSource as _, RegistrySource};
use crate::{Digest, Error, ErrorKind, Result};

crate::fault! {
    /// Why there are no root hashes.
    pub enum HashTreeFault;
    Missing(String) => (Config, "{0} makes no hash tree with these options",
        "the option verity=append makes one, in the formats that have it"),
    Untold(String) => (Unsupported, "{0} has no hash tree"),
}

/// The root hashes of an image in a format: what a policy has to know to accept the disks of the image. It follows from
/// the image's manifest and the format alone, so a machine that is trusted can compute what another one has to mount.
///
/// Its [document](Self::document) is described in the manual's page `outputs`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RootHashes {
    /// [`VERSION`](Self::VERSION).
    pub schema_version: u32,
    /// [`MEDIA_TYPE`](Self::MEDIA_TYPE).
    pub media_type: String,
    /// What the image is.
    pub image: HashedImage,
    /// What was made of it.
    pub format: HashedFormat,
    /// Its files that are read as disks.
    pub disks: Vec<HashedDisk>,
}

/// The image that root hashes are of.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HashedImage {
    /// The digest of its manifest for the platform. An index above it is not named: it may have other entries elsewhere.
    pub manifest: Digest,
    /// The platform that its configuration names.
    pub platform: String,
}

/// The format that root hashes are of, as [`Format`](crate::Format).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HashedFormat {
    /// Its name.
    pub name: String,
    /// Its version: another one makes other bytes.
    pub version: u32,
    /// The options that change bytes, as a part of a cache key; empty for the defaults.
    pub options: String,
}

/// A file that is read as a disk.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HashedDisk {
    /// Its name beside the others.
    pub name: String,
    /// The number of its partition on the one disk of the format, if that has a table of partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// The number of the partition that its tree is in, if that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_partition: Option<u32>,
    /// The layer that it was made from, if it was made from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<Digest>,
    /// 64 hexadecimal digits.
    pub root_hash: String,
    /// `sha256`.
    pub hash_algorithm: String,
    /// Hexadecimal digits; empty for nothing.
    pub salt: String,
    /// How many blocks are verified: all that the disk has.
    pub data_blocks: u64,
    /// The bytes of such a block.
    pub data_block_size: u32,
    /// The bytes of a block of the tree.
    pub hash_block_size: u32,
    /// Where the superblock is: in the disk's own file behind the data, or at the start of another one.
    pub hash_offset: u64,
}

impl RootHashes {
    /// What the document is, where it has a media type.
    pub const MEDIA_TYPE: &str = "application/vnd.plyfold.verity.v1+json";
    /// The version of the document. Another one has other fields.
    pub const VERSION: u32 = 1;

    /// Those of what was made of an image, as far as it `is_wanted`.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) with a [`HashTreeFault`] for a file without a tree.
    pub fn of(
        image: &RegistrySource,
        made: &MadeImage,
        is_wanted: impl Fn(&MadeFile) -> bool,
    ) -> Result<Self> {
        let platform = match image.known_config() {
            Some(config) => config.platform_or(image.raw().platform()).to_string(),
            None => {
                return Err(Error::new(ErrorKind::Internal, "an image was made without its configuration"));
            }
        };
        let is_disk = |file: &&MadeFile| ![Role::HashTree, Role::Sidecar].contains(&file.role);
        let wanted: Vec<_> = made.files.iter().filter(is_disk).filter(|file| is_wanted(file)).collect();
        // It is read in place of the files that it is made of.
        let whole = wanted.iter().position(|file| file.is_verified_for_all());
        let mut disks = Vec::new();
        for file in whole.map_or(&wanted[..], |at| &wanted[at..=at]) {
            let told = file.artifact.made();
            if !told.is_hashed() {
                return Err(HashTreeFault::Untold(file.name.clone()).into());
            }
            disks.extend(told.hash_tree.iter().map(|tree| HashedDisk::of(file, tree)));
            disks.extend(told.partitions.iter().map(HashedDisk::of_partition));
        }
        let format = &made.format;
        let (name, options) = (format.name.to_owned(), format.options.clone());
        Ok(Self {
            schema_version: Self::VERSION,
            media_type: Self::MEDIA_TYPE.to_owned(),
            image: HashedImage { manifest: image.raw().descriptor().digest().clone(), platform },
            format: HashedFormat { name, version: format.version, options },
            disks,
        })
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for what is no such document;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for one of another version.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let read: Self = serde_json::from_slice(text).map_err(|e| {
            let at = format!("line {}, column {}", e.line(), e.column());
            Error::corrupt("it is no document of root hashes").with_context("at", at)
        })?;
        if read.media_type != Self::MEDIA_TYPE {
            let message = format!("it is no document of root hashes, but of {:?}", read.media_type);
            return Err(Error::corrupt(message));
        }
        if read.schema_version != Self::VERSION {
            let message = format!("the document of root hashes is of version {}", read.schema_version);
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Ok(read)
    }

    /// The document: JSON, the same bytes for the same content.
    ///
    /// # Errors
    /// None that is known.
    pub fn document(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self);
        let text = text.map_err(|e| Error::new(ErrorKind::Internal, "writing root hashes").with_source(e))?;
        Ok(text + "\n")
    }
}

impl HashedDisk {
    fn of(file: &MadeFile, tree: &HashTree) -> Self {
        Self::new(file.name.clone(), file.diff_id.clone(), tree)
    }

    fn of_partition(of: &HashedPartition) -> Self {
        let disk = Self::new(of.name.clone(), of.diff_id.clone(), &of.tree);
        let holder = Some(of.holder.number).filter(|holder| *holder != of.image.number);
        Self { partition: Some(of.image.number), hash_partition: holder, ..disk }
    }

    fn new(name: String, diff_id: Option<Digest>, tree: &HashTree) -> Self {
        Self {
            name,
            partition: None,
            hash_partition: None,
            diff_id,
            root_hash: tree.root_hash().to_owned(),
            hash_algorithm: "sha256".to_owned(),
            salt: tree.salt.clone(),
            data_blocks: tree.data_blocks,
            data_block_size: tree.data_block_size,
            hash_block_size: tree.hash_block_size,
            hash_offset: tree.hash_offset,
        }
    }
}
