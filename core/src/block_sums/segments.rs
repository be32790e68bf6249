//! The checksums of blocks, without those that are all zeros.

use std::collections::BTreeMap;

use crate::xxh3::Xxh3;

/// The bytes of a block. The last one of a file may have fewer.
pub const BLOCK: u64 = 1 << 20;
/// The checksum of a block of zeros.
pub(super) const ZEROS: u64 = 0x9187_80b9_0550_bf34;
/// In the place of a checksum: the block has to be read.
pub(super) const UNKNOWN: u64 = 0;
/// Most checksums in a row.
const ROW: usize = 512;

/// What is kept as the checksum of bytes: never [`UNKNOWN`].
pub(super) fn sum_of(xxh3: &Xxh3) -> u64 {
    match xxh3.finish() {
        UNKNOWN => 1,
        sum => sum,
    }
}

/// The checksum of so many zeros.
pub(super) fn of_zeros(length: u64) -> u64 {
    if length == BLOCK {
        return ZEROS;
    }
    let mut xxh3 = Xxh3::default();
    add_zeros(&mut xxh3, length);
    sum_of(&xxh3)
}

pub(super) fn add_zeros(xxh3: &mut Xxh3, mut length: u64) {
    const NOTHING: &[u8] = &[0; 16 << 10];
    while length > 0 {
        let part = NOTHING.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        xxh3.update(&NOTHING[..part]);
        length -= part as u64;
    }
}

/// How many blocks a file of this size has.
pub(super) fn blocks_of(size: u64) -> u64 {
    size.div_ceil(BLOCK)
}

/// Rows of checksums by the first block of each. What is in no row is a block of zeros.
#[derive(Clone, Debug, Default)]
pub(super) struct Segments(BTreeMap<u64, Vec<u64>>);

impl Segments {
    pub(super) fn get(&self, block: u64) -> u64 {
        let row = self.0.range(..=block).next_back();
        let sum = row.and_then(|(first, row)| row.get(usize::try_from(block - first).ok()?));
        sum.copied().unwrap_or(ZEROS)
    }

    pub(super) fn set(&mut self, block: u64, sum: u64) {
        if let Some((first, row)) = self.0.range_mut(..=block).next_back() {
            let at = usize::try_from(block - first).unwrap_or(usize::MAX);
            if let Some(there) = row.get_mut(at) {
                *there = sum;
                return;
            }
            if at == row.len() && at < ROW && sum != ZEROS {
                row.push(sum);
                return;
            }
        }
        if sum != ZEROS {
            self.0.insert(block, vec![sum]);
        }
    }

    /// Makes zeros of all blocks from one on.
    pub(super) fn cut(&mut self, block: u64) {
        drop(self.0.split_off(&block));
        if let Some((first, row)) = self.0.range_mut(..block).next_back() {
            row.truncate(usize::try_from(block - first).unwrap_or(usize::MAX));
        }
    }

    /// The blocks whose checksum is unknown, below a number of blocks.
    pub(super) fn unknown(&self, count: u64) -> Vec<u64> {
        let all = self.0.iter().flat_map(|(first, row)| (*first..).zip(row));
        all.filter(|(block, sum)| **sum == UNKNOWN && *block < count).map(|(block, _)| block).collect()
    }

    pub(super) fn to_bytes(&self, count: u64) -> Vec<u8> {
        let (mut bytes, mut next, mut zeros) = (Vec::new(), 0, 0);
        let put_zeros = |bytes: &mut Vec<u8>, zeros: &mut u64| {
            if *zeros > 0 {
                bytes.extend_from_slice(&UNKNOWN.to_le_bytes());
                bytes.extend_from_slice(&zeros.to_le_bytes());
                *zeros = 0;
            }
        };
        let all = self.0.iter().flat_map(|(first, row)| (*first..).zip(row));
        for (block, sum) in all.filter(|(block, sum)| **sum != ZEROS && *block < count) {
            zeros += block - next;
            put_zeros(&mut bytes, &mut zeros);
            bytes.extend_from_slice(&sum.to_le_bytes());
            next = block + 1;
        }
        zeros += count.saturating_sub(next);
        put_zeros(&mut bytes, &mut zeros);
        bytes
    }

    pub(super) fn parse(bytes: &[u8], count: u64) -> Option<Self> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let (mut all, mut next) = (Self::default(), 0_u64);
        while let Some(word) = words.next() {
            if word == UNKNOWN {
                next = next.checked_add(words.next().filter(|zeros| *zeros > 0)?)?;
            } else {
                all.set(next, word);
                next = next.checked_add(1)?;
            }
        }
        (next == count).then_some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_zeros_has_the_known_checksum() {
        let mut xxh3 = Xxh3::default();
        xxh3.update(&vec![0; BLOCK as usize]);
        assert_eq!(format!("{:#018x}", sum_of(&xxh3)), format!("{ZEROS:#018x}"));
    }
}
