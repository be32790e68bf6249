//! Materializers: verified layers in, block-device files out.

use std::fmt;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;

use dyn_clone::DynClone;

use crate::layer::LayerTar;
use crate::{Digest, Error, Result};

/// Where a materializer writes: an empty file that it may fill in any order, and read back.
///
/// The file becomes visible only after the materializer has returned `Ok` and the caller has verified and
/// synced it, so a materializer never cleans up.
pub trait Output: Read + Write + Seek + Send {
    /// Sets the file's length in bytes; what was never written reads as zeros.
    ///
    /// # Errors
    /// What the file system reports.
    fn set_len(&mut self, length: u64) -> std::io::Result<()>;
}

impl Output for std::fs::File {
    fn set_len(&mut self, length: u64) -> std::io::Result<()> {
        Self::set_len(self, length)
    }
}

/// The identity of a materializer's output: with a layer's `diff_id` it is the whole of a cache key.
///
/// Any option that changes a byte of output changes `options` (rule M 160).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Format {
    /// Short name, as in `--as` and in the store's `artifacts/` folder: lower-case letters, digits, `-`.
    pub name: &'static str,
    /// Raised whenever the same input gives other bytes.
    pub version: u32,
    /// The options that change bytes, as short text of the same alphabet; empty for the defaults.
    pub options: String,
    /// The file extension of the artifact, without a dot.
    pub extension: &'static str,
}

impl fmt::Display for Format {
    /// `name-vN[-options]`: a folder name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-v{}", self.name, self.version)?;
        if !self.options.is_empty() {
            write!(f, "-{}", self.options)?;
        }
        Ok(())
    }
}

/// A finished block-device file that another image refers to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LayerArtifact {
    /// The file. For formats that name other files (VMDK) this is the text that they write.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// The layer it was made from, if it was made from one.
    pub diff_id: Option<Digest>,
}

/// Turns layers into block-device files.
///
/// Synchronous, for blocking threads. Deterministic: the same input and options give the same bytes on every
/// machine, with any number of threads (rule M 147 `same_input_same_bytes`). Any error leaves nothing behind
/// (rule M 153 `output_absent_after_any_error`): the caller drops the output.
///
/// A materializer supports [`layer`](Self::layer), [`image`](Self::image) or both; what it does not support
/// answers [`Unsupported`](crate::ErrorKind::Unsupported).
pub trait Materializer: DynClone + fmt::Debug + Send + Sync + 'static {
    /// What it makes.
    fn format(&self) -> Format;

    /// Writes one layer, in one pass over its tar. Reads the tar to its verified end.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) and [`Limit`](crate::ErrorKind::Limit) for bad layers,
    /// [`Io`](crate::ErrorKind::Io) from `out`, [`Unsupported`](crate::ErrorKind::Unsupported).
    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Output) -> Result<()> {
        let _ = (tar, out);
        Err(Error::unsupported(format!("{} is not made from a single layer", self.format().name)))
    }

    /// Writes one image out of finished layers, bottom first.
    ///
    /// # Errors
    /// As [`Materializer::layer`]; [`Config`](crate::ErrorKind::Config) for layers that cannot be joined.
    fn image(&self, layers: &[LayerArtifact], out: &mut dyn Output) -> Result<()> {
        let _ = (layers, out);
        Err(Error::unsupported(format!("{} is not made from several layers", self.format().name)))
    }
}

dyn_clone::clone_trait_object!(Materializer);
