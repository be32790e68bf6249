//! How files are compressed.

use std::num::NonZero;
use std::str::FromStr;

use plyfold_core::worker::cores;
use plyfold_core::{Error, Result};

use super::format::{CLUSTER_MAX, LZ4, ZSTD};
use crate::fault::ErofsFault;

/// What compresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Algorithm {
    /// LZ4: the fastest to write and to read. Linux 5.4, or 5.13 with clusters of more than 4 KiB.
    Lz4,
    /// LZ4 with more effort, of a level from 1 to 12: as fast to read. Levels from 5 on search less in pieces of files where
    /// that costs about 2 % at most: a first cluster is filled both ways.
    Lz4hc(u8),
    /// Zstandard, of a level from 1 to 22: the smallest. Linux 6.10.
    Zstd(u8),
}

impl Algorithm {
    /// Its number in Linux.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Lz4 | Self::Lz4hc(_) => LZ4,
            Self::Zstd(_) => ZSTD,
        }
    }
}

/// `lz4`, `lz4hc`, `lz4hc,LEVEL`, `zstd` or `zstd,LEVEL`; without a level 9 and 3.
impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, level) = text.split_once(',').map_or((text, None), |(name, level)| (name, Some(level)));
        let level = |default: u8, max: u8| {
            let level = level.map_or(Ok(default), str::parse);
            level.ok().filter(|level| (1..=max).contains(level))
        };
        let algorithm = match name {
            "lz4" if !text.contains(',') => Some(Self::Lz4),
            "lz4hc" => level(9, 12).map(Self::Lz4hc),
            "zstd" => level(3, 22).map(Self::Zstd),
            _ => None,
        };
        algorithm.ok_or_else(|| ErofsFault::Compression(text.to_owned()).into())
    }
}

/// How files are compressed: the algorithm, and how large a cluster is.
///
/// A cluster is what is read and decoded at once for one byte of a file. Larger ones make smaller images, and reads of
/// single pages slower.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Compression {
    pub(crate) algorithm: Algorithm,
    pub(crate) cluster: u32,
    /// Small files, and the ends of larger ones, are compressed together.
    pub(crate) fragments: bool,
    /// By default as many as the machine runs at once.
    pub(crate) threads: Option<NonZero<usize>>,
}

impl Compression {
    /// By this algorithm, in clusters of 16 KiB for LZ4 and of 64 KiB for Zstandard.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for a level that there is not.
    pub fn new(algorithm: Algorithm) -> Result<Self> {
        let (cluster, is_known) = match algorithm {
            Algorithm::Lz4 => (16 << 10, true),
            Algorithm::Lz4hc(level) => (16 << 10, (1..=12).contains(&level)),
            Algorithm::Zstd(level) => (64 << 10, (1..=22).contains(&level)),
        };
        if !is_known {
            return Err(ErofsFault::Compression(format!("{algorithm:?}")).into());
        }
        Ok(Self { algorithm, cluster, fragments: false, threads: None })
    }

    /// The size of a cluster in bytes, compressed: a power of two from 4 KiB to 1 MiB.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for any other.
    pub fn with_cluster(mut self, bytes: u32) -> Result<Self> {
        if !bytes.is_power_of_two() || !(BLOCK..=CLUSTER_MAX).contains(&bytes) {
            return Err(ErofsFault::Cluster(bytes.to_string()).into());
        }
        self.cluster = bytes;
        Ok(self)
    }

    /// Small files and the ends of larger ones together, as parts (fragments) of one file that has no name; equal ones once.
    /// Images get smaller, and reads of one file fetch others with it. Linux 6.1. For whole images alone: a layer's tar is
    /// read once.
    #[must_use]
    pub fn with_fragments(mut self) -> Self {
        self.fragments = true;
        self
    }

    /// The most bytes that a fragment has.
    pub(crate) fn fragment_max(&self) -> u32 {
        (self.cluster * 4).min(CLUSTER_MAX)
    }

    /// On so many threads. The image is the same for any number.
    #[must_use]
    pub fn with_threads(mut self, threads: NonZero<usize>) -> Self {
        self.threads = Some(threads);
        self
    }

    /// For a cache key: lower-case letters, digits and `-`. A number behind an algorithm's name counts other bytes for the same
    /// options.
    pub(crate) fn key(&self) -> String {
        let algorithm = match self.algorithm {
            Algorithm::Lz4 => "zlz4-3".to_owned(),
            Algorithm::Lz4hc(level) => format!("zlz4hc{level}-5"),
            Algorithm::Zstd(level) => format!("zzstd{level}-3"),
        };
        let fragments = if self.fragments { "-f" } else { "" };
        format!("{algorithm}-c{}{fragments}", self.cluster)
    }

    /// What follows the superblock: nothing for LZ4 in clusters of one block, which older kernels read, too.
    pub(crate) fn record(&self) -> Vec<u8> {
        let mut record = vec![0; 16];
        match self.algorithm {
            Algorithm::Lz4 | Algorithm::Lz4hc(_) if !self.is_big() => record.clear(),
            Algorithm::Lz4 | Algorithm::Lz4hc(_) => {
                record[..2].copy_from_slice(&14_u16.to_le_bytes());
                record[2..4].copy_from_slice(&DISTANCE_MAX.to_le_bytes());
                record[4..6].copy_from_slice(&((self.cluster / BLOCK) as u16).to_le_bytes());
            }
            Algorithm::Zstd(_) => {
                record.truncate(8);
                record[..2].copy_from_slice(&6_u16.to_le_bytes());
                record[3] = (self.window_log() - 10) as u8;
            }
        }
        record
    }

    /// What the superblock says: a bit for the algorithm, or how far LZ4 reaches back.
    pub(crate) fn superblock_field(&self) -> u16 {
        if self.record().is_empty() { DISTANCE_MAX } else { 1 << self.algorithm.number() }
    }

    /// Whether clusters may have more than one block.
    pub(crate) fn is_big(&self) -> bool {
        self.cluster > BLOCK
    }

    /// The number of threads that compress: what all of them hold of files is bounded.
    pub(crate) fn workers(&self) -> NonZero<usize> {
        let most = NonZero::new(MEMORY / (PIECE as usize * COPIES)).unwrap_or(NonZero::<usize>::MIN);
        let threads = self.threads.or_else(|| NonZero::new(cores()));
        threads.unwrap_or(NonZero::<usize>::MIN).min(most)
    }

    /// log2 of how far matches reach back.
    pub(crate) fn window_log(&self) -> u32 {
        (self.cluster * 8).min(CLUSTER_MAX).ilog2()
    }
}

/// How far LZ4 reaches back.
const DISTANCE_MAX: u16 = u16::MAX;

/// Smaller files get no smaller: header and indexes take as much.
pub(crate) const SIZE_MIN: u64 = 64;
/// The indexes of larger files would take more than a few MiB of memory.
pub(crate) const SIZE_MAX: u64 = 16 << 30;
/// Files of a layer of at most so many bytes are compressed as a whole.
pub(crate) const WHOLE: u64 = 256 << 10;
/// How much of a file is compressed on its own: each piece ends with a block that is not full.
pub(crate) const PIECE: u32 = 4 << 20;
/// Files that are compressed by one thread, one after the other, are together no larger than this.
pub(crate) const BATCH: u64 = 1 << 20;
/// What all threads together hold of files.
const MEMORY: usize = 256 << 20;
/// How often a thread holds a piece: what it reads, what it makes, and two that wait to be written.
const COPIES: usize = 4;

/// The one block size that compressed files have here.
pub(crate) const BLOCK: u32 = 4096;

/// The size of a cluster out of text: `4K` to `1M`, or bytes.
///
/// # Errors
/// [`Config`](plyfold_core::ErrorKind::Config) for anything else.
pub(crate) fn cluster_size(text: &str) -> Result<u32> {
    let (digits, unit) = match text.strip_suffix(['K', 'M']) {
        Some(digits) if text.ends_with('K') => (digits, 1 << 10),
        Some(digits) => (digits, 1 << 20),
        None => (text, 1),
    };
    let size = digits.parse::<u32>().ok().and_then(|size| size.checked_mul(unit));
    size.ok_or_else(|| ErofsFault::Cluster(text.to_owned()).into())
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, Compression, cluster_size};

    #[test]
    fn algorithms_are_read() {
        for (text, algorithm) in [
            ("lz4", Algorithm::Lz4),
            ("lz4hc", Algorithm::Lz4hc(9)),
            ("lz4hc,12", Algorithm::Lz4hc(12)),
            ("zstd", Algorithm::Zstd(3)),
            ("zstd,22", Algorithm::Zstd(22)),
        ] {
            assert_eq!(text.parse::<Algorithm>().unwrap(), algorithm);
        }
        for bad in ["", "lz4,1", "lz4hc,0", "lz4hc,13", "zstd,23", "zstd,", "zstd,x", "lzma", "zstd,3,4"] {
            let error = bad.parse::<Algorithm>().unwrap_err();
            assert_eq!(*error.kind(), plyfold_core::ErrorKind::Config, "{bad}");
        }
    }

    #[test]
    fn clusters_are_powers_of_two() {
        let with = |text: &str| {
            Compression::new(Algorithm::Lz4).unwrap().with_cluster(cluster_size(text)?).map(|made| made.key())
        };
        assert_eq!(with("4K").unwrap(), "zlz4-3-c4096");
        assert_eq!(with("1M").unwrap(), "zlz4-3-c1048576");
        assert_eq!(with("65536").unwrap(), "zlz4-3-c65536");
        for bad in ["", "K", "2K", "2M", "5K", "-4096", "4k", "99999999999", "4194304M"] {
            assert!(with(bad).is_err(), "{bad}");
        }
    }
}
