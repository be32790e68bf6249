//! Layers that are compressed while their tars are read.

use std::fs::{self, File};
use std::io::Cursor;
use std::num::NonZero;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::digest::sha256;
use plyfold_core::layer::{LayerOptions, LayerTar};
use plyfold_core::{ErrorKind, Materializer as _};
use plyfold_erofs::{ErofsLayer, ErofsMerged, Options, Reader};

use crate::common::{
    artifacts, compressed, compressed_layer, image, merged, noise, rich_layer, text, varied_layer,
};
use crate::compressed::{all, by, contents, feature_incompat, large_layer, length};
use crate::listing;

#[test]
fn files_read_back_as_they_were() {
    for layer in [rich_layer(), varied_layer()] {
        let plain = image(layer.clone(), Options::default()).unwrap();
        let expected = listing(&plain);
        for compression in all() {
            let image = compressed_layer(&layer, compression.clone()).unwrap();
            assert!(listing(&image) == expected, "{compression:?}");
            assert!(length(&image) < length(&plain), "{compression:?}: {} bytes", length(&image));
        }
    }
}

#[test]
fn files_of_several_pieces_read_back() {
    let layer = large_layer();
    let expected = contents(&image(layer.clone(), Options::default()).unwrap());
    for compression in [by("lz4", 4096), by("lz4hc,2", 1 << 20), by("zstd,1", 16 << 10)] {
        let image = compressed_layer(&layer, compression.clone()).unwrap();
        assert!(contents(&image) == expected, "{compression:?}");
    }
}

/// Ends of files at each place in a block, with each size of attributes behind the inode.
#[test]
fn last_parts_stand_in_one_block() {
    let mut layer = LayerBuilder::new();
    for size in (3_800..4_200).step_by(7) {
        let value = vec![b'v'; size % 97];
        layer = layer.xattr("user.v", value.clone()).file(
            format!("text-{size}"),
            0o644,
            &text(size, size as u64),
        );
        let half = [text(size * 3, 1), noise(size, size as u64)].concat();
        layer = layer.file(format!("half-{size}"), 0o644, &half);
        layer = layer.xattr("user.v", value).file(format!("noise-{size}"), 0o644, &noise(size, size as u64));
        layer = layer.file(format!("two-{size}"), 0o644, &text(2 * size, size as u64));
    }
    let layer = layer.finish();
    let expected = listing(&image(layer.clone(), Options::default()).unwrap());
    for compression in [by("lz4", 4096), by("lz4", 64 << 10), by("zstd,3", 4096)] {
        // The reader refuses a last part that does not stand in one block, as Linux does.
        assert!(listing(&compressed_layer(&layer, compression).unwrap()) == expected);
    }
}

#[test]
fn threads_change_no_byte() {
    for layer in [varied_layer(), large_layer()] {
        for compression in [by("lz4", 4096), by("lz4hc,2", 16 << 10), by("zstd,4", 64 << 10)] {
            let digests = [1, 2, 8].map(|threads| {
                let compression = compression.clone().with_threads(NonZero::new(threads).unwrap());
                sha256(&fs::read(compressed_layer(&layer, compression).unwrap()).unwrap())
            });
            assert!(digests.iter().all(|digest| *digest == digests[0]), "{compression:?}: {digests:?}");
        }
    }
}

#[test]
fn same_input_same_bytes() {
    let mut found = Vec::new();
    for (compression, pinned) in [
        (by("lz4", 4096), "950f2262acf58ef88d013da1a00d7ac16b50888c25bdad6eed7b47cbd26cdcee"),
        (by("lz4hc,9", 16 << 10), "664d76b5b9573370c0cc8f95f746fa6aa8a25056aec61cf6807391908a1465b7"),
        (by("zstd,3", 64 << 10), "35b8f55fa49fa3bf3179386b8a52774c7c7ccb8a891e83967a4f357abf4ff435"),
    ] {
        let image = fs::read(compressed_layer(&varied_layer(), compression.clone()).unwrap()).unwrap();
        found.push((sha256(&image).digest().to_owned(), pinned));
    }
    // Pinned: another digest means other images for the same layers, so `Format::version` goes up.
    assert!(found.iter().all(|(found, pinned)| found == pinned), "{found:#?}");
}

#[test]
fn small_files_take_no_block_of_their_own() {
    let mut layer = LayerBuilder::new();
    for number in 0..500 {
        layer = layer.file(format!("{number:03}"), 0o644, &text(3_000 + number, number as u64));
        layer = layer.file(format!("noise-{number:03}"), 0o644, &noise(1_000, number as u64));
    }
    let layer = layer.finish();
    let image = compressed_layer(&layer, by("lz4", 16 << 10)).unwrap();
    let flat = compressed(std::slice::from_ref(&layer), by("lz4", 16 << 10)).unwrap();
    assert!(length(&image) <= length(&flat) * 101 / 100, "{} of {}", length(&image), length(&flat));
}

#[test]
fn holes_stay_holes() {
    const GIB: u64 = 1 << 30;
    let mostly = LayerBuilder::new()
        .file("before", 0o644, &text(10_000, 1))
        .sparse_file("f", 0o644, 3 * GIB, &[(5, b"a"), (2 * GIB, &text(100_000, 1))])
        .file("behind", 0o644, &text(10_000, 2))
        .finish();
    let image = compressed_layer(&mostly, by("lz4", 4096)).unwrap();
    assert_eq!(feature_incompat(&image) & 5, 5);
    assert!(length(&image) < 1 << 20, "{} bytes", length(&image));
    // Less than half of it is holes: their zeros are compressed.
    let data = noise(3 << 20, 1);
    let runs: &[(u64, &[u8])] = &[(4096, &data), ((5 << 20) - 10, b"at its end")];
    let some = LayerBuilder::new().sparse_file("f", 0o644, 5 << 20, runs).finish();
    let expected = contents(&crate::common::image(some.clone(), Options::default()).unwrap());
    let image = compressed_layer(&some, by("lz4", 4096)).unwrap();
    assert_eq!(feature_incompat(&image) & 5, 1);
    assert!(contents(&image) == expected);
}

#[test]
fn a_merged_image_cannot_refer_to_them() {
    let layer = compressed_layer(&varied_layer(), by("lz4", 4096)).unwrap();
    let error = merged(&[layer], Options::default()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.hint().is_some(), "{error}");
}

/// What overlayfs does not show as it is is found in compressed layers, too.
#[test]
fn overlay_differences_are_found() {
    let lower = LayerBuilder::new().dir("d", 0o700).file("d/f", 0o644, &text(9_000, 1)).finish();
    let upper = LayerBuilder::new().file("d/g", 0o644, &text(9_000, 2)).hard_link("h", "d/f").finish();
    let differences = |layers: [tempfile::TempPath; 2]| {
        ErofsMerged::default().overlay_differences(&artifacts(&layers), true).unwrap()
    };
    let plain =
        differences([lower.clone(), upper.clone()].map(|layer| image(layer, Options::default()).unwrap()));
    let made = differences([lower, upper].map(|layer| compressed_layer(&layer, by("lz4", 4096)).unwrap()));
    assert_eq!(made, plain);
    assert!(made.count > 0);
}

#[test]
fn only_blocks_of_4096_bytes_are_compressed() {
    let options = Options::default().with_block_size(1024).unwrap();
    let error = ErofsLayer::new(options).with_compression(by("lz4", 4096)).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config);
    let error = ErofsLayer::default().with_compression(by("lz4", 4096).with_fragments()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config);
}

/// A hash tree behind it leaves the image as it is.
#[test]
fn a_hash_tree_stands_behind_it() {
    let plain = fs::read(compressed_layer(&varied_layer(), by("lz4", 4096)).unwrap()).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut tar = LayerTar::new(Cursor::new(varied_layer()), LayerOptions::default()).unwrap();
    let layer = ErofsLayer::default().with_compression(by("lz4", 4096)).unwrap().with_hash_tree();
    assert!(layer.format().options.contains("zlz4"), "{:?}", layer.format());
    layer.layer(&mut tar, file.as_file_mut()).unwrap();
    let verified = fs::read(file.path()).unwrap();
    assert!(verified.len() > plain.len() && verified[..plain.len()] == plain);
    Reader::new(File::open(file.path()).unwrap()).unwrap().tree().unwrap();
}
