//! What a copy changes, when it is asked to.

use std::fmt;
use std::str::FromStr;

use crate::layer::Compression;
use crate::manifest::{DOCKER_MANIFEST, DOCKER_MANIFEST_LIST};
use crate::{Error, MediaType, Result};

crate::fault! {
    /// Why an image is not converted.
    pub enum ConversionFault;
    /// Of the new compression.
    Compression(String) => (Config, "{0:?} is no compression of layers",
        "gzip has the levels 1 to 9 and zstd 1 to 19, as in zstd:19; without one they are 6 and 3"),
    Docker(String) => (Unsupported, "Docker's form has no place for {0}",
        "keep OCI's form, or convert one image of the index; gzip in place of zstd has a place"),
    Documents(String) => (Limit, "the manifests and indexes to convert have more than {0}"),
    Oci(String) => (Unsupported, "OCI's form has no place for {0}"),
    Referrers => (Unsupported, "what refers to the image is about its digest before the conversion",
        "copy the image without what refers to it, and sign what was copied; or copy it as it is"),
    Sparse => (Config, "an index that is converted cannot keep its digest",
        "convert an index of what is copied"),
    ZstdInDocker => (Unsupported, "Docker's form has no media type for layers compressed by zstd",
        "choose gzip, or OCI's form"),
}

/// What a copy changes of an image. Digests of manifests and indexes change with it; configurations and `diff_id`s do not.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Conversion {
    /// The media types of manifests, indexes and what they list. Without it each document keeps its own.
    pub form: Option<MediaForm>,
    /// The compression of layers. A layer whose media type says that it has this compression stays as it is, whatever its level;
    /// so does what is no tar, and what may not be redistributed.
    pub compress: Option<Recompression>,
}

impl Conversion {
    /// Refuses what no image can become.
    pub(crate) fn check(self) -> Result<()> {
        let is_zstd = self.compress.is_some_and(|how| how.compression == Compression::Zstd);
        if is_zstd && self.form == Some(MediaForm::Docker) {
            return Err(ConversionFault::ZstdInDocker.into());
        }
        Ok(())
    }
}

/// A family of media types.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum MediaForm {
    /// Docker's image manifest, version 2 schema 2, and its manifest list.
    Docker,
    /// OCI's image manifest and index.
    Oci,
}

impl MediaForm {
    /// That of a manifest or an index.
    pub(super) fn of(document: &MediaType) -> Self {
        let is_docker = [DOCKER_MANIFEST, DOCKER_MANIFEST_LIST].contains(&document.as_ref());
        if is_docker { Self::Docker } else { Self::Oci }
    }
}

impl fmt::Display for MediaForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "Docker",
            Self::Oci => "OCI",
        })
    }
}

/// How layers are compressed anew: `gzip`, `gzip:LEVEL`, `zstd` or `zstd:LEVEL`.
///
/// ```
/// use plyfold_core::Recompression;
///
/// let how: Recompression = "zstd:19".parse()?;
/// assert_eq!(how.to_string(), "zstd:19");
/// assert_eq!("gzip".parse::<Recompression>()?.to_string(), "gzip:6");
/// assert!("gzip:10".parse::<Recompression>().is_err());
/// # Ok::<(), plyfold_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Recompression {
    compression: Compression,
    level: u8,
}

impl Recompression {
    /// The compression.
    pub fn compression(self) -> Compression {
        self.compression
    }

    /// Its level.
    pub fn level(self) -> u8 {
        self.level
    }
}

impl FromStr for Recompression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, level) = text.split_once(':').map_or((text, None), |(name, level)| (name, Some(level)));
        // Levels of zstd above 19 take hundreds of MiB for each layer.
        let (compression, default, highest) = match name {
            "gzip" => (Compression::Gzip, 6, 9),
            "zstd" => (Compression::Zstd, 3, 19),
            _ => return Err(ConversionFault::Compression(text.to_owned()).into()),
        };
        let level = level.map_or(Some(default), |level| level.parse().ok());
        match level.filter(|level| (1..=highest).contains(level)) {
            Some(level) => Ok(Self { compression, level }),
            None => Err(ConversionFault::Compression(text.to_owned()).into()),
        }
    }
}

impl fmt::Display for Recompression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.compression, self.level)
    }
}
