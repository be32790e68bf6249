//! What the writer writes.

use std::fs;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::digest::sha256;
use plyfold_core::layer::Timestamp;
use plyfold_erofs::Options;

use crate::common::{image, rich_layer};
use crate::listing;

fn feature_incompat(image: &[u8]) -> u32 {
    u32::from_le_bytes(image[1024 + 80..][..4].try_into().unwrap())
}

#[test]
fn same_input_same_bytes() {
    let bytes = |options: &Options| fs::read(image(rich_layer(), options.clone()).unwrap()).unwrap();
    let defaults = bytes(&Options::default());
    assert_eq!(defaults, bytes(&Options::default()));
    // Pinned: another digest means other images for the same layers, so `Format::version` goes up.
    assert_eq!(
        sha256(&defaults).digest(),
        "b02d8510537251de8e3a225e978efdeba63919ba14d55bac62e54c804176ae9f"
    );
}

#[test]
fn every_option_changes_the_bytes() {
    let options = Options::default;
    let images = [
        options(),
        options().with_block_size(512).unwrap(),
        options().with_label("label").unwrap(),
        options().with_mtime(Timestamp { seconds: 5, nanos: 6 }),
        options().with_uuid([7; 16]),
    ];
    let digests =
        images.map(|options| sha256(&fs::read(image(rich_layer(), options).unwrap()).unwrap()).to_string());
    assert_eq!(std::collections::BTreeSet::from(digests).len(), 5);
}

#[test]
fn an_ordinary_image_needs_no_feature() {
    let image = fs::read(image(rich_layer(), Options::default()).unwrap()).unwrap();
    assert_eq!(feature_incompat(&image), 0);
}

#[test]
fn every_kind_reads_back_as_the_tar_says() {
    let tail = "/tmp/before-1970 f\"\\x01\" 0 4294967294:3000000 x1";
    for block_size in [512, 1024, 2048, 4096] {
        let options = Options::default().with_block_size(block_size).unwrap();
        let lines = listing(&image(rich_layer(), options).unwrap());
        for expected in [
            "/ d 751 0:7 x8 1700000000+1",
            "/bin/empty f\"\" 2755 0:0 x1 user.own=\\x00\\x01\\x02\\xff user.shared=shared",
            "/dev/fifo p 600 0:0 x1",
            "/dev/loop300 b7:300 660 0:0 x1",
            "/dev/null c1:3 666 0:0 x1",
            "/etc d 755 0:0 x2 user.comment=a directory",
            "/etc/long l4095 bytes 777 0:0 x1",
            "/etc/mtab l../proc/mounts 777 0:0 x1",
            "/etc/passwd f\"root:x:0:0::/:/bin/sh\\n\" 644 0:0 x2 1700000000+123456789",
            "/etc/passwd- f\"root:x:0:0::/:/bin/sh\\n\" 644 0:0 x2 1700000000+123456789",
            "/many d 755 0:0 x402",
            "/many/subdirectory-399 d 700 0:0 x2",
            "/order/... f\"...\" 644 0:0 x1",
            "/order/! f\"!\" 644 0:0 x1",
            "/tmp d 1777 0:0 x2",
            &format!("{tail} -2+500000000"),
            "/tmp/far-future f4096*2 400 0:0 x1 8589934592+999999999",
            "/tmp/one-more f4097*3 777 0:0 x1",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected}\n{}", lines.join("\n"));
        }
        assert_eq!(lines.len(), 432);
    }
}

#[test]
fn one_time_for_all_makes_all_inodes_compact() {
    let times = |options| fs::read(image(rich_layer(), options).unwrap()).unwrap();
    let plain = times(Options::default());
    let one = times(Options::default().with_mtime(Timestamp { seconds: 1, nanos: 2 }));
    assert!(one.len() <= plain.len());
    assert_eq!(&one[1024 + 24..][..12], [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
}

#[test]
fn long_runs_of_zeros_become_holes_and_short_ones_do_not() {
    let mut data = vec![1; 10 << 20];
    // Neither end is a chunk's.
    data[(1 << 20) + 1000..(4 << 20) + 500].fill(0);
    let layer = |data: &[u8]| LayerBuilder::new().file("f", 0o644, data).finish();
    let path = image(layer(&data), Options::default()).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(feature_incompat(&bytes), 4);
    assert!(bytes.len() < (7 << 20) + 150_000);
    let mut reader = plyfold_erofs::Reader::new(fs::File::open(&path).unwrap()).unwrap();
    let tree = reader.tree().unwrap();
    let file = tree.child(plyfold_core::tree::NodeId::ROOT, b"f").unwrap();
    let plyfold_core::tree::Kind::File { size, content } = &tree.node(file).kind else { panic!("no file") };
    assert_eq!(crate::data(&mut reader, content, *size), data);

    data[(1 << 20) + 70_000..].fill(1);
    let bytes = fs::read(image(layer(&data), Options::default()).unwrap()).unwrap();
    assert_eq!(feature_incompat(&bytes), 0);
}

#[test]
fn a_file_of_zeros_takes_no_space() {
    for size in [1 << 20, (20 << 20) + 1] {
        let layer = LayerBuilder::new().file("f", 0o644, &vec![0; size]).finish();
        let path = image(layer, Options::default()).unwrap();
        assert!(fs::metadata(&path).unwrap().len() < 20_000);
        assert_eq!(listing(&path)[1], format!("/f f{size}*0 644 0:0 x1"));
    }
}

#[test]
fn sparse_files_keep_their_holes() {
    let runs: [(u64, &[u8]); 3] = [(0, b"start"), (3 << 20, &vec![7; 100_000]), ((9 << 20) - 1, b"e")];
    let layer = LayerBuilder::new().sparse_file("f", 0o644, 9 << 20, &runs).finish();
    let path = image(layer, Options::default()).unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 1 << 20);
    let mut reader = plyfold_erofs::Reader::new(fs::File::open(&path).unwrap()).unwrap();
    let tree = reader.tree().unwrap();
    let file = tree.child(plyfold_core::tree::NodeId::ROOT, b"f").unwrap();
    let plyfold_core::tree::Kind::File { size, content } = &tree.node(file).kind else { panic!("no file") };
    let mut expected = vec![0; 9 << 20];
    for (offset, data) in runs {
        expected[usize::try_from(offset).unwrap()..][..data.len()].copy_from_slice(data);
    }
    assert_eq!(crate::data(&mut reader, content, *size), expected);
}

#[test]
fn a_directory_of_100_000_names_is_sorted_and_whole() {
    let mut layer = LayerBuilder::new();
    for number in 0..100_000_u32 {
        // Neither ascending nor descending.
        layer = layer.file(format!("d/{:08x}", number.wrapping_mul(0x9E37_79B1)), 0o644, b"");
    }
    let path = image(layer.finish(), Options::default()).unwrap();
    let mut reader = plyfold_erofs::Reader::new(fs::File::open(&path).unwrap()).unwrap();
    // The reader refuses directories that are out of order.
    assert_eq!(reader.tree().unwrap().walk().count(), 100_002);
}

#[test]
fn the_uuid_is_containerds_over_the_diff_id() {
    let tar = LayerBuilder::new().finish();
    let path = image(tar.clone(), Options::default()).unwrap();
    let uuid = plyfold_erofs::Reader::new(fs::File::open(&path).unwrap()).unwrap().uuid();
    let name = format!("erofs:blobs/{}", sha256(&tar));
    assert_eq!(uuid, uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, name.as_bytes()).into_bytes());
}
