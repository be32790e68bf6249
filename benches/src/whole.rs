//! Whole images out of what is there already: the files of layers, and a plain tar.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use plyfold_core::layer::{LayerOptions, LayerTar, TreeLimits};
use plyfold_core::tree::{LayerFile, LayerReader, LayerSource, MergedTree};
use plyfold_core::{Materializer, Role};
use plyfold_erofs::{ErofsFlat, ErofsLayer};
use plyfold_ext4::Ext4Rootfs;

use crate::measure::{Bench, Goal, HEAD, Program, Result};

/// From the image of a layer, beside a copy of the result; from its tar, beside mkfs.erofs.
pub(crate) fn compare(bench: &Bench, plyfold: &Path, mkfs: &Path, tar: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let at = |name: &str| scratch.path().join(name);
    let layer = at("layer.erofs");
    let mut file = File::options().read(true).write(true).create_new(true).open(&layer)?;
    ErofsLayer::default().layer(&mut LayerTar::new(File::open(tar)?, LayerOptions::default())?, &mut file)?;
    println!("{HEAD}");
    let this = env::current_exe()?;
    let of_layer = |format: &str| Program::new(&this).args(["whole-of", format]).out(&at("ours")).arg(&layer);
    for (format, most) in [("erofs", 1.2), ("ext4", 2.0)] {
        let result = at(format);
        Program::new(&this).args(["whole-of", format]).out(&result).arg(&layer).run()?;
        let copy = Program::new("cp").arg("--reflink=never").arg(&result).out(&at("theirs"));
        let case = format!("{format} of layers beside cp");
        bench.compare(&case, &of_layer(format), &copy, Goal::Ratio(most))?;
        fs::remove_file(result)?;
    }
    let ours = |options: &[&str]| {
        let of_tar = Program::new(plyfold).arg("layer").arg(tar).args(["--as", "erofs"]);
        of_tar.args(options).arg("--out").out(&at("ours"))
    };
    let theirs = |options: &[&str]| {
        Program::new(mkfs).args(["--quiet", "--tar=f"]).args(options).out(&at("theirs")).arg(tar)
    };
    bench.compare("erofs of a tar", &ours(&[]), &theirs(&[]), Goal::Ratio(0.6))?;
    let lz4 = ["-m", "compress=lz4", "-m", "cluster=4096"];
    bench.compare("erofs of a tar by LZ4", &ours(&lz4), &theirs(&["-zlz4"]), Goal::Ratio(0.6))
}

/// The measured half: from the image of a layer to one of the whole, as after a pull.
pub(crate) fn make(format: &str, out: &Path, layer: &Path) -> Result<()> {
    let mut readers = LayerReader::linked().filter(|reader| reader.format == "erofs-layers");
    let reader = *readers.next().ok_or("no reader of layers is linked")?;
    let layer = LayerFile::new(File::open(layer)?, reader, None).map(LayerSource::from);
    let folder = out.parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
    let image = MergedTree::from_sources([layer], TreeLimits::default(), &folder)?;
    let mut out = File::options().read(true).write(true).create_new(true).open(out)?;
    match format {
        "ext4" => {
            let rootfs = Ext4Rootfs::new();
            rootfs.image(&image, &mut out)?;
            rootfs.adapt(Role::Image, &mut out)?;
        }
        _ => drop(ErofsFlat::default().image(&image, &mut out)?),
    }
    Ok(image.check_unchanged()?)
}
