//! Fills a cluster by LZ4HC, which searches no longer than it pays.

use lzzzz::{lz4, lz4_hc};
use plyfold_core::{Error, Result};

use super::sequences::Matches;

/// LZ4HC by levels of the codec that are lower than the one that is asked for, in parts of files that gain little by it. Those are
/// most: a Debian root gets smaller by 1 to 2 % in twice the time. What gains most are few words in any order.
pub(crate) struct HighCompression {
    compressor: lz4_hc::Compressor<'static>,
    levels: Levels,
    /// The level for what follows, as soon as the lowest and the full one have been tried.
    chosen: Option<i32>,
    /// The bytes that were read since there is no earlier choice.
    read: usize,
    /// Room for what another level makes of a cluster.
    room: Vec<u8>,
}

impl HighCompression {
    pub(crate) fn new(level: i32) -> Result<Self> {
        let compressor = lz4_hc::Compressor::new().map_err(|e| Error::io("starting LZ4HC", e.into()))?;
        Ok(Self { compressor, levels: Levels::of(level), chosen: None, read: 0, room: Vec::new() })
    }

    /// Begins another piece.
    pub(crate) fn restart(&mut self) {
        (self.chosen, self.read) = (None, 0);
    }

    /// Fills the next cluster of a piece.
    pub(crate) fn fill(&mut self, source: &[u8], cluster: &mut [u8]) -> (usize, usize) {
        if self.read >= (cluster.len() * CHOICE_CLUSTERS).max(CHOICE_BYTES) {
            self.restart();
        }
        let filled = self.fill_as_chosen(source, cluster);
        self.read += filled.0;
        filled
    }

    fn fill_as_chosen(&mut self, source: &[u8], cluster: &mut [u8]) -> (usize, usize) {
        if looks_random(source)
            && let Some((read, wrote)) = lz4::compress_fill(source, cluster).ok()
            && wrote >= read
        {
            return (read, wrote);
        }
        let Levels { low, middle, full } = self.levels;
        let filled = self.fill_by(self.chosen.unwrap_or(low), source, cluster);
        if self.chosen.is_some() || low == full || !may_gain(filled, source, cluster) {
            return filled;
        }
        let mut room = std::mem::take(&mut self.room);
        room.resize(cluster.len(), 0);
        let best = self.fill_by(full, source, &mut room);
        self.chosen = Some(match () {
            () if is_denser(best, filled, MUCH_PERCENT) => full,
            () if is_denser(best, filled, GAIN_PERCENT) => middle,
            () => low,
        });
        let is_better = is_denser(best, filled, 0);
        if is_better {
            cluster[..best.1].copy_from_slice(&room[..best.1]);
        }
        self.room = room;
        if is_better { best } else { filled }
    }

    fn fill_by(&mut self, level: i32, source: &[u8], cluster: &mut [u8]) -> (usize, usize) {
        // The last 64 KiB of what it is given are copied by each call: it gets about what it needs.
        let likely = &source[..source.len().min(cluster.len() * LIKELY)];
        match self.fill_from(level, likely, cluster) {
            (read, _) if read == likely.len() && read < source.len() => {
                self.fill_from(level, source, cluster)
            }
            filled => filled,
        }
    }

    /// With tables that are not zeroed for each cluster, as `lz4_hc::compress_fill` does: that takes longer than to compress a small
    /// file.
    fn fill_from(&mut self, level: i32, source: &[u8], cluster: &mut [u8]) -> (usize, usize) {
        // Without a dictionary it forgets what it did before: what is left in the tables is out of reach.
        self.compressor.attach_dict(None, level);
        self.compressor.next_fill(source, cluster).unwrap_or((0, 0))
    }
}

/// No more than so many bytes for each one of a cluster are in it, mostly.
const LIKELY: usize = 8;

/// A level is chosen for so many bytes of a piece, or for so much as this number of clusters has room for.
const CHOICE_BYTES: usize = 1 << 20;
const CHOICE_CLUSTERS: usize = 32;

/// Where the full search saves no more than this, the lowest one does. `docs/benchmarks.md` has what that takes.
const GAIN_PERCENT: u64 = 2;

/// Where it saves no more than this, the middle one has most of that.
const MUCH_PERCENT: u64 = 7;

/// The full search is tried where about so many clusters follow, or more.
const FOLLOWING: usize = 1;

/// Levels of the codec, the lowest first. It searches from 10 on in another way, which takes longer for all.
#[derive(Clone, Copy)]
struct Levels {
    low: i32,
    middle: i32,
    full: i32,
}

impl Levels {
    fn of(full: i32) -> Self {
        let (low, middle) = match full {
            ..=4 => (full, full),
            5..=9 => (3, 5),
            10 => (5, 8),
            _ => (9, full),
        };
        Self { low, middle, full }
    }
}

/// Whether bytes are as often as in compressed data, in a sample. A search for matches takes as long there as in other data, and LZ4
/// alone finds that there are none.
fn looks_random(source: &[u8]) -> bool {
    const SAMPLE: usize = 4096;
    let Some(sample) = source.first_chunk::<SAMPLE>() else { return false };
    let mut counts = [0_u32; 256];
    for byte in sample {
        counts[usize::from(*byte)] += 1;
    }
    // The expected sum for random bytes, and half as much again.
    let most = (SAMPLE + SAMPLE * SAMPLE / 256) * 3 / 2;
    counts.iter().map(|count| (count * count) as usize).sum::<usize>() < most
}

/// Whether to try the full search: where more follows, and where most of a cluster are matches, or most matches follow each other. In
/// other data few of them are too short.
fn may_gain((read, wrote): (usize, usize), source: &[u8], cluster: &[u8]) -> bool {
    if wrote >= read || source.len() - read >= read * FOLLOWING {
        return wrote < read;
    }
    let Matches { count, adjacent } = Matches::of(&cluster[..wrote]);
    let percent = count * SEQUENCE * 100 / wrote;
    (percent > 60 && read > wrote * 6) || (percent > 20 && adjacent * 10 > count * 7)
}

/// The bytes of a token and a distance.
const SEQUENCE: usize = 3;

/// Whether the first takes less for each byte of the source, by more than so many percent.
fn is_denser(one: (usize, usize), other: (usize, usize), percent: u64) -> bool {
    one.0 as u64 * other.1 as u64 * 100 > other.0 as u64 * one.1 as u64 * (100 + percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(state: &mut u64) -> usize {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as usize
    }

    fn repeated(size: usize, mut state: u64, next: impl Fn(&mut u64, &mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < size {
            next(&mut state, &mut bytes);
        }
        bytes.truncate(size);
        bytes
    }

    /// Words, runs and noise.
    fn source(size: usize, seed: u64) -> Vec<u8> {
        repeated(size, seed, |state, bytes| {
            let random = random(state);
            match random % 9 {
                0 => bytes.extend((0..random % 200).map(|at| ((at * random) >> 5) as u8)),
                1 => bytes.extend(vec![(random >> 4) as u8; random % 3000]),
                _ => bytes.extend_from_slice(format!("word {} ", random % 700).as_bytes()),
            }
        })
    }

    /// The few words that the full search gains most from.
    fn words(size: usize) -> Vec<u8> {
        const WORDS: [&str; 8] = ["block ", "the ", "of ", "cluster ", "extent\n", "file ", "and ", "tail "];
        repeated(size, 1, |state, bytes| bytes.extend_from_slice(WORDS[(random(state) >> 4) % 8].as_bytes()))
    }

    fn lines(size: usize) -> Vec<u8> {
        repeated(size, 2, |state, bytes| {
            let (host, status, time) = (random(state) % 9, random(state) % 3, random(state) % 900);
            let line = format!("{{\"host\": \"node-{host}\", \"status\": {status}, \"duration\": {time}}}\n");
            bytes.extend_from_slice(line.as_bytes());
        })
    }

    fn records(size: usize) -> Vec<u8> {
        repeated(size, 3, |state, bytes| {
            let number = bytes.len() as u32 / 5;
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&[(random(state) % 10) as u8, 0, (number % 7) as u8, 0, 0, 0]);
            bytes.extend_from_slice(&(random(state) % 100).to_le_bytes());
        })
    }

    fn noise(size: usize) -> Vec<u8> {
        repeated(size, 4, |state, bytes| bytes.push((random(state) >> 8) as u8))
    }

    /// Bytes of which each value is as frequent as in noise are searched where they are repeated, also when it is far away.
    #[test]
    fn noise_is_not_searched() {
        let (noise, mut cluster) = (noise(100_000), vec![0; 16 << 10]);
        assert!(looks_random(&noise) && !looks_random(&noise[..4095]) && !looks_random(&words(1 << 20)));
        let mut codec = HighCompression::new(9).unwrap();
        let wanted = lz4::compress_fill(&noise, &mut vec![0; 16 << 10]).unwrap();
        assert_eq!(codec.fill(&noise, &mut cluster), wanted);
        let again = [&noise[..6_000], &noise[..6_000], &noise[..40_000]].concat();
        let wanted = codec.fill_by(codec.levels.low, &again, &mut vec![0; 16 << 10]);
        assert_eq!(codec.fill(&again, &mut cluster), wanted);
        assert!(wanted.0 > wanted.1);
    }

    /// The bytes that the clusters of a piece take.
    fn size(
        mut source: &[u8],
        cluster: usize,
        mut fill: impl FnMut(&[u8], &mut [u8]) -> (usize, usize),
    ) -> usize {
        let (mut cluster, mut size) = (vec![0; cluster], 0);
        while !source.is_empty() {
            let (read, wrote) = fill(source, &mut cluster);
            let mut back = vec![0; read];
            lz4::decompress(&cluster[..wrote], &mut back).unwrap();
            assert!(back == source[..read]);
            size += wrote;
            source = &source[read..];
        }
        size
    }

    #[test]
    fn it_does_not_depend_on_what_it_did_before() {
        for (level, cluster) in [(2, 4096), (3, 4096), (9, 16_384), (10, 4096), (12, 4096)] {
            let mut used = HighCompression::new(level).unwrap();
            // Places in its tables start anew behind 1 GiB, and each call takes 64 KiB of them at least.
            for _ in 0..if level == 3 { 17_000 } else { 10 } {
                used.fill(b"the same words, the same words", &mut [0; 64]);
            }
            for (size, seed) in [(30, 1), (5000, 2), (60_000, 3), (300_000, 4), (4096, 5)] {
                used.restart();
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
                lz4::decompress(&one[..wrote], &mut back).unwrap();
                assert!(back == source[..read] && (read == size || wrote + 16 > cluster), "{level}, {size}");
            }
            // More than likely fits.
            let zeros = vec![0; 1 << 20];
            assert!(used.fill(&zeros, &mut [0; 4096]).0 > LIKELY * 4096 * 20, "{level}");
            assert_eq!(used.fill(b"", &mut [0; 4096]), (0, 0));
        }
    }

    /// The size is about that of the codec's level, and the full search is for what gains much by it.
    #[test]
    fn it_searches_where_it_pays() {
        for (kind, source) in [
            ("source", source(2 << 20, 7)),
            ("words", words(2 << 20)),
            ("lines", lines(2 << 20)),
            ("records", records(2 << 20)),
            ("noise", noise(2 << 20)),
        ] {
            for (level, cluster) in [(9, 4096), (9, 16 << 10), (9, 64 << 10), (10, 16 << 10), (12, 16 << 10)]
            {
                let mut ours = HighCompression::new(level).unwrap();
                let codec = size(&source, cluster, |source, cluster| ours.fill_by(level, source, cluster));
                let size = size(&source, cluster, |source, cluster| ours.fill(source, cluster));
                let most = codec * 102 / 100;
                assert!(size <= most, "{kind}, {level}, {cluster}: {size} bytes, {codec} by the codec");
                let chosen = ours.chosen.unwrap_or(ours.levels.low);
                assert!(chosen == level || kind != "words", "{level}, {cluster}: {chosen}");
                assert!(chosen < level || kind != "source", "{level}, {cluster}: {chosen}");
            }
        }
    }
}
