//! A whole image in one file.

use std::fs;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::ErrorKind;
use plyfold_core::digest::sha256;
use plyfold_core::layer::Timestamp;
use plyfold_core::tree::{Kind, NodeId};
use plyfold_erofs::{Options, Reader};

use crate::common::{flat, image, merged, rich_layer};
use crate::listing;

const BLOCK_SIZES: [u32; 4] = [512, 1024, 2048, 4096];

fn of_blocks(bytes: u32) -> Options {
    Options::default().with_block_size(bytes).unwrap()
}

fn feature_incompat(image: &[u8]) -> u32 {
    u32::from_le_bytes(image[1024 + 80..][..4].try_into().unwrap())
}

/// Bytes that repeat at no block.
fn pattern(size: usize, seed: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 7 + at / 251 + seed) as u8 | 1).collect()
}

/// An upper layer that changes the rich one.
fn change() -> Vec<u8> {
    LayerBuilder::new()
        .dir("./", 0o700)
        .whiteout("many")
        .whiteout("tmp/one-more")
        .dir("etc", 0o750)
        .file("etc/hostname", 0o644, b"flat\n")
        .hard_link("etc/group", "etc/passwd")
        .opaque("order")
        .dir("order", 0o755)
        .file("order/new", 0o600, &pattern(9000, 3))
        .finish()
}

#[test]
fn same_input_same_bytes() {
    let digest =
        |options: Options| sha256(&fs::read(flat(&[rich_layer(), change()], options).unwrap()).unwrap());
    assert_eq!(digest(Options::default()), digest(Options::default()));
    // Pinned: another digest means other images for the same layers, so `Format::version` goes up.
    for (block_size, pinned) in [
        (4096, "617f97ed145f3718eb15886d44edbef9c26698d4803f6d602950caa9dce9a975"),
        (1024, "17b00967e8839be5b0e8fdc0dae90df03cda529bfc0528e7711c0c2383b1ff83"),
        (512, "5e52ffa2888e53f53785bd48af698771914db79d77ac20bb42cd2afe91a5863f"),
    ] {
        assert_eq!(digest(of_blocks(block_size)).digest(), pinned, "{block_size}");
    }
}

#[test]
fn every_option_changes_the_bytes() {
    let images = [
        Options::default(),
        of_blocks(512),
        Options::default().with_label("label").unwrap(),
        Options::default().with_mtime(Timestamp { seconds: 5, nanos: 6 }),
        Options::default().with_uuid([7; 16]),
    ];
    let digests =
        images.map(|options| sha256(&fs::read(flat(&[rich_layer()], options).unwrap()).unwrap()).to_string());
    assert_eq!(std::collections::BTreeSet::from(digests).len(), 5);
}

#[test]
fn it_holds_what_the_merged_image_of_the_layers_holds() {
    for block_size in BLOCK_SIZES {
        let options = of_blocks(block_size);
        let one = listing(&flat(&[rich_layer()], options.clone()).unwrap());
        assert_eq!(one, listing(&image(rich_layer(), options.clone()).unwrap()));
        let layers = [rich_layer(), change()];
        let found = listing(&flat(&layers, options.clone()).unwrap());
        assert_eq!(found.iter().filter(|line| line.contains("/many")).count(), 0);
        assert!(
            found.iter().any(|line| line.starts_with("/etc/group f\"root:x:0:0::/:/bin/sh\\n\" 644 0:0 x3"))
        );
        // The merged image has its data on the layers: one after the other they are one disk.
        let parts = layers.map(|tar| image(tar, options.clone()).unwrap());
        let mut disk = fs::read(merged(&parts, options).unwrap()).unwrap();
        for part in &parts {
            disk.extend(fs::read(part).unwrap());
        }
        let place = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        fs::write(&place, disk).unwrap();
        assert_eq!(found, listing(&place));
    }
}

#[test]
fn files_of_any_size_read_back() {
    for block_size in BLOCK_SIZES {
        let block = block_size as usize;
        let edges = [1, 31, 32, 33, block - 65, block - 64, block - 63, block - 33, block - 32, block - 31];
        let sizes: Vec<usize> = [0, 1, 2, 5, 300]
            .into_iter()
            .flat_map(|blocks| edges.into_iter().chain([0]).map(move |edge| blocks * block + edge))
            .collect();
        let mut layer = LayerBuilder::new();
        for (number, size) in sizes.iter().enumerate() {
            if number % 3 == 0 {
                layer = layer.xattr("user.number", number.to_string().repeat(number));
            }
            layer = layer.file(format!("{number:03}"), 0o644, &pattern(*size, number));
        }
        let path = flat(&[layer.finish()], of_blocks(block_size)).unwrap();
        let mut reader = Reader::new(fs::File::open(&path).unwrap()).unwrap();
        let tree = reader.tree().unwrap();
        for (number, size) in sizes.iter().enumerate() {
            let id = tree.child(NodeId::ROOT, format!("{number:03}").as_bytes()).unwrap();
            let Kind::File { size: found, content } = &tree.node(id).kind else { panic!("no file") };
            assert_eq!(*found, *size as u64);
            let data = crate::data(&mut reader, content, *found);
            assert!(data == pattern(*size, number), "{size} bytes in blocks of {block_size}");
        }
    }
}

#[test]
fn small_files_are_dense_and_need_no_feature() {
    let (mut layer, mut bytes) = (LayerBuilder::new(), 0);
    for number in 0..3_000_usize {
        let size = number * 37 % 3_800 + 1;
        bytes += size + 32 + 16;
        layer = layer.file(format!("d{}/{number:04}", number % 7), 0o644, &pattern(size, number));
    }
    let image = fs::read(flat(&[layer.finish()], Options::default()).unwrap()).unwrap();
    assert_eq!(feature_incompat(&image), 0);
    assert!(image.len() < bytes * 103 / 100 + 8192, "{} bytes for {bytes}", image.len());
}

/// Only what is said counts, not in which order, and not in how many layers.
#[test]
fn the_order_of_entries_changes_no_byte() {
    let options = || Options::default().with_uuid([1; 16]);
    let file = |layer: LayerBuilder, number: usize| {
        let shared = format!("{}", number % 5);
        layer.xattr("user.shared", shared).file(
            format!("d{}/{number:03}", number % 3),
            0o644,
            &pattern(number * 97, number),
        )
    };
    let root = || {
        let layer = LayerBuilder::new().dir("./", 0o755);
        (0..3).fold(layer, |layer, number| layer.dir(format!("d{number}"), 0o755))
    };
    let up = (0..90).fold(root(), file).hard_link("link", "d1/001");
    let down = (0..90).rev().fold(root(), file).hard_link("link", "d1/001");
    let halves = [(45..90).fold(root(), file), (0..45).fold(root(), file).hard_link("link", "d1/001")];
    let bytes = |layers: &[Vec<u8>]| fs::read(flat(layers, options()).unwrap()).unwrap();
    let first = bytes(&[up.finish()]);
    assert!(first == bytes(&[down.finish()]), "backwards");
    assert!(first == bytes(&halves.map(LayerBuilder::finish)), "in two layers");
}

/// Where the zeros came from does not matter: holes of the tar, or bytes.
#[test]
fn holes_follow_from_the_bytes_alone() {
    const MIB: usize = 1 << 20;
    let options = || Options::default().with_uuid([1; 16]);
    let runs: [(u64, &[u8]); 4] = [
        (100, b"start"),
        (3 * MIB as u64, &pattern(100_000, 1)),
        // After less than 1 MiB of zeros.
        (4 * MIB as u64 - 5, b"close"),
        (9 * MIB as u64 - 3, b"end"),
    ];
    for cut in [0, 1, 700, 4096] {
        let size = 12 * MIB + cut;
        let mut data = vec![0; size];
        for (offset, run) in runs {
            data[usize::try_from(offset).unwrap()..][..run.len()].copy_from_slice(run);
        }
        let sparse = LayerBuilder::new().sparse_file("f", 0o644, size as u64, &runs).finish();
        let plain = LayerBuilder::new().file("f", 0o644, &data).finish();
        let path = flat(&[sparse], options()).unwrap();
        let image = fs::read(&path).unwrap();
        assert!(image == fs::read(flat(&[plain], options()).unwrap()).unwrap(), "{size} bytes");
        assert_eq!(feature_incompat(&image), 4);
        assert!(image.len() < 2 * MIB, "{} bytes", image.len());
        let mut reader = Reader::new(fs::File::open(&path).unwrap()).unwrap();
        let tree = reader.tree().unwrap();
        let id = tree.child(NodeId::ROOT, b"f").unwrap();
        let Kind::File { size, content } = &tree.node(id).kind else { panic!("no file") };
        assert!(crate::data(&mut reader, content, *size) == data);
    }
}

#[test]
fn short_runs_of_zeros_are_no_holes_and_the_last_part_may_be_zeros() {
    for size in [(1 << 20) - 1, (1 << 20) + 1, (3 << 20) + 2000] {
        let mut data = pattern(size, 9);
        let end = data.len();
        data[end - 2500.min(end)..].fill(0);
        let path = flat(&[LayerBuilder::new().file("f", 0o644, &data).finish()], Options::default()).unwrap();
        assert_eq!(feature_incompat(&fs::read(&path).unwrap()), 0);
        let mut reader = Reader::new(fs::File::open(&path).unwrap()).unwrap();
        let tree = reader.tree().unwrap();
        let id = tree.child(NodeId::ROOT, b"f").unwrap();
        let Kind::File { size, content } = &tree.node(id).kind else { panic!("no file") };
        assert!(crate::data(&mut reader, content, *size) == data);
    }
}

#[test]
fn what_upper_layers_replace_takes_no_room() {
    let lower =
        LayerBuilder::new().file("f", 0o644, &pattern(5 << 20, 1)).file("g", 0o644, &pattern(5 << 20, 2));
    let upper = LayerBuilder::new().whiteout("f").file("g", 0o644, b"new");
    let path = flat(&[lower.finish(), upper.finish()], Options::default()).unwrap();
    assert!(fs::metadata(&path).unwrap().len() <= 8192);
    assert_eq!(listing(&path)[1..], ["/g f\"new\" 644 0:0 x1"]);
}

#[test]
fn overlayfs_own_attributes_are_left_out() {
    let layer = LayerBuilder::new()
        .xattr("trusted.overlay.opaque", "y")
        .xattr("trusted.overlay.redirect", "/etc")
        .xattr("user.overlay.metacopy", "")
        .xattr("user.kept", "1")
        .dir("d", 0o755)
        .finish();
    assert_eq!(listing(&flat(&[layer], Options::default()).unwrap())[1..], ["/d d 755 0:0 x2 user.kept=1"]);
}

#[test]
fn a_directory_of_100_000_names_is_sorted_and_whole() {
    let mut layer = LayerBuilder::new();
    for number in 0..100_000_u32 {
        layer = layer.file(format!("d/{:08x}", number.wrapping_mul(0x9E37_79B1)), 0o644, b"x");
    }
    let path = flat(&[layer.finish()], Options::default()).unwrap();
    let mut reader = Reader::new(fs::File::open(&path).unwrap()).unwrap();
    // The reader refuses directories that are out of order.
    assert_eq!(reader.tree().unwrap().walk().count(), 100_002);
}

#[test]
fn the_uuid_names_every_layer() {
    let layers = [rich_layer(), change()];
    let uuid = |layers: &[Vec<u8>]| {
        Reader::new(fs::File::open(flat(layers, Options::default()).unwrap()).unwrap()).unwrap().uuid()
    };
    let name = format!("erofs:image/{}/{}", sha256(&layers[0]), sha256(&layers[1]));
    assert_eq!(uuid(&layers), uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, name.as_bytes()).into_bytes());
    assert_ne!(uuid(&layers), uuid(&layers[..1]));
}

#[test]
fn what_the_format_cannot_hold_is_a_limit() {
    let xattr = LayerBuilder::new().xattr("user.n", vec![1; 65_536]).file("f", 0o644, b"").finish();
    assert_eq!(*flat(&[xattr], Options::default()).unwrap_err().kind(), ErrorKind::Limit);
}

/// Its data is not all on blocks that a device could have.
#[test]
fn it_is_no_layer_of_a_merged_image() {
    let whole = flat(&[rich_layer()], Options::default()).unwrap();
    let error = merged(&[whole], Options::default()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
}

#[test]
fn a_last_part_that_crosses_a_block_is_corrupt() {
    let data = b"thirty-two bytes, not elsewhere.";
    let layer = LayerBuilder::new().file("f", 0o644, data).finish();
    let mut bytes = fs::read(flat(&[layer], Options::default()).unwrap()).unwrap();
    let rest = bytes.windows(data.len()).position(|window| window == data).unwrap();
    // An extended inode has its size at byte 8.
    let size = rest - 64 + 8;
    assert_eq!(bytes[size..size + 4], [32, 0, 0, 0]);
    let read = |bytes: &[u8]| Reader::new(std::io::Cursor::new(bytes.to_vec())).unwrap().tree().map(drop);
    read(&bytes).unwrap();
    bytes[size..size + 4].copy_from_slice(&4095_u32.to_le_bytes());
    assert_eq!(*read(&bytes).unwrap_err().kind(), ErrorKind::Corrupt);
}
