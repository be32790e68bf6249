//! A finished LZ4 block made shorter, without compressing anew.
//!
//! A block is a series of sequences (lz4 `doc/lz4_Block_format.md`): a token, literals, and a match, whose lengths are
//! in the token's halves and go on behind it when they are 15 or more. The last sequence has literals alone.

/// No match is shorter than this.
const MATCH_MIN: usize = 4;
/// The last match starts at least so many bytes before the end of what is compressed.
const MATCH_LAST: usize = 12;
/// A length of so many goes on in further bytes.
const LONG: usize = 15;

/// Where a block can end sooner.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Cut {
    /// Bytes of the block that stay, and what they hold of the source.
    kept: usize,
    held: usize,
    /// What follows of the source as it is.
    literals: usize,
}

impl Cut {
    /// The longest start of a block for all of a source of `length` bytes that takes at most `size` bytes with the literals
    /// that end it. `None` where there is none.
    pub(crate) fn new(block: &[u8], length: usize, size: usize) -> Option<Self> {
        let (mut at, mut held) = (0, 0);
        let mut last = None;
        while at + 1 + MATCH_LAST <= size {
            last = Some((at, held));
            let token = usize::from(*block.get(at)?);
            at += 1;
            let literals = long(token >> 4, block, &mut at)?;
            at += literals;
            held += literals;
            if at >= block.len() {
                break;
            }
            // The distance of the match.
            at += 2;
            held += MATCH_MIN + long(token & LONG, block, &mut at)?;
        }
        let (kept, held) = last?;
        let left = length.checked_sub(held)?;
        let literals = literals(size - kept).min(left);
        (literals == left || literals >= MATCH_LAST).then_some(Self { kept, held, literals })
    }

    /// Bytes of the source.
    pub(crate) fn read(self) -> usize {
        self.held + self.literals
    }

    /// Bytes of the block.
    pub(crate) fn wrote(self) -> usize {
        self.kept + size_of(self.literals)
    }

    /// Ends the block there.
    pub(crate) fn apply(self, source: &[u8], block: &mut [u8]) {
        let end = &mut block[self.kept..self.wrote()];
        let (lengths, literals) = end.split_at_mut(size_of(self.literals) - self.literals);
        literals.copy_from_slice(&source[self.held..self.read()]);
        lengths.fill(u8::MAX);
        lengths[0] = (self.literals.min(LONG) << 4) as u8;
        if let [_, .., last] = lengths {
            *last = ((self.literals - LONG) % 255) as u8;
        }
    }
}

/// The sequences of a block that have a match.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Matches {
    pub(crate) count: usize,
    /// Those without literals before them.
    pub(crate) adjacent: usize,
}

impl Matches {
    pub(crate) fn of(block: &[u8]) -> Self {
        let (mut at, mut matches) = (0, Self::default());
        let next = |at: &mut usize| {
            let token = usize::from(*block.get(*at)?);
            *at += 1;
            let literals = long(token >> 4, block, at)?;
            // They, and the distance of the match.
            *at += literals + 2;
            long(token & LONG, block, at).filter(|_| *at <= block.len())?;
            Some(literals)
        };
        while let Some(literals) = next(&mut at) {
            matches.count += 1;
            matches.adjacent += usize::from(literals == 0);
        }
        matches
    }
}

/// A length whose first part is in a token.
fn long(first: usize, block: &[u8], at: &mut usize) -> Option<usize> {
    let mut length = first;
    let mut more = first == LONG;
    while more {
        let byte = *block.get(*at)?;
        *at += 1;
        length += usize::from(byte);
        more = byte == u8::MAX;
    }
    Some(length)
}

/// The bytes of a sequence of so many literals without a match.
fn size_of(literals: usize) -> usize {
    1 + literals + literals.checked_sub(LONG).map_or(0, |beyond| beyond / 255 + 1)
}

/// The most literals of a sequence of at most so many bytes.
fn literals(size: usize) -> usize {
    let most = size - 1;
    match most.checked_sub(LONG + 1) {
        None => most.min(LONG - 1),
        // One further length for each 255 of them.
        Some(beyond) => LONG + beyond - (beyond + 1) / 256,
    }
}

#[cfg(test)]
mod tests {
    use super::{Cut, Matches, literals, size_of};

    #[test]
    fn as_many_literals_as_fit() {
        for size in 1..5000 {
            let most = literals(size);
            assert!(size_of(most) <= size && size_of(most + 1) > size, "{most} in {size}");
        }
    }

    /// Text with repetitions near and far, and noise.
    fn source(size: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut bytes = Vec::new();
        while bytes.len() < size {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let random = (state >> 33) as usize;
            match random % 7 {
                0 => bytes.extend((0..random % 400).map(|at| ((at * random) >> 3) as u8)),
                1 => bytes.extend(vec![7; random % 900]),
                _ => bytes.extend_from_slice(format!("line {} of text\n", random % 50).as_bytes()),
            }
        }
        bytes.truncate(size);
        bytes
    }

    #[test]
    fn what_is_cut_is_a_block_of_a_start_of_the_source() {
        for length in [100, 1000, 5000, 70_000] {
            let source = source(length);
            let mut whole = vec![0; length + 1000];
            let (read, wrote) = lzzzz::lz4::compress_fill(&source, &mut whole).unwrap();
            assert_eq!(read, length);
            for size in (13..wrote).step_by(wrote.div_ceil(300)) {
                let cut = Cut::new(&whole[..wrote], length, size).unwrap();
                assert!(cut.wrote() <= size, "{cut:?} in {size}");
                assert!(size - cut.wrote() <= 1 || cut.read() == length, "{cut:?} in {size}");
                let mut block = whole[..wrote].to_vec();
                cut.apply(&source, &mut block);
                let mut back = vec![0; cut.read()];
                let count = lzzzz::lz4::decompress(&block[..cut.wrote()], &mut back).unwrap();
                assert!(count == cut.read() && back == source[..count], "{cut:?} in {size}");
                // About as much as LZ4 gets into that size by itself, which shortens a match of up to 900 bytes.
                let (best, _) = lzzzz::lz4::compress_fill(&source, &mut vec![0; size]).unwrap();
                assert!(cut.read() + 1000 + best / 16 >= best, "{cut:?} in {size}, {best}");
            }
        }
    }

    #[test]
    fn matches_are_counted() {
        for (block, count, adjacent) in [
            (&b""[..], 0, 0),
            (b"\x50words", 0, 0),
            (b"\x10a\x01\x00\x50words", 1, 0),
            (b"\x1fa\x01\x00\xff\x03\x04\x02\x00\x50words", 2, 1),
            (b"\xf0\x00123456789012345\x01\x00\x50words", 1, 0),
            // No blocks.
            (b"\x10a\x01", 0, 0),
            (b"\x1fa\x01\x00\xff", 0, 0),
            (b"\xf0\xff", 0, 0),
        ] {
            assert_eq!(Matches::of(block), Matches { count, adjacent }, "{block:?}");
        }
        let source = source(70_000);
        let mut block = vec![0; 80_000];
        let (_, wrote) = lzzzz::lz4::compress_fill(&source, &mut block).unwrap();
        assert!((500..wrote / 3).contains(&Matches::of(&block[..wrote]).count));
    }

    #[test]
    fn what_is_no_block_has_no_cut() {
        assert_eq!(Cut::new(&[], 0, 100), None);
        assert_eq!(Cut::new(&[0xff; 50], 1000, 40), None);
        assert_eq!(Cut::new(&[0x10, 1, 2, 0], 3, 12), None);
        assert_eq!(Cut::new(&[0xf0, 255, 255], 100, 60), None);
        // More in the block than in the source.
        assert_eq!(Cut::new(&[0x1f, 1, 2, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0], 3, 20), None);
    }
}
