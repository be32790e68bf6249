//! Images whose small files are compressed together.

use std::fs::{self, File};
use std::num::NonZero;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::digest::sha256;
use plyfold_core::tree::{Kind, NodeId};
use plyfold_erofs::{Compression, Options, Reader};

use crate::common::{compressed, flat, noise, rich_layer, text, varied_layer};
use crate::compressed::{all, by, contents, feature_incompat, large_layer, length};
use crate::listing;

fn together(algorithm: &str, cluster: u32) -> Compression {
    by(algorithm, cluster).with_fragments()
}

/// Files of each size up to more than a piece of the file of all fragments.
fn small_layer() -> Vec<u8> {
    let mut layer = LayerBuilder::new();
    for number in 0..1_500_usize {
        let size = 60 + number * 7 % 4_100;
        layer = layer.file(format!("text-{number}"), 0o644, &text(size, number as u64 % 9));
    }
    for number in 0..60_usize {
        layer = layer.file(format!("noise-{number}"), 0o644, &noise(4_000 + number * 3, number as u64));
    }
    layer.finish()
}

#[test]
fn files_read_back_as_they_were() {
    for layers in [[rich_layer(), varied_layer()], [large_layer(), small_layer()]] {
        let expected = contents(&flat(&layers, Options::default()).unwrap());
        for compression in all().step_by(3) {
            let image = compressed(&layers, compression.clone().with_fragments()).unwrap();
            assert!(contents(&image) == expected, "{compression:?}");
            assert_eq!(feature_incompat(&image) & 0x20, 0x20);
        }
    }
    let layers = [rich_layer(), varied_layer()];
    let expected = listing(&flat(&layers, Options::default()).unwrap());
    assert!(listing(&compressed(&layers, together("lz4", 16 << 10)).unwrap()) == expected);
}

#[test]
fn images_of_small_files_are_smaller() {
    let layers = [small_layer()];
    for (algorithm, percent) in [("lz4", 90), ("zstd,3", 80)] {
        let alone = compressed(&layers, by(algorithm, 64 << 10)).unwrap();
        let image = compressed(&layers, together(algorithm, 64 << 10)).unwrap();
        let (size, alone) = (length(&image), length(&alone));
        assert!(size * 100 < alone * percent, "{algorithm}: {size} of {alone}");
    }
}

/// The end of a file that is larger than a cluster is compressed with those of others.
#[test]
fn ends_of_large_files_are_fragments() {
    let layers = [(0..40_usize)
        .fold(LayerBuilder::new(), |layer, number| {
            layer.file(format!("f{number}"), 0o644, &text(70_000 + number * 131, number as u64))
        })
        .finish()];
    let expected = contents(&flat(&layers, Options::default()).unwrap());
    for compression in [by("lz4", 4096), by("lz4hc", 16 << 10), by("zstd", 16 << 10)] {
        let alone = compressed(&layers, compression.clone()).unwrap();
        let image = compressed(&layers, compression.with_fragments()).unwrap();
        assert!(contents(&image) == expected);
        assert!(length(&image) < length(&alone), "{} of {}", length(&image), length(&alone));
    }
}

#[test]
fn equal_files_are_stored_once() {
    let (small, large) = (noise(3_000, 1), [text(100_000, 3), noise(3_000, 2)].concat());
    let mut layer = LayerBuilder::new();
    for number in 0..50 {
        layer = layer.file(format!("small-{number}"), 0o644, &small);
        layer = layer.xattr("user.number", format!("{}", number % 7));
        layer = layer.file(format!("large-{number}"), 0o644, &large);
    }
    let layers = [layer.finish()];
    let image = compressed(&layers, together("lz4", 16 << 10)).unwrap();
    assert!(contents(&image) == contents(&flat(&layers, Options::default()).unwrap()));
    let size = length(&image);
    assert!(size < 80 << 10, "{size} bytes");
}

/// Those that are compressed in pieces, too, whatever their inodes take.
#[test]
fn equal_large_files_are_stored_once() {
    let end = [text(1_300_000, 4), noise(3_000, 2)].concat();
    for large in [text(1_300_001, 3), [text(1_300_000, 3), noise(90_000, 2)].concat(), noise(1_400_001, 5)] {
        let mut layer = LayerBuilder::new().file("other", 0o644, &end[..large.len().min(end.len())]);
        for number in 0..6 {
            let layer_with =
                if number % 3 == 2 { layer.xattr("user.long", "x".repeat(3_900)) } else { layer };
            layer = layer_with.file(format!("large-{number}"), 0o644, &large);
        }
        let layers = [layer.finish()];
        let image = compressed(&layers, together("lz4", 16 << 10)).unwrap();
        assert!(contents(&image) == contents(&flat(&layers, Options::default()).unwrap()));
        let one = [LayerBuilder::new().file("large", 0o644, &large).file("other", 0o644, &end).finish()];
        let one = length(&compressed(&one, together("lz4", 16 << 10)).unwrap());
        let size = length(&image);
        assert!(size < one * 3, "{size} bytes, {one} of one");
    }
}

#[test]
fn threads_change_no_byte() {
    let layers = [varied_layer(), small_layer()];
    for compression in [together("lz4", 4096), together("zstd,4", 64 << 10)] {
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
        (together("lz4", 16 << 10), "64ee6cdfacf1ec3c0f022fb680a0ecc14c634fdb5f0d8dbe0d37da93a2060c59"),
        (together("zstd,3", 64 << 10), "8c417676f9c9c94e52981e8d879057c985469360accc6d934f241671e85fac06"),
    ] {
        let image = fs::read(compressed(&[rich_layer(), varied_layer()], compression).unwrap()).unwrap();
        found.push((sha256(&image).digest().to_owned(), pinned));
    }
    // Pinned: another digest means other images for the same layers, so `Format::version` goes up.
    assert!(found.iter().all(|(found, pinned)| found == pinned), "{found:#?}");
}

/// Fragments that get no smaller are extents all the same.
#[test]
fn noise_can_be_a_fragment() {
    let data = noise(9_000, 1);
    for layer in [
        LayerBuilder::new().file("f", 0o644, &data),
        LayerBuilder::new().file("f", 0o644, &data).file(
            "one-block",
            0o644,
            &noise(4096 * 2 - 9_000 % 4096, 2),
        ),
        LayerBuilder::new().file("f", 0o644, &data).file("text", 0o644, &text(64, 1)),
    ] {
        let image = compressed(&[layer.finish()], together("lz4", 16 << 10)).unwrap();
        let mut reader = Reader::new(File::open(&image).unwrap()).unwrap();
        let tree = reader.tree().unwrap();
        let id = tree.child(NodeId::ROOT, b"f").unwrap();
        let Kind::File { size, content } = &tree.node(id).kind else { panic!("no file") };
        assert!(crate::data(&mut reader, content, *size) == data);
    }
}

/// An image without a file that gets smaller has no file of fragments.
#[test]
fn without_fragments_it_is_as_without_the_option() {
    let layers = [LayerBuilder::new().file("f", 0o644, &noise(100_000, 1)).finish()];
    let images = [by("lz4", 4096), together("lz4", 4096)];
    let images = images.map(|compression| fs::read(compressed(&layers, compression).unwrap()).unwrap());
    assert!(images[0] == images[1]);
}
