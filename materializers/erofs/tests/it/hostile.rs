//! Malformed images.

use std::fs;
use std::io::Cursor;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::tree::Kind;
use plyfold_core::{ErrorKind, Result};
use plyfold_erofs::{Compression, Options, Reader};

use crate::common::{compressed, flat, image, merged, rich_layer, text, varied_layer};

/// Reads all there is, at most 1 MiB of each file.
fn read_all(bytes: &[u8]) -> Result<usize> {
    let mut reader = Reader::new(Cursor::new(bytes))?;
    reader.root()?;
    let tree = reader.tree()?;
    let mut buffer = vec![0; 1 << 16];
    let mut names = 0;
    for (_, id) in tree.walk() {
        names += 1;
        if let Kind::File { size, content } = &tree.node(id).kind {
            let mut at = 0;
            while at < 1 << 20 {
                match reader.read(content, *size, at, &mut buffer)? {
                    0 => break,
                    count => at += count as u64,
                }
            }
        }
    }
    Ok(names)
}

/// Makes the superblock's checksum right, so that the fault behind it is reached.
fn sum(bytes: &mut [u8]) {
    let end = if bytes[1024 + 12] == 12 { 4096 } else { 1024 + 512 };
    bytes[1028..1032].fill(0);
    let sum = !crc32c::crc32c(&bytes[1024..end]);
    bytes[1028..1032].copy_from_slice(&sum.to_le_bytes());
}

fn samples() -> Vec<Vec<u8>> {
    let layer = |size| image(rich_layer(), Options::default().with_block_size(size).unwrap()).unwrap();
    let merged = merged(&[layer(4096)], Options::default()).unwrap();
    let paths = [layer(4096), layer(512), merged, flat(&[rich_layer()], Options::default()).unwrap()];
    paths.map(|path| fs::read(path).unwrap()).to_vec()
}

/// Of this crate and of mkfs.erofs.
fn compressed_samples() -> Vec<Vec<u8>> {
    let own = [("lz4", 4096), ("lz4", 65_536), ("zstd,1", 65_536)].map(|(algorithm, cluster)| {
        let compression = Compression::new(algorithm.parse().unwrap()).unwrap();
        fs::read(compressed(&[varied_layer()], compression.with_cluster(cluster).unwrap()).unwrap()).unwrap()
    });
    own.into_iter().chain(crate::mkfs::samples().into_values()).collect()
}

/// Where the header and the indexes of compressed inodes stand.
fn indexes(sample: &[u8]) -> Vec<usize> {
    let number = |at: usize| usize::from(u16::from_le_bytes([sample[at], sample[at + 1]]));
    let metadata = 4096 * number(1024 + 40);
    let inodes = (metadata..sample.len() - 64).step_by(32).filter(|at| {
        // Layout 1 or 3, regular file.
        matches!(number(*at) & !1, 2 | 6) && number(at + 4) & 0o170_000 == 0o100_000
    });
    inodes.map(|at| at + if number(at) & 1 == 0 { 32 } else { 64 }).collect()
}

#[test]
fn damaged_compressed_images_give_errors_or_other_bytes_and_never_panic() {
    let mut state = 7_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let (mut refused, mut rounds) = (0, 0);
    for sample in compressed_samples() {
        let places = indexes(&sample);
        for round in 0..32 {
            let mut bytes = sample.clone();
            for _ in 0..=random(3) {
                let at = match round % 4 {
                    // Indexes in a metabox are compressed themselves.
                    0..=2 if places.is_empty() => 1024 + random(bytes.len() - 1024),
                    // The header and the first indexes.
                    0 => places[random(places.len())] + random(24),
                    1 => places[random(places.len())] + random(200),
                    // The inode itself.
                    2 => places[random(places.len())] - 1 - random(32),
                    _ => 4096 + random(bytes.len() - 4096),
                };
                let Some(byte) = bytes.get_mut(at) else { continue };
                *byte = [0, 0xff, 1, 0x80, *byte ^ 1, byte.wrapping_add(1), *byte ^ 0x20][random(7)];
            }
            sum(&mut bytes);
            rounds += 1;
            refused += usize::from(read_all(&bytes).is_err());
        }
    }
    assert!(refused > rounds / 8, "only {refused} of {rounds} were refused");
}

/// The indexes of an extent refer over that of another one, behind whose start the wanted byte lies.
#[test]
fn an_extent_that_ends_before_the_wanted_byte_is_refused() {
    let mut bytes = crate::mkfs::samples().remove("directories").unwrap();
    bytes[4297..4300].fill(0);
    assert_eq!(read_all(&bytes).unwrap_err().kind(), &ErrorKind::Corrupt);
}

/// What the indexes say cannot make the reader hold more than the largest extent, or run for long.
#[test]
fn a_file_that_claims_more_than_its_image_is_refused() {
    let compression = Compression::new("lz4".parse().unwrap()).unwrap();
    let layer = LayerBuilder::new().file("f", 0o644, &text(100_000, 1)).finish();
    let sample = fs::read(compressed(&[layer], compression).unwrap()).unwrap();
    let place = indexes(&sample)[0];
    // The size in an extended inode is at byte 8.
    let size = place - 64 + 8;
    assert_eq!(sample[size..size + 4], 100_000_u32.to_le_bytes());
    for claimed in [1 << 40, u64::MAX, u64::MAX - 4096, 100_000 * 4096] {
        let mut bytes = sample.clone();
        bytes[size..size + 8].copy_from_slice(&claimed.to_le_bytes());
        assert_eq!(read_all(&bytes).unwrap_err().kind(), &ErrorKind::Corrupt, "{claimed}");
    }
}

#[test]
fn damaged_images_give_errors_or_other_trees_and_never_panic() {
    // A linear congruential generator: the same damage every time.
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut refused = 0;
    for sample in samples() {
        let block = 1 << sample[1024 + 12];
        let metadata = block * u32::from_le_bytes(sample[1024 + 40..][..4].try_into().unwrap()) as usize;
        for round in 0..400 {
            let mut bytes = sample.clone();
            for _ in 0..=random(4) {
                let at = match round % 4 {
                    0 => 1024 + random(256),
                    // The root and the inodes next to it.
                    1 => metadata + 32 + random(1024),
                    _ => metadata + random(bytes.len() - metadata),
                };
                bytes[at] = [0, 0xff, 1, 0x80, bytes[at] ^ 1, bytes[at].wrapping_add(1)][random(6)];
            }
            sum(&mut bytes);
            refused += usize::from(read_all(&bytes).is_err());
        }
    }
    assert!(refused > 100, "only {refused} were refused");
}

#[test]
fn truncated_images_are_corrupt() {
    let sample = &samples()[0];
    for length in [0, 1, 1023, 1024, 1151, 4095, 4096, sample.len() / 2, sample.len() - 1] {
        assert_eq!(read_all(&sample[..length]).unwrap_err().kind(), &ErrorKind::Corrupt, "{length}");
    }
}

#[test]
fn each_lie_of_the_superblock_has_its_kind() {
    let sample = &samples()[0];
    let lies: [(&[(usize, u8)], ErrorKind); 14] = [
        (&[(0, 0)], ErrorKind::Corrupt),
        (&[(12, 63)], ErrorKind::Unsupported),
        (&[(12, 8)], ErrorKind::Unsupported),
        (&[(14, 0xff)], ErrorKind::Corrupt),
        (&[(39, 0x7f)], ErrorKind::Corrupt),
        (&[(43, 0x7f)], ErrorKind::Corrupt),
        (&[(81, 2)], ErrorKind::Unsupported),
        (&[(87, 0xff)], ErrorKind::Corrupt),
        // Directories in larger blocks.
        (&[(90, 1)], ErrorKind::Unsupported),
        // Prefixes of xattr names that are not there.
        (&[(80, 0x40), (91, 1)], ErrorKind::Corrupt),
        // A root of 64 bits, with and without the upper part of the number of blocks.
        (&[(80, 0x80), (112, 0xff), (14, 0)], ErrorKind::Corrupt),
        (&[(80, 0x80), (112, 1), (14, 1)], ErrorKind::Corrupt),
        // A metabox without a number, and one that is in itself.
        (&[(81, 1)], ErrorKind::Corrupt),
        (&[(81, 1), (13, 1), (128 + 7, 0x80)], ErrorKind::Corrupt),
    ];
    for (changes, kind) in lies {
        let mut bytes = sample.clone();
        for (at, value) in changes {
            bytes[1024 + at] = *value;
        }
        sum(&mut bytes);
        assert_eq!(read_all(&bytes).unwrap_err().kind(), &kind, "{changes:?}");
    }
}

/// Linux reads it, too.
#[test]
fn an_image_without_a_checksum_is_read() {
    let mut bytes = samples().swap_remove(0);
    let names = read_all(&bytes).unwrap();
    bytes[1024 + 8] = 0;
    bytes[1028..1032].fill(0);
    assert_eq!(read_all(&bytes).unwrap(), names);
}

#[test]
fn a_directory_that_contains_itself_is_corrupt() {
    let layer = LayerBuilder::new().dir("d", 0o755).finish();
    let mut bytes = fs::read(image(layer, Options::default()).unwrap()).unwrap();
    assert_eq!(read_all(&bytes).unwrap(), 2);
    // The root's three entries: ".", "..", "d". The last becomes a name of the root itself.
    let name = bytes.windows(4).rposition(|window| window == b"...d").unwrap();
    let entries = name - 36;
    let root = bytes[entries..entries + 8].to_vec();
    bytes[entries + 24..entries + 32].copy_from_slice(&root);
    assert_eq!(read_all(&bytes).unwrap_err().kind(), &ErrorKind::Corrupt);
}
