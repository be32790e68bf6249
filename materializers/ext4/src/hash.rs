//! The hashes by which ext4 finds a name in a large directory (`directory.rst`, "Hash Tree Directories"). This crate writes
//! half of MD4, over the name's bytes as signed characters; others are read.

use crate::fields::{S_FLAGS, S_HASH_SEED, SIGNED_HASH, UNSIGNED_HASH};
use crate::format::le32;

/// What no name hashes to: the end of a directory, shifted past the bit that marks a continued hash.
const END: u32 = 0x7fff_ffff << 1;
const K2: u32 = 0x5a82_7999;
const K3: u32 = 0x6ed9_eba1;
const DELTA: u32 = 0x9e37_79b9;
/// Where the state begins in a file system without a seed, as in MD4.
const UNSEEDED: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// How names are hashed in a file system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NameHash {
    seed: [u32; 4],
    is_signed: bool,
}

impl NameHash {
    /// As a superblock says it, if it does.
    pub(crate) fn of(superblock: &[u8]) -> Option<Self> {
        let is_signed = match le32(superblock, S_FLAGS) & (SIGNED_HASH | UNSIGNED_HASH) {
            SIGNED_HASH => true,
            UNSIGNED_HASH => false,
            _ => return None,
        };
        let seed = [0, 4, 8, 12].map(|at| le32(superblock, S_HASH_SEED + at));
        Some(Self { seed: if seed == [0; 4] { UNSEEDED } else { seed }, is_signed })
    }

    /// The hash of a name, by a version (`hash_version`) that is known.
    pub(crate) fn hash(&self, version: u8, name: &[u8]) -> Option<u32> {
        let (mut state, is_signed) = (self.seed, self.is_signed);
        let hash = match version {
            0 => legacy(name, is_signed),
            1 => {
                fold(name, is_signed, |words| half_md4_step(&mut state, words));
                state[1]
            }
            2 => {
                fold(name, is_signed, |words| tea_step(&mut state, words));
                state[0]
            }
            _ => return None,
        };
        Some(finished(hash))
    }
}

/// A name's hash and its minor hash: names stand in the order of both.
pub(crate) fn half_md4(name: &[u8], seed: &[u8; 16]) -> (u32, u32) {
    let mut state = [0, 4, 8, 12].map(|at| le32(seed, at));
    fold(name, true, |words| half_md4_step(&mut state, words));
    (finished(state[1]), state[2])
}

fn finished(hash: u32) -> u32 {
    let hash = hash & !1;
    if hash == END { END - 2 } else { hash }
}

/// Hands a name over in pieces of so many words.
fn fold<const WORDS: usize>(name: &[u8], is_signed: bool, mut step: impl FnMut(&[u32; WORDS])) {
    let mut rest = name;
    while !rest.is_empty() {
        step(&words(rest, is_signed));
        rest = rest.get(4 * WORDS..).unwrap_or_default();
    }
}

/// The next bytes of a name as big-endian words, padded with the length of what is left.
fn words<const WORDS: usize>(rest: &[u8], is_signed: bool) -> [u32; WORDS] {
    let length = rest.len() as u32;
    let pad = (length | length << 8) * 0x1_0001;
    let mut words = [pad; WORDS];
    for (word, bytes) in words.iter_mut().zip(rest.chunks(4)) {
        *word = bytes.iter().fold(pad, |word, byte| character(*byte, is_signed).wrapping_add(word << 8));
    }
    words
}

fn character(byte: u8, is_signed: bool) -> u32 {
    if is_signed { i32::from(byte.cast_signed()).cast_unsigned() } else { byte.into() }
}

/// The hash of the first directories that had a tree.
fn legacy(name: &[u8], is_signed: bool) -> u32 {
    let (mut last, mut before) = (0x12a3_fe2d_u32, 0x37ab_e8f9_u32);
    for byte in name {
        let mixed = last ^ character(*byte, is_signed).wrapping_mul(7_152_373);
        let hash = before.wrapping_add(mixed);
        let hash = if hash >> 31 == 0 { hash } else { hash.wrapping_sub(0x7fff_ffff) };
        (last, before) = (hash, last);
    }
    last << 1
}

/// 16 rounds of TEA (Wheeler and Needham 1994).
fn tea_step(state: &mut [u32; 4], words: &[u32; 4]) {
    let [mut first, mut second, ..] = *state;
    let mix = |of: u32, sum: u32, key: [u32; 2]| {
        (of << 4).wrapping_add(key[0]) ^ of.wrapping_add(sum) ^ (of >> 5).wrapping_add(key[1])
    };
    for round in 1..=16_u32 {
        let sum = DELTA.wrapping_mul(round);
        first = first.wrapping_add(mix(second, sum, [words[0], words[1]]));
        second = second.wrapping_add(mix(first, sum, [words[2], words[3]]));
    }
    state[0] = state[0].wrapping_add(first);
    state[1] = state[1].wrapping_add(second);
}

/// Three rounds of eight steps, where MD4 has sixteen (RFC 1320, 3.4).
fn half_md4_step(state: &mut [u32; 4], words: &[u32; 8]) {
    type Mix = fn(u32, u32, u32) -> u32;
    let rounds: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
        (|x, y, z| z ^ (x & (y ^ z)), 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (|x, y, z| (x & y).wrapping_add((x ^ y) & z), K2, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
        (|x, y, z| x ^ y ^ z, K3, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, constant, order, shifts) in rounds {
        for (step, word) in order.into_iter().enumerate() {
            let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(words[word]).wrapping_add(constant);
            (a, b, c, d) = (d, sum.rotate_left(shifts[step % 4]), b, c);
        }
    }
    for (word, added) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(added);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from `debugfs -R "dx_hash -h half_md4 -s SEED NAME"` of e2fsprogs 1.47.0.
    #[test]
    fn names_hash_as_e2fsprogs_hashes_them() {
        let zero_seed = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
        let mut default = [0; 16];
        for (bytes, word) in default.chunks_exact_mut(4).zip(zero_seed) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let long = "n".repeat(255);
        let (block, more) = ("x".repeat(32), "x".repeat(33));
        for (seed, name, hash) in [
            (&default, "a", (0xd5fa_7d7a, 0xacb4_8187)),
            (&default, "lost+found", (0x591d_e422, 0x6ffc_56e0)),
            (&default, "abcd", (0xad75_57a8, 0xb1da_437c)),
            (&default, &long, (0xc0f8_fde8, 0xa0c4_4aea)),
            (&default, &block, (0xae38_ae70, 0x439d_c1ad)),
            (&default, &more, (0xebd0_861e, 0x1d9a_f8b6)),
            (&default, "caf\u{e9}", (0xfb9c_5e5c, 0x0573_e8b8)),
            (b"0123456789abcdef", "a", (0x6624_92d2, 0x8334_0ceb)),
            (b"0123456789abcdef", "lost+found", (0xba39_1b46, 0x8a2c_abf7)),
            (b"0123456789abcdef", "abcd", (0xc3f4_2f60, 0xbace_3490)),
            (b"0123456789abcdef", &long, (0x5c8a_3744, 0x2ed2_0c7a)),
            (b"0123456789abcdef", &block, (0xdbff_3fd8, 0x1a30_690a)),
            (b"0123456789abcdef", &more, (0x0fd6_9ba4, 0x5ac2_793e)),
            (b"0123456789abcdef", "caf\u{e9}", (0x6a22_f848, 0xd9c8_5692)),
        ] {
            assert_eq!(half_md4(name.as_bytes(), seed), hash, "{name}");
        }
    }
    /// As above, of the other versions.
    #[test]
    fn names_hash_by_all_versions() {
        let of = |is_signed| NameHash { seed: UNSEEDED, is_signed };
        for (name, legacy, tea) in [
            ("abcd", 0xfafa_23ca, 0x5a24_112e),
            ("caf\u{e9}", 0x96ca_5a2c, 0x1058_42ea),
            ("lost+found", 0x5e2a_ba24, 0x2dbf_9e80),
        ] {
            assert_eq!(of(true).hash(0, name.as_bytes()), Some(legacy), "{name}");
            assert_eq!(of(true).hash(2, name.as_bytes()), Some(tea), "{name}");
            let is_ascii = name.is_ascii();
            for version in 0..3 {
                let [signed, unsigned] =
                    [true, false].map(|is_signed| of(is_signed).hash(version, name.as_bytes()));
                assert_eq!(signed == unsigned, is_ascii, "{name} {version}");
            }
        }
        assert_eq!(of(true).hash(6, b"a"), None);
    }
}
