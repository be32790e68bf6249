//! Inputs that are right: what this project writes, and what mkfs.erofs does.

use std::fs::{self, File};
use std::io::{Cursor, Read as _, Seek as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use plyfold_conformance::samples::{self, LayerBuilder};
use plyfold_core::layer::{LayerOptions, LayerTar, TreeLimits};
use plyfold_core::tree::MergedTree;
use plyfold_core::{InputArtifact, Materializer, Sink};
use plyfold_erofs::{Compression, ErofsFlat, ErofsLayer, ErofsMerged, ErofsTar, Options};
use plyfold_ext4::{Ext4Rootfs, Journal};

use self::log::{Form, Step};
use crate::result::Result;

#[expect(dead_code, reason = "shared with the tests of that crate, which use all of it")]
#[path = "../../../materializers/ext4/tests/it/log.rs"]
mod log;

/// The layers of images of all kinds of files.
pub(super) fn tars() -> Vec<Vec<u8>> {
    let layers = |sample: samples::Sample| sample.images.into_iter().take(1).flat_map(|image| image.layers);
    let samples = layers(samples::rootfs()).chain(layers(samples::image()));
    samples.map(|layer| layer.tar.to_vec()).chain([samples::huge_file(), varied()]).collect()
}

/// Small and large files, that compress and that do not, links, attributes, a large directory.
pub(super) fn varied() -> Vec<u8> {
    let text: Vec<u8> = (0..200_000_u32).map(|at| b'a' + (at.wrapping_mul(at) >> 7) as u8 % 7).collect();
    let mut layer = LayerBuilder::new().dir("./", 0o755).dir("d", 0o755).file("text", 0o644, &text);
    for number in 0..150 {
        layer = layer.file(format!("d/{number}"), 0o600, &text[number * 100..number * 113]);
    }
    let layer = layer.xattr("user.a", "1").xattr("security.b", [7; 300]).file("attributes", 0o644, b"x");
    let layer = layer.hard_link("link", "text").symlink("sym", "d/1").char_device("null", 0o666, 1, 3);
    layer.whiteout("gone").opaque("d").finish()
}

fn layer(tar: &[u8]) -> plyfold_core::Result<LayerTar> {
    LayerTar::new(Cursor::new(tar.to_vec()), LayerOptions::default())
}

/// The image of layers.
pub(super) fn image(tars: &[Vec<u8>]) -> plyfold_core::Result<MergedTree> {
    MergedTree::read(tars.iter().map(|tar| layer(tar)), TreeLimits::default(), &std::env::temp_dir())
}

/// What `make` writes.
pub(super) fn written(
    make: impl FnOnce(&mut dyn Sink) -> plyfold_core::Result<plyfold_core::Made>,
) -> plyfold_core::Result<Vec<u8>> {
    let mut file = tempfile::tempfile()?;
    make(&mut file)?;
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// EROFS images of every form.
pub(super) fn erofs() -> Result<Vec<Vec<u8>>> {
    let rootfs: Vec<_> = tars().into_iter().take(3).collect();
    let mut images = Vec::new();
    for size in [512, 4096] {
        let options = Options::default().with_block_size(size)?;
        for tar in tars() {
            images.push(written(|out| ErofsLayer::new(options.clone()).layer(&mut layer(&tar)?, out))?);
        }
        images.push(written(|out| ErofsFlat::new(options).image(&image(&rootfs)?, out))?);
    }
    images.push(written(|out| ErofsTar::default().layer(&mut layer(&varied())?, out))?);
    for (algorithm, cluster) in [("lz4", 4096), ("lz4", 65_536), ("lz4hc", 16_384), ("zstd,1", 65_536)] {
        let compression = Compression::new(algorithm.parse()?)?.with_cluster(cluster)?;
        let flat = ErofsFlat::default().with_compression(compression)?;
        images.push(written(|out| flat.image(&image(&[varied()])?, out))?);
    }
    let folder = tempfile::tempdir()?;
    let layers = files(folder.path(), &rootfs)?;
    let mut merged = written(|out| ErofsMerged::default().join(&layers, out))?;
    images.push(merged.clone());
    // With its devices behind it.
    for path in fs::read_dir(folder.path())? {
        merged.extend(fs::read(path?.path())?);
    }
    images.push(merged);
    // Of mkfs.erofs.
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../materializers/erofs/tests/it/samples");
    let mut names: Vec<PathBuf> =
        fs::read_dir(samples)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    names.sort();
    for path in names.iter().filter(|path| path.extension().is_some_and(|extension| extension == "zst")) {
        images.push(zstd::decode_all(File::open(path)?)?);
    }
    // Sparse ones take too long to copy.
    images.retain(|image| image.len() < 8 << 20);
    Ok(images)
}

/// The images of layers as files of a folder.
pub(super) fn files(folder: &Path, tars: &[Vec<u8>]) -> Result<Vec<InputArtifact>> {
    let mut files = Vec::new();
    for (number, tar) in tars.iter().enumerate() {
        let path = folder.join(format!("layer-{number:02}.erofs"));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
        ErofsLayer::default().layer(&mut layer(tar)?, &mut file)?;
        files.push(InputArtifact::local(&path, None)?);
    }
    Ok(files)
}

/// ext4 file systems. Of some the journal has to be replayed: where its blocks begin, and all of it, is added to `hot`.
pub(super) fn ext4(hot: &mut Vec<Range<usize>>) -> Result<Vec<Vec<u8>>> {
    let small = LayerBuilder::new().file("f", 0o644, &[7; 5000]).symlink("s", "f").finish();
    let none = Ext4Rootfs::new().journal(Journal::None)?;
    let mut disks = Vec::new();
    for tar in [varied(), small] {
        disks.push(written(|out| none.image(&image(&[tar])?, out))?);
    }
    let content = LayerBuilder::new().dir("d", 0o755).file("d/f", 0o644, &[7; 5000]).symlink("s", "d/f");
    let content = content.file("journal", 0o600, &vec![log::FILLED; 14 * log::BLOCK]).finish();
    let plain = written(|out| none.image(&image(&[content])?, out))?;
    let mut area = 0..0;
    for (checksums, is_wide, has_sums) in
        [(0, false, false), (0, true, false), (2, true, false), (3, true, true)]
    {
        let mut disk = plain.clone();
        if !has_sums {
            disk[1024 + 0x65] &= !4; // metadata_csum
        }
        let form = Form { checksums, is_wide, is_async: false, start: 9, sequence: 7 };
        // Each block becomes what it is already.
        let block =
            |number: u64| Step::Write(number, plain[number as usize * log::BLOCK..][..log::BLOCK].to_vec());
        let used = (1..).filter(|number| block_is_used(&plain, *number)).take(5).collect::<Vec<u64>>();
        let first = [Step::Revoke(vec![used[4], 1 << 20]), block(used[0]), Step::Commit(1)];
        let second = [block(used[1]), block(used[2]), Step::Commit(2)];
        area = log::journal(&mut disk, form, &[&first[..], &second].concat());
        disks.push(disk);
    }
    hot.extend(area.clone().step_by(log::BLOCK).map(|at| at..at + 64));
    hot.push(area);
    Ok(disks)
}

fn block_is_used(disk: &[u8], number: u64) -> bool {
    disk[number as usize * log::BLOCK..][..log::BLOCK].iter().any(|byte| ![0, log::FILLED].contains(byte))
}

/// Two equal layers, in a folder.
pub(super) fn two_layers(folder: &Path) -> Result<[InputArtifact; 2]> {
    let layer = || LayerBuilder::new().file("f", 0o644, &[7; 100]).finish();
    let layers = files(folder, &[layer(), layer()])?;
    layers.try_into().map_err(|_| "two layers are not two".into())
}
