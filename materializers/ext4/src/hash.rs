//! The hash by which ext4 finds a name in a large directory: half of MD4, over the name's bytes as signed characters
//! (`directory.rst`, "Hash Tree Directories").

/// What no name hashes to: the end of a directory, shifted past the bit that marks a continued hash.
const END: u32 = 0x7fff_ffff << 1;
const K2: u32 = 0x5a82_7999;
const K3: u32 = 0x6ed9_eba1;

/// A name's hash and its minor hash: names stand in the order of both.
pub(crate) fn half_md4(name: &[u8], seed: &[u8; 16]) -> (u32, u32) {
    let mut state = [0; 4];
    for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    let mut rest = name;
    while !rest.is_empty() {
        transform(&mut state, &words(rest));
        rest = rest.get(32..).unwrap_or_default();
    }
    let hash = state[1] & !1;
    (if hash == END { END - 2 } else { hash }, state[2])
}

/// The next 32 bytes of a name as eight big-endian words, padded with the length of what is left.
fn words(rest: &[u8]) -> [u32; 8] {
    let length = rest.len() as u32;
    let pad = (length | length << 8) * 0x1_0001;
    let mut words = [pad; 8];
    for (word, bytes) in words.iter_mut().zip(rest.chunks(4)) {
        *word = bytes
            .iter()
            .fold(pad, |word, byte| i32::from(byte.cast_signed()).cast_unsigned().wrapping_add(word << 8));
    }
    words
}

/// Three rounds of eight steps, where MD4 has sixteen (RFC 1320, 3.4).
fn transform(state: &mut [u32; 4], words: &[u32; 8]) {
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
    use super::half_md4;
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
}
