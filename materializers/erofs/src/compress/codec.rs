//! Fills a cluster with as much of a file as fits.

use lzzzz::lz4_hc;
use plyfold_core::{Error, Result};
use zstd::bulk::Compressor;
use zstd::stream::raw::CParameter;

use super::algorithm::{Algorithm, BLOCK, Compression};
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
            Self::Lz4 | Self::Lz4hc(_) => Ok(()),
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

/// LZ4HC with tables that are not zeroed for each cluster, as `lz4_hc::compress_fill` does: that takes longer than to compress a
/// small file.
pub(crate) struct HighCompression {
    compressor: lz4_hc::Compressor<'static>,
    level: i32,
}

impl HighCompression {
    fn new(level: i32) -> Result<Self> {
        let compressor = lz4_hc::Compressor::new().map_err(|e| Error::io("starting LZ4HC", e.into()))?;
        Ok(Self { compressor, level })
    }

    fn fill(&mut self, source: &[u8], cluster: &mut [u8]) -> (usize, usize) {
        // The last 64 KiB of what it is given are copied by each call: it gets about what it needs.
        let likely = &source[..source.len().min(cluster.len() * LIKELY)];
        match self.fill_from(likely, cluster) {
            (read, _) if read == likely.len() && read < source.len() => self.fill_from(source, cluster),
            filled => filled,
        }
    }

    fn fill_from(&mut self, source: &[u8], cluster: &mut [u8]) -> (usize, usize) {
        // Without a dictionary it forgets what it did before: what is left in the tables is out of reach.
        self.compressor.attach_dict(None, self.level);
        self.compressor.next_fill(source, cluster).unwrap_or((0, 0))
    }
}

/// No more than so many bytes for each one of a cluster are in it, mostly.
const LIKELY: usize = 8;

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

#[cfg(test)]
mod tests {
    use super::*;

    /// Words, runs and noise.
    fn source(size: usize, seed: u64) -> Vec<u8> {
        let (mut state, mut bytes) = (seed, Vec::new());
        while bytes.len() < size {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let random = (state >> 33) as usize;
            match random % 9 {
                0 => bytes.extend((0..random % 200).map(|at| ((at * random) >> 5) as u8)),
                1 => bytes.extend(vec![(random >> 4) as u8; random % 3000]),
                _ => bytes.extend_from_slice(format!("word {} ", random % 700).as_bytes()),
            }
        }
        bytes.truncate(size);
        bytes
    }

    #[test]
    fn lz4hc_does_not_depend_on_what_it_did_before() {
        for (level, cluster) in [(2, 4096), (3, 4096), (9, 16_384), (10, 4096), (12, 4096)] {
            let mut used = HighCompression::new(level).unwrap();
            // Places in its tables start anew behind 1 GiB, and each call takes 64 KiB of them at least.
            for _ in 0..if level == 3 { 17_000 } else { 10 } {
                used.fill(b"the same words, the same words", &mut [0; 64]);
            }
            for (size, seed) in [(30, 1), (5000, 2), (60_000, 3), (300_000, 4), (4096, 5)] {
                let source = source(size, seed);
                let (mut one, mut other) = (vec![0; cluster], vec![0; cluster]);
                let (read, wrote) = used.fill(&source, &mut one);
                assert_eq!(
                    (read, wrote),
                    HighCompression::new(level).unwrap().fill(&source, &mut other),
                    "{level}, {size}"
                );
                assert!(one == other && read > 0, "{level}, {size}");
                let mut back = vec![0; read];
                lzzzz::lz4::decompress(&one[..wrote], &mut back).unwrap();
                assert!(back == source[..read] && (read == size || wrote + 16 > cluster), "{level}, {size}");
            }
            // More than likely fits.
            let zeros = vec![0; 1 << 20];
            assert!(used.fill(&zeros, &mut [0; 4096]).0 > LIKELY * 4096 * 20, "{level}");
            assert_eq!(used.fill(b"", &mut [0; 4096]), (0, 0));
        }
    }
}
