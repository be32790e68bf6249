//! The suite that every materializer runs, looking through a reader that is as strict as the kernel; and what is
//! cpio's own.

mod reader;

use std::path::Path;

use example_cpio::Cpio;
use plyfold_conformance::samples::LayerBuilder;
use plyfold_conformance::tree::TreeLine;
use plyfold_conformance::{FormatFidelity, MaterializerFixture, materializer_suite};
use plyfold_core::layer::{LayerOptions, LayerTar, TreeLimits};
use plyfold_core::tree::MergedTree;
use plyfold_core::{ErrorKind, InputArtifact, Made, Materializer, Materializers, Options, Result, digest};
use tempfile::NamedTempFile;

materializer_suite!(Archives);

/// Looks into archives by this crate's own reader.
struct Archives;

impl MaterializerFixture for Archives {
    fn materializer(&self) -> Box<dyn Materializer> {
        Box::new(Cpio)
    }

    fn fidelity(&self) -> FormatFidelity {
        reader::fidelity()
    }

    fn tree(&self, file: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        reader::read(file)
    }

    fn check(&self, file: &Path, _: &[InputArtifact]) {
        reader::read(file);
    }

    /// It is made of whole images, and has no options.
    fn not_judged(&self) -> &'static [&'static str] {
        &[
            "appended_patch_reads_back",
            "options_that_change_bytes_are_in_the_format",
            "whiteouts_and_opaque_in_overlay_form",
        ]
    }
}

fn made(layers: &[Vec<u8>]) -> Result<(NamedTempFile, Made)> {
    let scratch = tempfile::tempdir().unwrap();
    let open = |tar: &Vec<u8>| LayerTar::new(std::io::Cursor::new(tar.clone()), LayerOptions::default());
    let image = MergedTree::read(layers.iter().map(open), TreeLimits::default(), scratch.path())?;
    let mut file = NamedTempFile::new().unwrap();
    let made = Cpio.image(&image, file.as_file_mut())?;
    Ok((file, made))
}

/// GNU cpio waits for the last name of a file with several, and a file of no bytes has no content anywhere.
#[test]
fn the_last_name_of_a_file_brings_its_content() {
    let lower = LayerBuilder::new().file("b", 0o644, b"content").hard_link("a", "b").finish();
    let upper = LayerBuilder::new().hard_link("d/c", "b").finish();
    let (file, _) = made(&[lower, upper]).unwrap();
    let entries = reader::entries(&std::fs::read(file.path()).unwrap());
    let files: Vec<_> = entries.iter().map(|entry| (&*entry.name, entry.links, entry.data.len())).collect();
    assert_eq!(files, [(&b"."[..], 3, 0), (b"a", 3, 0), (b"b", 3, 0), (b"d", 2, 0), (b"d/c", 3, 7),]);
    let inodes: Vec<_> = entries.iter().filter(|entry| entry.links == 3).map(|entry| entry.inode).collect();
    assert_eq!(inodes[1..], [inodes[1]; 3]);
}

/// The kernel ends an archive at this name, wherever it stands.
#[test]
fn no_file_ends_the_archive() {
    let (file, _) = made(&[LayerBuilder::new().file("TRAILER!!!", 0o644, b"x").finish()]).unwrap();
    let entries = reader::entries(&std::fs::read(file.path()).unwrap());
    assert_eq!(entries.last().unwrap().name, b"./TRAILER!!!");
    assert_eq!(reader::read(file.path())[1].path, "/TRAILER!!!");
}

#[test]
fn what_is_lost_is_told() {
    let layer = |count: usize| {
        let files = (0..count).fold(LayerBuilder::new(), |layer, at| {
            layer.xattr("user.x", "1").file(format!("{at}"), 0o644, b"")
        });
        made(&[files.hard_link("link", "0").finish()]).unwrap().1.notes
    };
    assert_eq!(layer(1), ["1 file loses its extended attributes: cpio has none"]);
    assert_eq!(layer(2), ["2 files lose their extended attributes: cpio has none"]);
    assert_eq!(made(&[LayerBuilder::new().file("f", 0o644, b"").finish()]).unwrap().1, Made::default());
}

#[test]
fn what_does_not_fit_is_refused_and_named() {
    let long = vec!["p".repeat(200); 21].join("/");
    for (layer, path, message) in [
        (
            LayerBuilder::new().sparse_file("large", 0o644, 1 << 32, &[]),
            "/large".to_owned(),
            "a file of 4.0 GiB, the limit is 3.9 GiB",
        ),
        (
            LayerBuilder::new().pax("path", &long[..4096]).file("x", 0o644, b""),
            format!("/{}", &long[..4096]),
            "a path of 4096 bytes, the limit of an initramfs is 4095",
        ),
    ] {
        let error = made(&[layer.finish()]).map(drop).unwrap_err();
        assert_eq!((error.kind(), error.message()), (&ErrorKind::Limit, message));
        assert_eq!(error.context("path"), Some(&*path));
    }
}

/// A file of nearly 4 GiB that has no data takes no room.
#[test]
fn the_largest_hole_stays_one() {
    use std::os::unix::fs::MetadataExt as _;
    let size = u64::from(u32::MAX);
    let layer = LayerBuilder::new().sparse_file("hole", 0o644, size, &[(size - 1, b"x")]).finish();
    let (file, _) = made(&[layer]).unwrap();
    let metadata = file.as_file().metadata().unwrap();
    assert!(metadata.len() > size && metadata.blocks() * 512 < 1 << 20, "{metadata:?}");
}

/// Whatever a later change does to its bytes needs another version of its format.
#[test]
fn the_bytes_are_those_of_version_2() {
    let layers = plyfold_conformance::samples::rootfs().images[0].layers.clone();
    let layers: Vec<_> = layers.iter().map(|layer| layer.tar.to_vec()).collect();
    let (file, _) = made(&layers).unwrap();
    let digest = digest::sha256(&std::fs::read(file.path()).unwrap());
    assert_eq!(Cpio.format().to_string(), "cpio-v2");
    assert_eq!(digest.to_string(), "sha256:bb6a86e7b709c71b5801039a94cbf8c240c44e9c90d45288209f438abb5ee107");
}

#[test]
fn a_program_that_links_it_has_the_format() {
    let formats = Materializers::linked().unwrap();
    let cpio = formats.open("cpio", &Options::default()).unwrap();
    assert_eq!(cpio.format(), Cpio.format());
    let error = formats.open("cpio", &Options::parse(["level=9"]).unwrap()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config);
}
