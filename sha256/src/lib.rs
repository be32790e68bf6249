//! SHA-256 (FIPS 180-4) of two streams at once, on one core.
//!
//! The SHA instructions of a CPU have a latency of several cycles, and each needs what the one before it has made: one stream
//! leaves half of the unit unused. [`update_two`] goes on with two streams in turn, instruction by instruction. On AMD Zen 3 it
//! takes 1.1 times as long as one of them alone, and up to 1.4 times while another thread uses the same core. This is for what
//! has two hashes anyway: a layer its blob and its tar, a hash tree all its blocks.
//!
//! On x86-64 with the SHA extensions, which are looked for when the program runs. Elsewhere, and for what one stream has more
//! than the other, blocks are hashed one by one by [`sha2`].
//!
//! # Why there is `unsafe`
//! A function that is compiled for the SHA extensions may only be called on a CPU that has them, which the compiler cannot see.
//! There is one such call, in `two::compress`, behind the check. All else, loads and stores included, is safe code.

mod two;

use std::fmt;

use two::{BLOCK, Block};

/// Where the length of the message begins in the last block.
const LENGTH: usize = BLOCK - 8;
/// The state before the first block: section 5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The hash of a stream.
#[derive(Clone)]
pub struct Sha256 {
    state: [u32; 8],
    /// The bytes behind the last complete block.
    rest: Block,
    length: u64,
}

impl Sha256 {
    /// The hash of nothing yet.
    pub fn new() -> Self {
        Self { state: INITIAL, rest: [0; BLOCK], length: 0 }
    }

    /// Hashes the next bytes of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        let (blocks, rest) = self.complete(bytes).as_chunks();
        sha2::block_api::compress256(&mut self.state, blocks);
        self.keep(rest);
    }

    /// The digest of the stream.
    pub fn finish(mut self) -> [u8; 32] {
        let (blocks, count) = self.last_blocks();
        sha2::block_api::compress256(&mut self.state, &blocks[..count]);
        self.digest()
    }

    /// Counts the bytes, and hashes those that complete a block that is begun; what follows them.
    fn complete<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let filled = self.filled();
        self.length = self.length.wrapping_add(bytes.len() as u64);
        if filled == 0 {
            return bytes;
        }
        let (now, later) = bytes.split_at(bytes.len().min(BLOCK - filled));
        self.rest[filled..][..now.len()].copy_from_slice(now);
        if filled + now.len() == BLOCK {
            sha2::block_api::compress256(&mut self.state, &[self.rest]);
        }
        later
    }

    /// Keeps less than a block for later. Nothing else is kept, or nothing is added to it.
    fn keep(&mut self, bytes: &[u8]) {
        self.rest[..bytes.len()].copy_from_slice(bytes);
    }

    /// How many bytes are kept.
    fn filled(&self) -> usize {
        (self.length % BLOCK as u64) as usize
    }

    /// What is left, and the padding of section 5.1.1: one or two blocks.
    fn last_blocks(&self) -> ([Block; 2], usize) {
        let filled = self.filled();
        let mut blocks = [[0; BLOCK]; 2];
        blocks[0][..filled].copy_from_slice(&self.rest[..filled]);
        blocks[0][filled] = 0x80;
        let count = if filled < LENGTH { 1 } else { 2 };
        blocks[count - 1][LENGTH..].copy_from_slice(&self.length.wrapping_mul(8).to_be_bytes());
        (blocks, count)
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = [0; 32];
        for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        digest
    }
}

/// Hashes the next bytes of two streams. The bytes that both have are hashed together.
pub fn update_two([one, two]: [&mut Sha256; 2], bytes: [&[u8]; 2]) {
    let ((blocks_of_one, rest_of_one), (blocks_of_two, rest_of_two)) =
        (one.complete(bytes[0]).as_chunks(), two.complete(bytes[1]).as_chunks());
    compress_two([&mut one.state, &mut two.state], [blocks_of_one, blocks_of_two]);
    one.keep(rest_of_one);
    two.keep(rest_of_two);
}

/// The digests of two streams.
pub fn finish_two(mut one: Sha256, mut two: Sha256) -> [[u8; 32]; 2] {
    let ((blocks_of_one, count_of_one), (blocks_of_two, count_of_two)) =
        (one.last_blocks(), two.last_blocks());
    let blocks = [&blocks_of_one[..count_of_one], &blocks_of_two[..count_of_two]];
    compress_two([&mut one.state, &mut two.state], blocks);
    [one.digest(), two.digest()]
}

/// Takes the blocks that both have together, and the others alone.
fn compress_two([one, two]: [&mut [u32; 8]; 2], blocks: [&[Block]; 2]) {
    let both = blocks[0].len().min(blocks[1].len());
    let ([now_of_one, now_of_two], later) = (blocks.map(|of| &of[..both]), blocks.map(|of| &of[both..]));
    if !two::compress([&mut *one, &mut *two], [now_of_one, now_of_two]) {
        sha2::block_api::compress256(one, now_of_one);
        sha2::block_api::compress256(two, now_of_two);
    }
    sha2::block_api::compress256(one, later[0]);
    sha2::block_api::compress256(two, later[1]);
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sha256").field("length", &self.length).finish_non_exhaustive()
    }
}
