//! Pinned digests: a sample that changes is a new sample.

use std::fmt::Write as _;

use plyfold_conformance::samples::{self, Sample};
use plyfold_conformance::tree;
use plyfold_core::digest::{self, Hasher};
use plyfold_core::layer::{LayerOptions, LayerTar};

const PINNED: &str = include_str!("samples.txt");

#[test]
fn digests_are_pinned() {
    let mut actual = String::new();
    for sample in samples::all() {
        writeln!(actual, "{} {}", sample.name, sample.top.digest()).unwrap();
        for image in &sample.images {
            let diff_ids: Vec<_> =
                image.layers.iter().map(|layer| layer.diff_id.digest()[..12].to_owned()).collect();
            writeln!(actual, "  {} {}", image.platform, diff_ids.join(" ")).unwrap();
        }
    }
    if blessed("samples.txt", &actual) {
        return;
    }
    assert_eq!(actual, PINNED);
}

#[test]
fn the_rootfs_tree_is_pinned() {
    let sample = samples::rootfs();
    let layers = sample.images[0].layers.iter().map(|layer| {
        let bytes = std::io::Cursor::new(layer.tar.to_vec());
        let options = LayerOptions { diff_id: Some(layer.diff_id.clone()), ..LayerOptions::default() };
        tree::read_layer(&mut LayerTar::new(bytes, options).unwrap()).unwrap()
    });
    let lines = tree::stacked(layers.collect()).unwrap();
    let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
    let actual = lines.join("\n") + "\n";
    if blessed("../../src/samples/rootfs.txt", &actual) {
        return;
    }
    assert_eq!(actual, samples::ROOTFS_TREE);
}

/// `PLYFOLD_BLESS=1 cargo test -p plyfold-conformance` accepts what there is now.
pub(super) fn blessed(file: &str, actual: &str) -> bool {
    let bless = std::env::var_os("PLYFOLD_BLESS").is_some();
    if bless {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
        std::fs::write(folder.join(file), actual).unwrap();
    }
    bless
}

#[test]
fn blobs_are_what_their_descriptors_say() {
    for sample in samples::all() {
        let wrong: Vec<_> = sample.blobs.iter().filter(|blob| !is_sound(blob)).collect();
        let expected = usize::from(sample.name == "bad_digest");
        assert_eq!(wrong.len(), expected, "{}", sample.name);
    }
}

#[test]
fn whole_samples_are_whole() {
    for sample in samples::whole() {
        for image in &sample.images {
            assert!(sample.blob(image.manifest.digest()).is_some(), "{}", sample.name);
            assert!(sample.blob(image.config.digest()).is_some(), "{}", sample.name);
            for layer in &image.layers {
                assert!(sample.blob(layer.descriptor.digest()).is_some(), "{}", sample.name);
                assert_eq!(digest::sha256(&layer.tar), layer.diff_id, "{}", sample.name);
            }
        }
        assert!(documents_parse(&sample), "{}", sample.name);
    }
}

fn is_sound(blob: &samples::SampleBlob) -> bool {
    let mut hasher = Hasher::like(blob.descriptor.digest()).unwrap();
    hasher.update(&blob.bytes);
    hasher.finish() == *blob.descriptor.digest() && blob.bytes.len() as u64 == blob.descriptor.size()
}

fn documents_parse(sample: &Sample) -> bool {
    let mut documents = sample.blobs.iter().filter(|blob| blob.is_manifest());
    documents.all(|blob| serde_json::from_slice::<serde_json::Value>(&blob.bytes).is_ok())
}
