//! Inputs that are nearly right.

/// Numbers that follow from a seed (`SplitMix64`, Steele 2014).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`, which is 0 for no numbers at all.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % (end as u64).max(1)) as usize
    }

    pub(super) fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Values at which sizes, counts and offsets change their meaning.
const VALUES: [u64; 18] = [
    0,
    1,
    2,
    3,
    7,
    8,
    0x7f,
    0x80,
    0xff,
    0x100,
    0xfff,
    0x1000,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// Changes a few places of an input. Half of them are in `hot`, where its structures are.
pub(super) fn mutate(bytes: &mut Vec<u8>, hot: &[std::ops::Range<usize>], random: &mut Random) {
    for _ in 0..=random.below(6) {
        if bytes.is_empty() {
            return;
        }
        let at = if hot.is_empty() || random.below(2) == 0 {
            random.below(bytes.len())
        } else {
            let range = random.one_of(hot).clone();
            (range.start + random.below(range.len())).min(bytes.len() - 1)
        };
        change(bytes, at, random);
    }
}

fn change(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let left = bytes.len() - at;
    match random.below(24) {
        0..=4 => bytes[at] ^= 1 << random.below(8),
        5..=7 => bytes[at] = random.next() as u8,
        8..=9 => bytes[at] = bytes[at].wrapping_add(1),
        10 => bytes[at] = bytes[at].wrapping_sub(1),
        11..=17 => {
            let width = *random.one_of(&[2, 4, 4, 8]);
            // Numbers stand at multiples of their width.
            let (at, value) = (at / width * width, *random.one_of(&VALUES));
            let count = width.min(bytes.len() - at);
            bytes[at..at + count].copy_from_slice(&value.to_le_bytes()[..count]);
        }
        18..=19 => {
            // A number that stands elsewhere.
            let (from, count) = (random.below(bytes.len()), 1 + random.below(16));
            let count = count.min(left).min(bytes.len() - from);
            bytes.copy_within(from..from + count, at);
        }
        20 => {
            let count = (1 + random.below(64)).min(left);
            bytes[at..at + count].fill(*random.one_of(&[0, 0xff]));
        }
        21 => {
            let count = (1 + random.below(32)).min(left);
            bytes.drain(at..at + count);
        }
        22 => {
            let count = (1 + random.below(32)).min(left);
            let again = bytes[at..at + count].to_vec();
            bytes.splice(at..at, again);
        }
        _ if random.below(4) == 0 => bytes.truncate(at),
        _ => {
            let last = bytes.len() - 1;
            bytes.swap(at, last);
        }
    }
}
