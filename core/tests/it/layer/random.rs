//! Random and damaged layers: they end, and never panic.

use plyfold_core::layer::{LayerLimits, LayerOptions};
use proptest::collection::vec;
use proptest::prelude::*;

use super::archive::{Archive, Header, gzip, read_with};

/// A tar with every extension, so that damage hits all of them.
fn specimen() -> Vec<u8> {
    let mut sparse = Header::new("old", b'S', 3);
    sparse.put(345, &[0; 155]).put(386, b"00000010000\x0000000000003\0").put(483, b"00000023420\0");
    let version: [(&str, &[u8]); 3] =
        [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"100")];
    let mut map = b"1\n5\n2\n".to_vec();
    map.resize(514, 0);
    Archive::default()
        .header(Header::new("d/", b'5', 0))
        .extension(b'g', b"8 gid=9\n")
        .pax(&[("path", b"d/f"), ("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b")])
        .file("f", b"data")
        .extension(b'L', &[b'n'; 150])
        .extension(b'K', &[b'l'; 150])
        .header(Header::link("l", b'2', "t"))
        .header(sparse)
        .data(b"abc")
        .pax(&version)
        .file("new", &map)
        .end()
}

fn read(bytes: &[u8]) {
    let limits = LayerLimits { uncompressed: 8 << 20, ..LayerLimits::default() };
    // Any answer will do.
    let _ = read_with(bytes, LayerOptions { limits, ..LayerOptions::default() });
}

/// Damages bytes, then makes the checksums of all blocks right again, so that the damage is looked at.
fn damaged(mut bytes: Vec<u8>, damage: &[(usize, u8)], heal: bool) -> Vec<u8> {
    let length = bytes.len();
    for (at, value) in damage {
        bytes[at % length] = *value;
    }
    for block in bytes.chunks_exact_mut(512).filter(|block| heal && block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    bytes
}

#[test]
fn the_specimen_is_good() {
    assert_eq!(read_with(&specimen(), LayerOptions::default()).unwrap().0.len(), 5);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(bytes in vec(any::<u8>(), 0..3000), magic in 0..4_usize) {
        let magic: &[u8] = [&b""[..], &[0x1f, 0x8b, 8, 0], &[0x28, 0xb5, 0x2f, 0xfd], &[0x50, 0x2a, 0x4d, 0x18]][magic];
        read(&[magic, &bytes].concat());
    }

    #[test]
    fn damaged_tars(damage in vec((any::<usize>(), any::<u8>()), 1..8), cut in 0..20_usize, heal: bool) {
        let mut bytes = damaged(specimen(), &damage, heal);
        bytes.truncate(bytes.len() - cut * 97);
        read(&bytes);
    }

    #[test]
    fn damaged_compression(damage in vec((any::<usize>(), any::<u8>()), 1..4), zstd: bool) {
        let bytes = if zstd { zstd::encode_all(specimen().as_slice(), 1).unwrap() } else { gzip(&specimen()) };
        read(&damaged(bytes, &damage, false));
    }
}
