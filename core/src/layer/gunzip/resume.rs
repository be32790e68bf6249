//! Deflate data from any bit on, by a decoder that begins with a byte.
//!
//! A block may begin at any bit of a byte. The decoder is then given blocks that have no content, whose bits end just
//! before that one: of 10 bits with fixed codes (RFC 1951 section 3.2.6), and of 93 bits with codes of its own
//! (section 3.2.7), as there is no other way to an odd number.

/// The bytes before the one behind `byte`: empty blocks, and the bits of `byte` from `bit` on. `bit` is 1 to 7.
pub(in crate::layer) fn prefix(bit: u8, byte: u8) -> Vec<u8> {
    let (odd, fixed) = match bit {
        1 => (true, 2),
        2 => (false, 1),
        3 => (true, 3),
        4 => (false, 2),
        5 => (true, 0),
        6 => (false, 3),
        7 => (true, 1),
        _ => (false, 0),
    };
    let mut bits = Bits::default();
    if odd {
        bits.dynamic();
    }
    for _ in 0..fixed {
        bits.fixed();
    }
    debug_assert_eq!(bits.count % 8, usize::from(bit % 8), "the number of bits of the blocks");
    if let Some(last) = bits.bytes.last_mut() {
        *last |= byte & (0xff << bit);
    }
    bits.bytes
}

/// Bits as deflate has them: the lowest of a byte comes first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    count: usize,
}

impl Bits {
    /// A number, its lowest bit first (RFC 1951 section 3.1.1).
    fn put(&mut self, value: u32, bits: usize) {
        for at in 0..bits {
            if self.count.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> at & 1) as u8) << (self.count % 8);
            }
            self.count += 1;
        }
    }

    /// An empty block with fixed codes, not the last one: 3 bits, and the end of the block, 7 zeros.
    fn fixed(&mut self) {
        self.put(0b01 << 1, 3);
        self.put(0, 7);
    }

    /// An empty block with codes of its own, not the last one. Its only literal is the end of the block, with a code of one
    /// bit; it has no distances.
    fn dynamic(&mut self) {
        self.put(0b10 << 1, 3);
        // 257 literals, 1 distance, 18 lengths of the code of the lengths.
        self.put(0, 5);
        self.put(0, 5);
        self.put(14, 4);
        // In the order 16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1.
        for length in [0, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] {
            self.put(length, 3);
        }
        // By their lengths the codes are 1: `0`, 0: `10`, 18: `11`; codes come with their highest bit first.
        // 138 and 118 lengths of zero, one for each literal before the end of the block.
        self.put(0b11, 2);
        self.put(138 - 11, 7);
        self.put(0b11, 2);
        self.put(118 - 11, 7);
        // The end of the block has one bit.
        self.put(0b0, 1);
        // The distance has none.
        self.put(0b01, 2);
        self.put(0, 1);
    }
}

#[cfg(test)]
mod tests {
    use zlib_rs::{Inflate, InflateFlush, Status};

    use super::*;

    #[test]
    fn a_block_is_decoded_from_every_bit_of_a_byte() {
        // A last block with fixed codes: the literals 97 and 98, and the end of the block.
        let block = |at: usize| {
            let mut bits = Bits::default();
            bits.put(0, at);
            bits.put(0b01 << 1 | 1, 3);
            for literal in [0x30 + 97_u32, 0x30 + 98] {
                bits.put(literal.reverse_bits() >> 24, 8);
            }
            bits.put(0, 7);
            // What comes before it in its first byte is not zero.
            bits.bytes[0] |= ((1_u16 << at) - 1) as u8;
            bits.bytes
        };
        for bit in 1..8 {
            let data = block(usize::from(bit));
            let mut input = prefix(bit, data[0]);
            input.extend(&data[1..]);
            let (mut inflate, mut output) = (Inflate::new(false, 15), [0; 16]);
            let status = inflate.decompress(&input, &mut output, InflateFlush::NoFlush);
            assert_eq!((status, inflate.total_out()), (Ok(Status::StreamEnd), 2), "bit {bit}");
            assert_eq!(&output[..2], b"ab", "bit {bit}");
        }
    }
}
