//! Images with compressed files, written and read back.

use std::fs::{self, File};
use std::num::NonZero;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::ErrorKind;
use plyfold_core::digest::sha256;
use plyfold_core::tree::{Kind, NodeId};
use plyfold_erofs::{Compression, Options, Reader};
use tempfile::TempPath;

use crate::common::{compressed, flat, merged, noise, rich_layer, text, varied_layer};
use crate::listing;

pub(crate) fn by(algorithm: &str, cluster: u32) -> Compression {
    Compression::new(algorithm.parse().unwrap()).unwrap().with_cluster(cluster).unwrap()
}

/// Each algorithm with clusters of one block, of some and of many.
pub(crate) fn all() -> impl Iterator<Item = Compression> {
    ["lz4", "lz4hc,9", "zstd,3", "zstd,6"]
        .into_iter()
        .flat_map(|algorithm| [4 << 10, 16 << 10, 64 << 10, 1 << 20].map(|cluster| by(algorithm, cluster)))
}

/// Larger than one piece of any cluster size, and with ends of pieces in each kind of data.
pub(crate) fn large_layer() -> Vec<u8> {
    let data = [text(1_500_000, 1), noise(1_200_001, 2), text(2_321_987, 3), vec![0; 900_000], text(777, 4)];
    let layer = LayerBuilder::new().dir("./", 0o755).file("large", 0o644, &data.concat());
    let layer = layer.file("noise", 0o644, &noise(1_200_003, 5)).file("text", 0o644, &text(4 << 20, 6));
    layer.file("noise-then-text", 0o644, &[noise(1 << 20, 7), text(3_000, 8)].concat()).finish()
}

/// The digests of an image's files, in the order of their paths.
pub(crate) fn contents(image: &TempPath) -> Vec<String> {
    let mut reader = Reader::new(File::open(image).unwrap()).unwrap();
    let tree = reader.tree().unwrap();
    let files = tree.walk().filter_map(|(path, id)| match &tree.node(id).kind {
        Kind::File { size, content } => {
            Some(format!("{path} {}", sha256(&crate::data(&mut reader, content, *size))))
        }
        _ => None,
    });
    files.collect()
}

pub(crate) fn feature_incompat(image: &TempPath) -> u32 {
    u32::from_le_bytes(fs::read(image).unwrap()[1024 + 80..][..4].try_into().unwrap())
}

pub(crate) fn length(image: &TempPath) -> u64 {
    fs::metadata(image).unwrap().len()
}

#[test]
fn files_read_back_as_they_were() {
    let layers = [rich_layer(), varied_layer()];
    let plain = flat(&layers, Options::default()).unwrap();
    let expected = listing(&plain);
    for compression in all() {
        let image = compressed(&layers, compression.clone()).unwrap();
        assert!(listing(&image) == expected, "{compression:?}");
        assert!(length(&image) < length(&plain), "{compression:?}: {} bytes", length(&image));
    }
}

#[test]
fn files_of_several_pieces_read_back() {
    let layers = [large_layer()];
    let plain = flat(&layers, Options::default()).unwrap();
    let expected = contents(&plain);
    for compression in
        [by("lz4", 4096), by("lz4hc,2", 1 << 20), by("zstd,1", 16 << 10), by("zstd,1", 1 << 20)]
    {
        let image = compressed(&layers, compression.clone()).unwrap();
        assert!(contents(&image) == expected, "{compression:?}");
        assert!(length(&image) < length(&plain), "{compression:?}: {} bytes", length(&image));
    }
}

#[test]
fn files_of_any_size_read_back() {
    let mut layer = LayerBuilder::new();
    for size in (1..40).chain([100]).map(|step| step * 517) {
        layer = layer.file(format!("{size}"), 0o644, &text(size, size as u64));
        let half = [text(size / 2, 1), noise(size - size / 2, 2)].concat();
        layer = layer.file(format!("half-{size}"), 0o644, &half);
    }
    let layer = layer.finish();
    let expected = listing(&flat(std::slice::from_ref(&layer), Options::default()).unwrap());
    for compression in all() {
        let image = compressed(std::slice::from_ref(&layer), compression.clone()).unwrap();
        assert!(listing(&image) == expected, "{compression:?}");
    }
}

#[test]
fn threads_change_no_byte() {
    let layers = [varied_layer(), large_layer()];
    for compression in
        [by("lz4", 4096), by("lz4hc,2", 16 << 10), by("zstd,3", 64 << 10), by("zstd,4", 64 << 10)]
    {
        let digests = [1, 2, 8].map(|threads| {
            let compression = compression.clone().with_threads(NonZero::new(threads).unwrap());
            sha256(&fs::read(compressed(&layers, compression).unwrap()).unwrap())
        });
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{compression:?}: {digests:?}");
    }
}

#[test]
fn same_input_same_bytes() {
    let mut found = Vec::new();
    for (compression, pinned) in [
        (by("lz4", 4096), "e0da57d214e7ba38a864c5c7c7428d75ff719ce3f55dd447c280f7ff19151101"),
        (by("lz4", 16 << 10), "f4e7ace5ab5d5dd358c5a3191222fd9df80961bc0601300ce31be6ceb03571b0"),
        (by("lz4hc,9", 16 << 10), "8fb4145cd1921bab4620ef352e7ebd5797e37a57e09149c12efc39a83b2ceb92"),
        (by("zstd,3", 64 << 10), "b44cd022cb94a30be9502f51b7677686a7fd11b0dfcba0b449e23fdc600530ab"),
    ] {
        let image =
            fs::read(compressed(&[rich_layer(), varied_layer()], compression.clone()).unwrap()).unwrap();
        found.push((sha256(&image).digest().to_owned(), pinned));
    }
    // Pinned: another digest means other images for the same layers, so `Format::version` goes up.
    assert!(found.iter().all(|(found, pinned)| found == pinned), "{found:#?}");
}

#[test]
fn any_part_of_a_file_can_be_read() {
    let data = [text(100_000, 1), noise(30_000, 2), vec![0; 70_000], text(50_001, 3)].concat();
    let layer = LayerBuilder::new().file("f", 0o644, &data).finish();
    for compression in all() {
        let image = compressed(std::slice::from_ref(&layer), compression).unwrap();
        let mut reader = Reader::new(File::open(&image).unwrap()).unwrap();
        let tree = reader.tree().unwrap();
        let id = tree.child(NodeId::ROOT, b"f").unwrap();
        let Kind::File { size, content } = &tree.node(id).kind else { panic!("no file") };
        let mut buffer = [0; 100];
        for offset in (0..data.len()).step_by(1_777).rev() {
            let count = reader.read(content, *size, offset as u64, &mut buffer).unwrap();
            assert!(count > 0 && buffer[..count] == data[offset..offset + count], "{offset}");
        }
        assert_eq!(reader.read(content, *size, *size, &mut buffer).unwrap(), 0);
    }
}

#[test]
fn what_gets_no_smaller_stays_as_it_is() {
    let layer = LayerBuilder::new().file("a", 0o644, &noise(3_000, 1)).file("b", 0o644, &noise(3 << 20, 2));
    let layers = [layer.file("c", 0o644, &noise(1_000_000, 3)).finish()];
    let plain = flat(&layers, Options::default()).unwrap();
    for compression in all() {
        let image = compressed(&layers, compression).unwrap();
        assert_eq!(feature_incompat(&image), 0);
        assert!(fs::read(&image).unwrap() == fs::read(&plain).unwrap());
    }
}

#[test]
fn small_files_take_no_block_of_their_own() {
    let mut layer = LayerBuilder::new();
    for number in 0..500 {
        layer = layer.file(format!("{number:03}"), 0o644, &text(3_000 + number, number as u64));
    }
    let layers = [layer.finish()];
    let plain = flat(&layers, Options::default()).unwrap();
    for algorithm in ["lz4", "zstd"] {
        let image = compressed(&layers, by(algorithm, 16 << 10)).unwrap();
        assert!(length(&image) * 3 < length(&plain) * 2, "{} of {}", length(&image), length(&plain));
        assert_eq!(feature_incompat(&image), 0x13);
    }
    // A file without a last part needs no newer Linux.
    let layers = [LayerBuilder::new().file("f", 0o644, &vec![7; 4096 * 300]).finish()];
    assert_eq!(feature_incompat(&compressed(&layers, by("lz4", 4096)).unwrap()) & !0x10, 1);
}

#[test]
fn a_file_of_holes_keeps_them() {
    const GIB: u64 = 1 << 30;
    let mostly =
        LayerBuilder::new().sparse_file("f", 0o644, 3 * GIB, &[(5, b"a"), (2 * GIB, &text(100_000, 1))]);
    let image = compressed(&[mostly.finish()], by("lz4", 4096)).unwrap();
    assert_eq!(feature_incompat(&image), 4);
    assert!(length(&image) < 1 << 20, "{} bytes", length(&image));
    // The same bytes without holes in the tar, and less than half of them zeros.
    let mut zeros = vec![0; 2 << 20];
    let sparse = LayerBuilder::new().sparse_file("f", 0o644, 5 << 20, &[(0, &vec![b'x'; 3 << 20])]).finish();
    zeros.splice(0..0, vec![b'x'; 3 << 20]);
    let plain = LayerBuilder::new().file("f", 0o644, &zeros).finish();
    let images = [sparse, plain].map(|layer| compressed(&[layer], by("lz4", 4096)).unwrap());
    assert_eq!(feature_incompat(&images[0]) & 5, 1);
    assert!(listing(&images[0]) == listing(&images[1]));
}

#[test]
fn it_is_no_layer_of_a_merged_image() {
    let whole = compressed(&[varied_layer()], by("lz4", 4096)).unwrap();
    let error = merged(&[whole], Options::default()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
}

#[test]
fn only_blocks_of_4096_bytes_are_compressed() {
    let options = Options::default().with_block_size(1024).unwrap();
    let error = plyfold_erofs::ErofsFlat::new(options).with_compression(by("lz4", 4096)).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config);
}
