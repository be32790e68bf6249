//! A checksum that is much faster than a digest, for content whose digest was verified before.

use std::hash::Hasher as _;

use twox_hash::xxhash3_64;

/// Computes XXH3 of 64 bits. It finds damage, at the speed of memory, and is no digest: who wants to can make other bytes
/// with the same checksum.
///
/// ```
/// use plyfold_core::xxh3::Xxh3;
///
/// let mut sum = Xxh3::default();
/// assert_eq!(sum.finish(), 0x2d06_8005_38d3_94c2);
/// sum.update(b"content");
/// assert_ne!(sum.finish(), 0x2d06_8005_38d3_94c2);
/// ```
#[derive(Clone, Default)]
pub struct Xxh3 {
    state: xxhash3_64::Hasher,
}

impl Xxh3 {
    /// The checksum of these bytes.
    pub fn of(bytes: &[u8]) -> u64 {
        let mut sum = Self::default();
        sum.update(bytes);
        sum.finish()
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.write(bytes);
    }

    /// The checksum of all bytes so far.
    pub fn finish(&self) -> u64 {
        self.state.finish()
    }
}

impl std::fmt::Debug for Xxh3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Xxh3({:016x})", self.finish())
    }
}
