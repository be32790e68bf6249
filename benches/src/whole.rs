//! Whole images out of what is there already: the files of layers, and a plain tar.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use plyfold_core::layer::{LayerOptions, LayerTar, TreeLimits};
use plyfold_core::tree::{LayerFile, LayerReader, LayerSource, MergedTree};
use plyfold_core::{Materializer, Role};
use plyfold_erofs::{ErofsFlat, ErofsLayer};
use plyfold_ext4::Ext4Rootfs;

use crate::measure::{Bench, Goal, Program, Result};

/// From the image of a layer, beside a copy of the result; from its tar, beside mkfs.erofs.
pub(crate) fn compare(bench: &Bench, plyfold: &Path, mkfs: &Path, tar: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let at = |name: &str| scratch.path().join(name);
    let layer = layer_of(tar, &at("layer.erofs"))?;
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
        let of_tar =
            Program::new(plyfold).arg("layer").arg(tar).args(["--as", "erofs", "--no-digests", "--no-sync"]);
        of_tar.args(options).arg("--out").out(&at("ours"))
    };
    let theirs = |options: &[&str]| {
        Program::new(mkfs).args(["--quiet", "--tar=f"]).args(options).out(&at("theirs")).arg(tar)
    };
    // mkfs.erofs hashes nothing.
    bench.compare("erofs of a tar", &ours(&[]), &theirs(&[]), Goal::Ratio(0.6))?;
    let cases = [
        ("LZ4, 4 KiB", "compress=lz4", "cluster=4K", ["-zlz4", "-C4096"]),
        ("LZ4, 64 KiB", "compress=lz4", "cluster=64K", ["-zlz4", "-C65536"]),
        ("zstd 3, 64 KiB", "compress=zstd,3", "cluster=64K", ["-zzstd,level=3", "-C65536"]),
    ];
    for (case, compress, cluster, peer) in cases {
        let ours = ours(&["-m", compress, "-m", cluster]);
        bench.compare(&format!("erofs by {case}"), &ours, &theirs(&peer), Goal::Ratio(0.6))?;
    }
    Ok(())
}

/// Makes the image of a layer, as it is kept after a pull.
pub(crate) fn layer_of(tar: &Path, out: &Path) -> Result<PathBuf> {
    let mut file = File::options().read(true).write(true).create_new(true).open(out)?;
    ErofsLayer::default().layer(&mut LayerTar::new(File::open(tar)?, LayerOptions::default())?, &mut file)?;
    Ok(out.to_owned())
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
