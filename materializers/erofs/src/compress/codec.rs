//! Fills a cluster with as much of a file as fits.

use plyfold_core::{Error, Result};
use zstd::bulk::Compressor;
use zstd::stream::raw::CParameter;

use super::algorithm::{Algorithm, BLOCK, Compression};
use super::high_compression::HighCompression;
use super::sequences::Cut;

/// From this level on Zstandard may search by rows of hashes, which depend on what the context did before.
const ROWS: u8 = 4;

/// Compresses the extents of one piece of a file, one after the other.
pub(crate) enum Codec {
    Lz4,
    Lz4hc(Box<HighCompression>),
    Zstd(Box<Fit>),
}

impl Codec {
    pub(crate) fn new(compression: &Compression) -> Result<Self> {
        Ok(match compression.algorithm {
            Algorithm::Lz4 => Self::Lz4,
            Algorithm::Lz4hc(level) => Self::Lz4hc(Box::new(HighCompression::new(level.into())?)),
            Algorithm::Zstd(level) => Self::Zstd(Box::new(Fit::new(level, compression.window_log())?)),
        })
    }

    /// Forgets all that the result of [`Codec::fill`] could depend on, but for its arguments.
    pub(crate) fn restart(&mut self) -> Result<()> {
        match self {
            // Each cluster is compressed as the first one.
            Self::Lz4 => Ok(()),
            Self::Lz4hc(compressor) => {
                compressor.restart();
                Ok(())
            }
            Self::Zstd(fit) => fit.restart(),
        }
    }

    /// Makes a cluster shorter that holds all of `source`, so that it holds a start of it in at most `size` bytes, if `is_better`
    /// says so of the bytes that are in it, the bytes that it takes, and those that the rest of `source` takes.
    pub(crate) fn shorten(
        &mut self,
        source: &[u8],
        cluster: &mut [u8],
        size: usize,
        is_better: impl Fn(usize, usize, usize) -> bool,
    ) -> Option<(usize, usize)> {
        let Self::Zstd(fit) = self else {
            let cut = Cut::new(cluster, source.len(), size)?;
            let (read, wrote) = (cut.read(), cut.wrote());
            return is_better(read, wrote, source.len() - read.min(source.len())).then(|| {
                cut.apply(source, cluster);
                (read, wrote)
            });
        };
        let mut shorter = vec![0; size];
        let (read, wrote) = fit.fill_exactly(source, &mut shorter);
        let rest = fit.size_of(&source[read..]);
        is_better(read, wrote, rest).then(|| {
            cluster[..size].copy_from_slice(&shorter);
            (read, wrote)
        })
    }

    /// Compresses the start of `source` into `cluster`; the bytes that are in it, and the bytes that it takes. `(0, 0)` when it
    /// is not worth it. After so many attempts the best one is taken.
    pub(crate) fn fill(&mut self, source: &[u8], cluster: &mut [u8], attempts: u32) -> (usize, usize) {
        match self {
            Self::Lz4 => lzzzz::lz4::compress_fill(source, cluster).unwrap_or((0, 0)),
            Self::Lz4hc(compressor) => compressor.fill(source, cluster),
            Self::Zstd(fit) => fit.fill(source, cluster, attempts, is_good),
        }
    }
}

/// Zstandard cannot be given a size to fill: the right length of the source is searched.
pub(crate) struct Fit {
    level: u8,
    window_log: u32,
    context: Compressor<'static>,
    /// What came out last, in bytes of the source for 1,024 of the cluster.
    ratio: usize,
    /// Room for what turns out to be too long.
    room: Vec<u8>,
}

impl Fit {
    fn new(level: u8, window_log: u32) -> Result<Self> {
        let context = context(level, window_log)?;
        Ok(Self { level, window_log, context, ratio: FIRST_RATIO, room: Vec::new() })
    }

    fn restart(&mut self) -> Result<()> {
        self.ratio = FIRST_RATIO;
        if self.level >= ROWS {
            self.context = context(self.level, self.window_log)?;
        }
        Ok(())
    }

    /// Fills a cluster to its last bytes, with the start of what does not fit as a whole.
    fn fill_exactly(&mut self, source: &[u8], cluster: &mut [u8]) -> (usize, usize) {
        let source = &source[..source.len().saturating_sub(1)];
        self.fill(source, cluster, EXACT_ATTEMPTS, |taken, size| taken + size / 512 + 4 >= size)
    }

    /// The bytes that all of `source` takes, compressed or not.
    fn size_of(&mut self, source: &[u8]) -> usize {
        self.room.resize(zstd::zstd_safe::compress_bound(source.len()), 0);
        let compressed = self.context.compress_to_buffer(source, &mut self.room[..]);
        compressed.map_or(source.len(), |bytes| bytes.min(source.len()))
    }

    fn fill(
        &mut self,
        source: &[u8],
        cluster: &mut [u8],
        attempts: u32,
        is_good: impl Fn(usize, usize) -> bool,
    ) -> (usize, usize) {
        let size = cluster.len();
        self.room.resize(size + size / 8 + 64, 0);
        // The longest start that fits, what it takes, and the shortest that does not fit.
        let (mut fits, mut taken, mut beyond) = (0, 0, source.len() + 1);
        let guess = size * self.ratio / 1024;
        let mut length = if source.len() < guess + guess / 4 { source.len() } else { guess };
        for attempt in 0.. {
            length = length.max(fits + 1).min(beyond - 1);
            let compressed = self.context.compress_to_buffer(&source[..length], &mut self.room[..]).ok();
            if let Some(bytes) = compressed {
                self.ratio = length * 1024 / bytes.max(1);
            }
            match compressed {
                Some(bytes) if bytes <= size => {
                    cluster[..bytes].copy_from_slice(&self.room[..bytes]);
                    (fits, taken) = (length, bytes);
                }
                _ => beyond = length,
            }
            if fits + 1 >= beyond || is_good(taken, size) || (attempt + 1 >= attempts && fits > size) {
                break;
            }
            // Not even a start as long as the cluster fits.
            if beyond <= size {
                self.ratio = 1100;
                return (0, 0);
            }
            // A little less than what the last attempt would fill exactly.
            length = match compressed {
                Some(bytes) if attempt < 2 * attempts => length * (size - size / 256 - 8) / bytes.max(1),
                _ => usize::midpoint(fits, beyond),
            };
        }
        (fits, taken)
    }
}

/// How often the length of what fills a cluster to its last bytes is searched.
const EXACT_ATTEMPTS: u32 = 8;

/// Bytes of the source for 1,024 of the first cluster.
const FIRST_RATIO: usize = 3 << 10;

/// Whether a cluster is filled well: nearly all of its room is used, and nearly all of its last block.
fn is_good(taken: usize, size: usize) -> bool {
    let blocks = taken.next_multiple_of(BLOCK as usize);
    taken > 0 && blocks * 4 >= size * 3 && blocks - taken <= taken / 48
}

fn context(level: u8, window_log: u32) -> Result<Compressor<'static>> {
    let made = Compressor::new(level.into()).and_then(|mut context| {
        context.set_parameter(CParameter::WindowLog(window_log))?;
        Ok(context)
    });
    made.map_err(|e| Error::io("starting Zstandard", e))
}
