//! Layers, and images of them.

use std::io::Cursor;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::layer::{LayerOptions, LayerTar, TreeLimits};
use plyfold_core::tree::MergedTree;
use plyfold_core::{InputArtifact, Materializer as _, Result};
use plyfold_erofs::{ErofsFlat, ErofsLayer, ErofsMerged, Options};
use tempfile::{NamedTempFile, TempPath};

/// One layer with each kind of file and everything that EROFS can say about one.
pub(crate) fn rich_layer() -> Vec<u8> {
    let capability = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let mut layer = LayerBuilder::new()
        .mtime("1700000000.000000001")
        .owner(0, 7)
        .dir("./", 0o751)
        .xattr("user.comment", "a directory")
        .dir("etc", 0o755)
        .mtime("1700000000.123456789")
        .file("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\n")
        .hard_link("etc/passwd-", "etc/passwd")
        .symlink("etc/mtab", "../proc/mounts")
        .pax("linkpath", "x".repeat(4095))
        .symlink("etc/long", "")
        .dir("bin", 0o755)
        .xattr("security.capability", capability)
        .xattr("user.shared", "shared")
        .file("bin/ping", 0o4755, &[7; 5000])
        .xattr("user.shared", "shared")
        .xattr("user.own", [0, 1, 2, 255])
        .file("bin/empty", 0o2755, b"")
        .dir("dev", 0o755)
        .char_device("dev/null", 0o666, 1, 3)
        .block_device("dev/loop300", 0o660, 7, 300)
        .fifo("dev/fifo", 0o600)
        .dir("tmp", 0o1777)
        .owner(u64::from(u32::MAX) - 1, 3_000_000)
        .mtime("-1.5")
        .file("tmp/before-1970", 0, &[1])
        .mtime("8589934592.999999999")
        .file("tmp/far-future", 0o400, &[2; 4096])
        .file("tmp/one-more", 0o777, &[3; 4097])
        .file([b'n'; 255], 0o644, b"a long name")
        .file(b"\xff\xfe\x80", 0o644, b"no UTF-8")
        .dir("order", 0o755);
    for name in ["!", "-", "+", "#", "...", "..x", ".x", "a", "A", "~", "\u{e9}"] {
        layer = layer.file(format!("order/{name}"), 0o644, name.as_bytes());
    }
    layer = layer.dir("many", 0o755);
    for number in 0..400 {
        layer = layer.dir(format!("many/subdirectory-{number:03}"), 0o700);
    }
    layer.finish()
}

/// The image of a layer.
pub(crate) fn image(tar: Vec<u8>, options: Options) -> Result<TempPath> {
    let mut file = NamedTempFile::new()?;
    let mut tar = LayerTar::new(Cursor::new(tar), LayerOptions::default())?;
    ErofsLayer::new(options).layer(&mut tar, file.as_file_mut())?;
    Ok(file.into_temp_path())
}

/// The image of layers, bottom first, in one file.
pub(crate) fn flat(tars: &[Vec<u8>], options: Options) -> Result<TempPath> {
    let mut file = NamedTempFile::new()?;
    let layers = tars.iter().map(|tar| LayerTar::new(Cursor::new(tar.clone()), LayerOptions::default()));
    let scratch = tempfile::tempdir()?;
    let image = MergedTree::read(layers, TreeLimits::default(), scratch.path())?;
    ErofsFlat::new(options).image(&image, file.as_file_mut())?;
    Ok(file.into_temp_path())
}

/// The merged image of layer images, bottom first.
pub(crate) fn merged(layers: &[TempPath], options: Options) -> Result<TempPath> {
    let mut file = NamedTempFile::new()?;
    ErofsMerged::new(options).join(&artifacts(layers), file.as_file_mut())?;
    Ok(file.into_temp_path())
}

/// Layer images as a materializer takes them.
pub(crate) fn artifacts(layers: &[TempPath]) -> Vec<InputArtifact> {
    layers.iter().map(|path| InputArtifact::local(path, None).expect("a file is there")).collect()
}
