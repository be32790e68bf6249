//! What materializers write to, and what identifies it.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek};

use crate::holes::data_from;
use crate::range_write::RangeWrite;

/// One file that a materializer writes: empty at first, to be filled in any order, and read back.
///
/// The file becomes visible only after the materializer has returned `Ok` and the caller has verified and
/// synced it, so a materializer never cleans up.
pub trait Output: RangeWrite + Read + Seek + Send {
    /// Sets the file's length in bytes; what was never written reads as zeros.
    ///
    /// # Errors
    /// What the file system reports.
    fn set_len(&mut self, length: u64) -> std::io::Result<()>;

    /// The first byte at `offset` or behind it that may be other than zero; `None` where there is none. The position moves.
    /// Files of Linux skip their holes.
    ///
    /// # Errors
    /// What the file system reports.
    fn data_from(&mut self, offset: u64) -> std::io::Result<Option<u64>> {
        Ok(Some(offset))
    }
}

impl Output for File {
    fn data_from(&mut self, offset: u64) -> std::io::Result<Option<u64>> {
        data_from(self, offset)
    }

    fn set_len(&mut self, length: u64) -> std::io::Result<()> {
        Self::set_len(self, length)
    }
}

impl<O: Output + ?Sized> Output for &mut O {
    fn set_len(&mut self, length: u64) -> std::io::Result<()> {
        (**self).set_len(length)
    }

    fn data_from(&mut self, offset: u64) -> std::io::Result<Option<u64>> {
        (**self).data_from(offset)
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

#[cfg(test)]
mod tests {
    use std::io::{SeekFrom, Write};

    use super::*;

    /// An output that is no file: what is not forwarded is read and written.
    struct Wrapped(File);

    impl Read for Wrapped {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Wrapped {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Wrapped {
        fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to)
        }
    }

    impl RangeWrite for Wrapped {}

    impl Output for Wrapped {
        fn set_len(&mut self, length: u64) -> std::io::Result<()> {
            self.0.set_len(length)
        }
    }

    #[test]
    fn a_range_of_a_file_is_copied_to_where_the_output_stands() {
        let content: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(&content).unwrap();
        let outputs: [Box<dyn Output>; 2] =
            [Box::new(tempfile::tempfile().unwrap()), Box::new(Wrapped(tempfile::tempfile().unwrap()))];
        for mut out in outputs {
            out.write_all(b"head").unwrap();
            (&mut &mut *out).copy_range(&source, 1000, 150_000).unwrap();
            out.copy_range(&source, 0, 0).unwrap();
            assert_eq!(out.stream_position().unwrap(), 150_004);
            out.write_all(b"tail").unwrap();
            let mut copied = Vec::new();
            out.rewind().unwrap();
            out.read_to_end(&mut copied).unwrap();
            assert!(copied == [b"head", &content[1000..151_000], b"tail"].concat());
            for (from, length) in [(100_000, 100_001), (200_000, 1), (u64::MAX, 1), (300_000, 5)] {
                let error = out.copy_range(&source, from, length).unwrap_err();
                let kinds = [std::io::ErrorKind::UnexpectedEof, std::io::ErrorKind::InvalidInput];
                assert!(kinds.contains(&error.kind()), "{from} {length}: {error}");
            }
        }
    }
}
