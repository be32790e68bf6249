//! What materializers write to, and what identifies it.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, Write};

/// One file that a materializer writes: empty at first, to be filled in any order, and read back.
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

impl Output for File {
    fn set_len(&mut self, length: u64) -> std::io::Result<()> {
        Self::set_len(self, length)
    }
}

impl<O: Output + ?Sized> Output for &mut O {
    fn set_len(&mut self, length: u64) -> std::io::Result<()> {
        (**self).set_len(length)
    }
}

/// The identity of a materializer's output: with the digest of what it was made from it is the whole of a cache key.
///
/// Any option that changes a byte of output changes `options`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Format {
    /// Short name, as in `--as` and in the store's `artifacts/` folder: lower-case letters, digits, `-`, and nothing that
    /// reads as a version, such as `-v1`.
    pub name: &'static str,
    /// Raised whenever the same input gives other bytes.
    pub version: u32,
    /// The options that change bytes, as short text of the same alphabet; empty for the defaults.
    pub options: String,
    /// The file extension of the artifact, without a dot.
    pub extension: &'static str,
}

impl Format {
    /// The longest [`extension`](Self::extension), in bytes.
    pub const EXTENSION_BYTES: usize = 16;
    /// The longest [`name`](Self::name), in bytes.
    pub const NAME_BYTES: usize = 32;
    /// The longest [`options`](Self::options), in bytes: a format with longer ones puts a digest of them there.
    pub const OPTIONS_BYTES: usize = 128;

    /// Whether another format may print alike: the name has a part that reads as a version. `x-v1` of version 2 prints as
    /// `x` of version 1 with the options `v2`. [`Materializers`](crate::Materializers) refuse it.
    pub fn is_ambiguous(&self) -> bool {
        let mut parts = self.name.split('-').skip(1);
        parts.any(|part| part.strip_prefix('v').is_some_and(|number| number.parse::<u64>().is_ok()))
    }
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
