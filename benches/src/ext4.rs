//! A whole image as ext4, beside `mke2fs -d` and `cp -a` of the same tree.

use std::env;
use std::fs::{self, File};
use std::path::Path;

use plyfold_core::layer::{LayerOptions, LayerTar, TreeLimits};
use plyfold_core::tree::MergedTree;
use plyfold_core::{Materializer as _, Role};
use plyfold_ext4::Ext4Rootfs;

use crate::measure::{Bench, Goal, HEAD, Program, Result};
use crate::whole;

const GIB: u64 = 1 << 30;

pub(crate) fn compare(bench: &Bench, tar: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let at = |name: &str| scratch.path().join(name);
    let tree = at("tree");
    fs::create_dir(&tree)?;
    let flags = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"];
    Program::new("tar").args(flags).arg(tar).arg("-C").arg(&tree).run()?;
    println!("{HEAD}");
    let layer = whole::layer_of(tar, &at("layer.erofs"))?;
    let this = env::current_exe()?;
    let of_layers = Program::new(&this).args(["whole-of", "ext4"]).out(&at("ours")).arg(&layer);
    let of_tar = Program::new(&this).arg("ext4-of").out(&at("ours")).arg(tar);
    let (theirs, copy) = (at("theirs"), at("copy"));
    let mke2fs = Program::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&tree).out(&theirs).arg("4G");
    bench.compare("ext4 of layers beside mke2fs -d", &of_layers, &mke2fs, Goal::Ratio(0.5))?;
    let copied = Program::new("cp").args(["-a", "--reflink=never"]).arg(&tree).out(&copy);
    bench.compare("ext4 of a tar beside cp -a", &of_tar, &copied, Goal::Ratio(2.0))
}

/// The measured half: from the tar of a layer to a disk of 4 GiB.
pub(crate) fn make(out: &Path, tar: &Path) -> Result<()> {
    let layer = LayerTar::new(File::open(tar)?, LayerOptions::default());
    let scratch = tempfile::tempdir()?;
    let image = MergedTree::read([layer], TreeLimits::default(), scratch.path())?;
    let mut out = File::options().read(true).write(true).create_new(true).open(out)?;
    let rootfs = Ext4Rootfs::new().size(4 * GIB)?;
    rootfs.image(&image, &mut out)?;
    rootfs.adapt(Role::Image, &mut out)?;
    Ok(())
}
