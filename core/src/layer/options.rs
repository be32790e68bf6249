//! What a layer is read with, and the result of reading it.

use std::fmt;
use std::path::PathBuf;

use super::ImagePath;
use super::form::LayerForm;
use super::limits::LayerLimits;
use crate::{Descriptor, Digest, MediaType, Result, digest};

/// How a layer is read.
#[derive(Clone, Debug, Default)]
pub struct LayerOptions {
    /// What the uncompressed tar must hash to; without it the `diff_id` is computed as sha256 and reported.
    pub diff_id: Option<Digest>,
    /// What the bytes as they come (compressed or not) must hash to, and how many there must be.
    pub blob: Option<Descriptor>,
    /// What is hashed even without an expected digest.
    pub hashing: Hashing,
    /// Bounds.
    pub limits: LayerLimits,
    /// What the layer is, where it is no tar: [`LayerForm::of`] its descriptor.
    pub form: Option<&'static LayerForm>,
    /// An OCI layout that may have the layer, uncompressed, under its `diff_id`: a layer that is no tar is then used from
    /// there, as far as the file has the bytes that are read and verified.
    pub layout: Option<PathBuf>,
    /// The folder of a temporary file for the bytes of a layer that is no tar, which has all of them; by default that of the
    /// system.
    pub scratch: Option<PathBuf>,
}

/// What of a layer is hashed. What [`LayerOptions`] expect a digest of is hashed always.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Hashing {
    /// The bytes as they come, and the uncompressed tar.
    #[default]
    Both,
    /// Nothing: the caller trusts the bytes, or knows them by other means.
    Nothing,
    /// The uncompressed tar alone.
    Tar,
}

impl LayerOptions {
    /// Checks that what is expected can be computed.
    ///
    /// # Errors
    /// `Unsupported`.
    pub(super) fn check(&self) -> Result<()> {
        let expected = self.diff_id.iter().chain(self.blob.as_ref().map(Descriptor::digest));
        expected.into_iter().try_for_each(digest::supported)
    }

    pub(super) fn hashes_blob(&self) -> bool {
        self.hashing == Hashing::Both || self.blob.is_some()
    }

    pub(super) fn hashes_tar(&self) -> bool {
        self.hashing != Hashing::Nothing || self.diff_id.is_some()
    }
}

/// The result of reading a layer to its end.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LayerSummary {
    /// The digest of the uncompressed tar: what the image configuration calls the layer's `diff_id`. `None` when
    /// [`Hashing`] left it out.
    pub diff_id: Option<Digest>,
    /// Bytes of the uncompressed tar.
    pub size: u64,
    /// The digest of the bytes as they came. `None` when [`Hashing`] left it out.
    pub blob: Option<Digest>,
    /// How many bytes came.
    pub blob_size: u64,
    /// How they were compressed.
    pub compression: Compression,
    /// Deviations from the format that were accepted.
    pub warnings: Vec<Warning>,
}

/// How a layer's bytes are compressed, told by their first bytes and nothing else (rule S 80).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Compression {
    /// RFC 1952, any number of members.
    Gzip,
    /// None; other compressions are not recognised and fail as a tar.
    #[strum(serialize = "no compression")]
    None,
    /// RFC 8878, any number of frames, skippable ones among them.
    Zstd,
}

impl Compression {
    /// Tells the compression by the magic number that `head` starts with.
    pub fn by_magic(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// The compression that a layer's media type promises; `None` for types that are no layers.
    pub fn by_media_type(media_type: &MediaType) -> Option<Self> {
        let text = media_type.to_string();
        if text.ends_with("tar+gzip") || text.ends_with("tar.gzip") {
            Some(Self::Gzip)
        } else if text.ends_with("tar+zstd") || text.ends_with("tar.zstd") {
            Some(Self::Zstd)
        } else {
            let of_form = || match LayerForm::suffix(media_type)? {
                "gzip" => Some(Self::Gzip),
                "zstd" => Some(Self::Zstd),
                _ => Some(Self::None),
            };
            text.strip_suffix(".tar").map(|_| Self::None).or_else(of_form)
        }
    }
}

/// A deviation from the format that is accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// The media type promises another compression than the bytes have (hostile row 28).
    CompressionMismatch {
        /// The descriptor's media type.
        media_type: MediaType,
        /// What the bytes are.
        found: Compression,
    },
    /// The layer has no bytes. It is an empty layer, as Go's `archive/tar`, and so most tools, read it; GNU tar refuses it.
    Empty,
    /// The tar ends without its two blocks of zeros.
    MissingEnd,
    /// Bytes other than zero follow the end of the tar; they are part of the `diff_id` and are otherwise ignored.
    TrailingData,
    /// A volume label or an entry of a type that no reader of layers knows was left out.
    Skipped {
        /// The entry's name.
        path: ImagePath,
        /// Its type flag, offset 156 of the header.
        typeflag: u8,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CompressionMismatch { media_type, found } => {
                write!(f, "the layer is declared as {media_type}, its bytes are {found}")
            }
            Self::Empty => f.write_str("the layer has no bytes, and so no files"),
            Self::MissingEnd => f.write_str("the tar ends without its end-of-archive blocks"),
            Self::TrailingData => f.write_str("the tar is followed by bytes that belong to no entry"),
            Self::Skipped { path, typeflag } => {
                write!(f, "{path} of type {:?} is no file and was left out", char::from(*typeflag))
            }
        }
    }
}
