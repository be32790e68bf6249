//! Inputs that several cases have.

use std::path::{Path, PathBuf};

use crate::compare::bench::Bench;
use crate::compare::inputs;
use crate::compare::peers::Peer;
use crate::compare::program::Program;
use crate::result::Result;

/// What mkfs.erofs is called with for an image like that of a layer.
pub(super) const LIKE_A_LAYER: [&str; 6] =
    ["--quiet", "--tar=f", "--aufs", "-b4096", "-Enoinline_data", "--sort=none"];

/// The plain tar of a root file system.
pub(super) fn rootfs(bench: &Bench) -> Result<PathBuf> {
    if let Some(given) = &bench.options.rootfs {
        return Ok(given.clone());
    }
    bench.input("rootfs.tar", |path| inputs::rootfs(path, bench.size(400, 60)))
}

pub(super) fn rootfs_gzip(bench: &Bench) -> Result<PathBuf> {
    let tar = rootfs(bench)?;
    bench.input("rootfs.tar.gz", |path| inputs::gzip(&tar, path))
}

/// Many small files.
pub(super) fn small_gzip(bench: &Bench) -> Result<PathBuf> {
    let tar = bench.input("small.tar", |path| inputs::small(path, bench.size(50_000, 10_000)))?;
    bench.input("small.tar.gz", |path| inputs::gzip(&tar, path))
}

/// What an input is, in words.
pub(super) fn described(bench: &Bench, tar: &Path) -> String {
    let what = if bench.options.rootfs.is_some() {
        "a root file system"
    } else {
        "a root file system that is made up"
    };
    let size = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len() / 1_000_000);
    let plain = rootfs(bench).map_or(0, |tar| size(&tar));
    format!("{what}, {plain} MB as tar, {} MB as it comes", size(tar))
}

/// A layout with an image of these layers, by the name of the image.
pub(super) fn layout(bench: &Bench, name: &str, layers: &[PathBuf]) -> Result<PathBuf> {
    bench.input(&format!("layout-{name}"), |path| inputs::layout(path, layers))
}

/// The image of a root file system and a layer of small files over it.
pub(super) fn two_layers(bench: &Bench) -> Result<PathBuf> {
    layout(bench, "two", &[rootfs_gzip(bench)?, small_gzip(bench)?])
}

/// Layers of noise, so many of so many bytes.
pub(super) fn many_layers(bench: &Bench, name: &str, count: usize, bytes: usize) -> Result<PathBuf> {
    let layer = |number: usize| {
        let tar =
            bench.input(&format!("{name}-{number}.tar"), |path| inputs::one_of_many(path, number, bytes))?;
        bench.input(&format!("{name}-{number}.tar.gz"), |path| inputs::gzip(&tar, path))
    };
    let layers = (0..count).map(layer).collect::<Result<Vec<_>>>()?;
    layout(bench, name, &layers)
}

/// Puts the image of a layout into the registry, and names it there.
pub(super) fn pushed(bench: &Bench, layout: &Path, name: &str) -> Result<String> {
    let image = format!("{}/bench/{name}:latest", bench.registry()?.host);
    let source = format!("oci:{}:latest", layout.display());
    bench.ours(&["copy", "--quiet", &source, &image]).run()?;
    Ok(image)
}

/// A converter that this program is: zlib-rs alone, or a measured half of a command.
pub(super) fn this_program(bench: &Bench, words: &[&str]) -> Result<(Peer, Program)> {
    let path = std::env::current_exe()?;
    let program = Program::new(&path).args(words);
    Ok((Peer { path, version: bench.plyfold.version.clone() }, program))
}
