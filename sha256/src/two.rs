//! Blocks of two streams, by the SHA extensions of x86-64.

/// Bytes of a block.
pub(crate) const BLOCK: usize = 64;

pub(crate) type Block = [u8; BLOCK];

/// Hashes the blocks of two streams, of which both have as many; `false`, and nothing is done, where the CPU cannot.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn compress(_: [&mut [u32; 8]; 2], _: [&[Block]; 2]) -> bool {
    false
}

/// Hashes the blocks of two streams, of which both have as many; `false`, and nothing is done, where the CPU cannot.
#[cfg(target_arch = "x86_64")]
pub(crate) fn compress(states: [&mut [u32; 8]; 2], blocks: [&[Block]; 2]) -> bool {
    if !(is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("sse2")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1"))
    {
        return false;
    }
    #[expect(unsafe_code, reason = "the features that the function is compiled for were just found")]
    // SAFETY: the CPU has every feature of `x86_64::compress`.
    unsafe {
        x86_64::compress(states, blocks);
    }
    true
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_cvtsi128_si64, _mm_extract_epi64, _mm_set_epi32,
        _mm_set_epi64x, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
        _mm_shuffle_epi32,
    };

    use super::Block;

    /// The constants of the rounds, four at a time: section 4.2.2.
    const K: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
        [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
        [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
        [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
        [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
        [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
        [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
        [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
        [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];

    /// Which words of the state the instructions have together: f, e, b, a and h, g, d, c, the first in the lowest place.
    const ABEF: [usize; 4] = [5, 4, 1, 0];
    const CDGH: [usize; 4] = [7, 6, 3, 2];

    #[derive(Clone, Copy)]
    struct State {
        abef: __m128i,
        cdgh: __m128i,
    }

    /// The two are interleaved, so that the instructions of one fill the latency of the other.
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    pub(super) fn compress(states: [&mut [u32; 8]; 2], blocks: [&[Block]; 2]) {
        let [one, two] = states;
        let (mut a, mut b) = (load_state(one), load_state(two));
        for (block_of_one, block_of_two) in blocks[0].iter().zip(blocks[1]) {
            let (before_a, before_b) = (a, b);
            let (mut words_a, mut words_b) = (load_block(block_of_one), load_block(block_of_two));
            let (first, later) = K.split_at(4);
            for ((k, of_a), of_b) in first.iter().zip(words_a).zip(words_b) {
                (a, b) = rounds(a, b, of_a, of_b, *k);
            }
            for k in later {
                (words_a, words_b) = (schedule(words_a), schedule(words_b));
                (a, b) = rounds(a, b, words_a[3], words_b[3], *k);
            }
            (a, b) = (sum(a, before_a), sum(b, before_b));
        }
        store_state(a, one);
        store_state(b, two);
    }

    /// Four rounds of each: section 6.2.2, step 3.
    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn rounds(mut a: State, mut b: State, words_a: __m128i, words_b: __m128i, k: [u32; 4]) -> (State, State) {
        let k = words(k);
        let (wk_a, wk_b) = (_mm_add_epi32(words_a, k), _mm_add_epi32(words_b, k));
        a.cdgh = _mm_sha256rnds2_epu32(a.cdgh, a.abef, wk_a);
        b.cdgh = _mm_sha256rnds2_epu32(b.cdgh, b.abef, wk_b);
        a.abef = _mm_sha256rnds2_epu32(a.abef, a.cdgh, _mm_shuffle_epi32(wk_a, 0b00_00_11_10));
        b.abef = _mm_sha256rnds2_epu32(b.abef, b.cdgh, _mm_shuffle_epi32(wk_b, 0b00_00_11_10));
        (a, b)
    }

    /// The last 16 words of the message schedule, four further: section 6.2.2, step 1.
    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn schedule([w0, w1, w2, w3]: [__m128i; 4]) -> [__m128i; 4] {
        let partial = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4));
        [w1, w2, w3, _mm_sha256msg2_epu32(partial, w3)]
    }

    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn sum(a: State, b: State) -> State {
        State { abef: _mm_add_epi32(a.abef, b.abef), cdgh: _mm_add_epi32(a.cdgh, b.cdgh) }
    }

    /// The words of a block, which are big-endian.
    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn load_block(block: &Block) -> [__m128i; 4] {
        let order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let (quarters, _) = block.as_chunks::<16>();
        [0, 1, 2, 3].map(|at| {
            let (halves, _) = quarters[at].as_chunks();
            let word = _mm_set_epi64x(i64::from_le_bytes(halves[1]), i64::from_le_bytes(halves[0]));
            _mm_shuffle_epi8(word, order)
        })
    }

    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn load_state(state: &[u32; 8]) -> State {
        let of = |from: [usize; 4]| words(from.map(|at| state[at]));
        State { abef: of(ABEF), cdgh: of(CDGH) }
    }

    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn store_state(state: State, to: &mut [u32; 8]) {
        for (from, places) in [(state.abef, ABEF), (state.cdgh, CDGH)] {
            for (word, at) in unpacked(from).into_iter().zip(places) {
                to[at] = word;
            }
        }
    }

    /// Four words, the first in the lowest.
    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn words(four: [u32; 4]) -> __m128i {
        let [w0, w1, w2, w3] = four.map(u32::cast_signed);
        _mm_set_epi32(w3, w2, w1, w0)
    }

    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn unpacked(four: __m128i) -> [u32; 4] {
        let halves = [_mm_cvtsi128_si64(four), _mm_extract_epi64::<1>(four)].map(i64::cast_unsigned);
        let [low, high] = halves.map(|half| [half as u32, (half >> 32) as u32]);
        [low[0], low[1], high[0], high[1]]
    }
}
