//! Layers, and images of them.

use std::fs::File;
use std::io::Cursor;
use std::path::Path;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::layer::{LayerOptions, LayerTar, TreeLimits};
use plyfold_core::tree::MergedTree;
use plyfold_core::{InputArtifact, Materializer as _, Result};
use plyfold_erofs::{Compression, ErofsFlat, ErofsLayer, ErofsMerged, ErofsPatch, Options, Patched};
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

/// Words, as a text has them: about a third of the size when compressed.
pub(crate) fn text(size: usize, seed: u64) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "block ", "inode ", "the ", "of ", "cluster ", "extent\n", "a ", "in ", "file ", "index ", "and ",
        "image, ", "layer. ", "is ", "behind ", "tail ",
    ];
    let mut state = seed;
    let mut text = Vec::with_capacity(size + 8);
    while text.len() < size {
        text.extend_from_slice(WORDS[(random(&mut state) >> 4) as usize % 16].as_bytes());
    }
    text.truncate(size);
    text
}

/// What no algorithm makes smaller.
pub(crate) fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    (0..size).map(|_| random(&mut state) as u8).collect()
}

/// The next number of a linear congruential generator.
pub(crate) fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Files that are compressed in each way that there is: well, badly, in part, not at all, and with ends at every edge.
pub(crate) fn varied_layer() -> Vec<u8> {
    let mut layer = LayerBuilder::new().dir("./", 0o755).file("empty", 0o644, b"");
    for (number, size) in
        [1, 63, 64, 65, 100, 1000, 4000, 4095, 4096, 4097, 5000, 8191, 8192, 8193, 12_288, 20_000, 60_000]
            .into_iter()
            .enumerate()
    {
        layer = layer.file(format!("text-{size}"), 0o644, &text(size, 1 + number as u64 % 2));
    }
    for size in [100, 4095, 4096, 4097, 10_000] {
        layer = layer.file(format!("noise-{size}"), 0o644, &noise(size, 3));
    }
    let mixed = [text(30_000, 1), noise(12_001, 3), text(20_000, 2), noise(100, 3)].concat();
    let before = [noise(9_000, 3), text(20_000, 1)].concat();
    layer
        .file("mixed", 0o755, &mixed)
        .file("noise-before-text", 0o644, &before)
        .file("same-as-mixed", 0o644, &mixed)
        .file("nearly-mixed", 0o644, &[&mixed[..60_000], b"end"].concat())
        .file("zeros", 0o644, &vec![0; 300_000])
        .file("zeros-in-text", 0o644, &[text(5_000, 1), vec![0; 100_000], text(5_000, 2)].concat())
        .xattr("user.comment", "of a compressed file")
        .file("with-xattr", 0o600, &text(10_000, 2))
        .hard_link("link", "mixed")
        .symlink("symlink", "mixed")
        .finish()
}

/// The image of a layer.
pub(crate) fn image(tar: Vec<u8>, options: Options) -> Result<TempPath> {
    let mut file = NamedTempFile::new()?;
    let mut tar = LayerTar::new(Cursor::new(tar), LayerOptions::default())?;
    ErofsLayer::new(options).layer(&mut tar, file.as_file_mut())?;
    Ok(file.into_temp_path())
}

/// The image of a layer with compressed files.
pub(crate) fn compressed_layer(tar: &[u8], compression: Compression) -> Result<TempPath> {
    let mut file = NamedTempFile::new()?;
    let mut tar = LayerTar::new(Cursor::new(tar.to_vec()), LayerOptions::default())?;
    ErofsLayer::default().with_compression(compression)?.layer(&mut tar, file.as_file_mut())?;
    Ok(file.into_temp_path())
}

/// The image of layers, bottom first, in one file.
pub(crate) fn flat(tars: &[Vec<u8>], options: Options) -> Result<TempPath> {
    flat_as(tars, &ErofsFlat::new(options))
}

/// The same, with compressed files.
pub(crate) fn compressed(tars: &[Vec<u8>], compression: Compression) -> Result<TempPath> {
    flat_as(tars, &ErofsFlat::default().with_compression(compression)?)
}

fn flat_as(tars: &[Vec<u8>], format: &ErofsFlat) -> Result<TempPath> {
    let mut file = NamedTempFile::new()?;
    let layers = tars.iter().map(|tar| LayerTar::new(Cursor::new(tar.clone()), LayerOptions::default()));
    let scratch = tempfile::tempdir()?;
    let image = MergedTree::read(layers, TreeLimits::default(), scratch.path())?;
    format.image(&image, file.as_file_mut())?;
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

/// What changes files of [`rich_layer`] in each way.
pub(crate) fn rich_change() -> Vec<u8> {
    let mut long = text(9_000, 5);
    long.extend(noise(700, 6));
    LayerBuilder::new()
        .dir("./", 0o700)
        .whiteout("many")
        .whiteout("tmp/one-more")
        .dir("etc", 0o750)
        .xattr("user.comment", "a directory")
        .xattr("user.new", "new")
        .file("etc/hostname", 0o644, b"patched\n")
        .hard_link("etc/group", "etc/passwd")
        .opaque("order")
        .dir("order", 0o755)
        .mtime("1800000000.987654321")
        .file("order/new", 0o600, &long)
        .hard_link("order/again", "order/new")
        .file("bin/ping", 0o4711, &[8; 4096])
        .symlink("bin/pong", "ping")
        .char_device("dev/zero", 0o666, 1, 5)
        .sparse_file("disk", 0o600, 3 << 20, &[(5_000, b"data"), ((3 << 20) - 3, b"end")])
        .file("tmp/a/b/c/implied", 0o644, b"")
        .finish()
}

/// What changes files of [`varied_layer`].
pub(crate) fn varied_change() -> Vec<u8> {
    LayerBuilder::new()
        .whiteout("text-60000")
        .whiteout("zeros")
        .file("noise-4096", 0o600, &text(5_000, 9))
        .file("added", 0o644, &text(70_000, 7))
        .hard_link("text-again", "text-20000")
        .finish()
}

/// A layer whose files share an attribute, and a change after which `inline-3` and `text-163845` are left.
pub(crate) fn shared_attributes() -> (Vec<u8>, Vec<u8>) {
    let value = vec![b'v'; 99];
    let mut layer = LayerBuilder::new().dir("./", 0o755).xattr("user.a", &value).file("other", 0o644, b"");
    for (number, size) in [4_000, 4_020, 8_190, 16_308, 135_096, 64].into_iter().enumerate() {
        let content = noise(size, number as u64);
        layer = layer.xattr("user.a", &value).file(format!("inline-{number}"), 0o644, &content);
    }
    for size in [10_000, 50_000, 300_000, 163_845] {
        layer = layer.xattr("user.a", &value).file(format!("text-{size}"), 0o644, &text(size, size as u64));
    }
    let layer = layer.finish();
    let gone = [0, 1, 2, 4, 5].map(|number| format!("inline-{number}"));
    let texts = [10_000, 50_000, 300_000].map(|size| format!("text-{size}"));
    let change = gone.iter().chain(&texts).fold(LayerBuilder::new(), |change, name| change.whiteout(name));
    (layer, change.whiteout("other").finish())
}

/// Applies changes to an image.
pub(crate) fn patch(image: &Path, changes: &[Vec<u8>]) -> Result<Patched> {
    patch_by(&ErofsPatch::default(), image, changes)
}

pub(crate) fn patch_by(by: &ErofsPatch, image: &Path, changes: &[Vec<u8>]) -> Result<Patched> {
    let file = File::options().read(true).write(true).open(image)?;
    let open = |tar: &Vec<u8>| LayerTar::new(Cursor::new(tar.clone()), LayerOptions::default());
    let scratch = tempfile::tempdir()?;
    by.apply(&file, changes.iter().map(open), scratch.path())
}
