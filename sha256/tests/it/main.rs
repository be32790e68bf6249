//! The digests are those of `sha2`.

use plyfold_sha256::{Sha256, finish_two, update_two};
use proptest::collection::vec;
use proptest::prelude::*;
use sha2::Digest as _;

/// The bytes of a stream, and where its parts end.
fn stream() -> impl Strategy<Value = (Vec<u8>, Vec<prop::sample::Index>)> {
    (vec(any::<u8>(), 0..1000), vec(any::<prop::sample::Index>(), 0..6))
}

/// The stream in so many parts: some may be empty.
fn parts<'a>(bytes: &'a [u8], ends: &[prop::sample::Index], count: usize) -> Vec<&'a [u8]> {
    let mut ends: Vec<_> = ends.iter().map(|end| end.index(bytes.len() + 1)).collect();
    ends.sort_unstable();
    ends.resize(count - 1, bytes.len());
    let mut at = 0;
    ends.push(bytes.len());
    ends.into_iter().map(|end| &bytes[std::mem::replace(&mut at, end)..end]).collect()
}

fn expected(bytes: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(bytes).into()
}

proptest! {
    #[test]
    fn one_stream_has_its_digest((bytes, ends) in stream()) {
        let mut hash = Sha256::new();
        for part in parts(&bytes, &ends, 7) {
            hash.update(part);
        }
        prop_assert_eq!(hash.finish(), expected(&bytes));
    }

    /// Whatever one stream has more than the other, and wherever their blocks begin.
    #[test]
    fn two_streams_have_their_digests((one, ends_of_one) in stream(), (two, ends_of_two) in stream()) {
        let (mut hash_of_one, mut hash_of_two) = (Sha256::new(), Sha256::new());
        for (part, other) in parts(&one, &ends_of_one, 7).into_iter().zip(parts(&two, &ends_of_two, 7)) {
            update_two([&mut hash_of_one, &mut hash_of_two], [part, other]);
        }
        prop_assert_eq!(finish_two(hash_of_one, hash_of_two), [expected(&one), expected(&two)]);
    }
}

#[test]
fn every_length_is_padded() {
    let bytes: Vec<u8> = (0..=255).collect();
    for length in 0..bytes.len() {
        let mut hashes = [Sha256::new(), Sha256::new()];
        let (one, two) = (&bytes[..length], &bytes[length..]);
        let [first, second] = &mut hashes;
        update_two([first, second], [one, two]);
        let [first, second] = hashes;
        assert_eq!(first.clone().finish(), expected(one), "{length}");
        assert_eq!(finish_two(first, second), [expected(one), expected(two)], "{length}");
    }
}

/// FIPS 180-2, appendix B.1 and B.3.
#[test]
fn the_examples_of_the_standard() {
    let number =
        |digest: [u8; 32]| digest.as_chunks().0.iter().copied().map(u64::from_be_bytes).collect::<Vec<_>>();
    let (mut abc, mut million) = (Sha256::new(), Sha256::new());
    abc.update(b"abc");
    for _ in 0..1000 {
        million.update(&[b'a'; 1000]);
    }
    let [abc, million] = finish_two(abc, million).map(number);
    assert_eq!(
        abc,
        [0xba78_16bf_8f01_cfea, 0x4141_40de_5dae_2223, 0xb003_61a3_9617_7a9c, 0xb410_ff61_f200_15ad]
    );
    assert_eq!(
        million,
        [0xcdc7_6e5c_9914_fb92, 0x81a1_c7e2_84d7_3e67, 0xf180_9a48_a497_200e, 0x046d_39cc_c711_2cd0]
    );
}
