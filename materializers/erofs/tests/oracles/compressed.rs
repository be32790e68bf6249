//! Images with compressed files, as the kernel and erofs-utils see them.

use std::fs;
use std::path::Path;

use plyfold_conformance::oracle::{Aspect, Failure, Mount, Run, Verdict};
use plyfold_conformance::samples::LayerBuilder;
use plyfold_conformance::tree::mounted;
use plyfold_erofs::{Compression, Options};
use tempfile::NamedTempFile;

use crate::common::{compressed, compressed_layer, flat, image, noise, rich_layer, text, varied_layer};
use crate::newest::MKFS;
use crate::{equal, extracted, read};

pub(crate) fn by(algorithm: &str, cluster: u32) -> Compression {
    let compression = algorithm.parse().and_then(Compression::new);
    compression.and_then(|compression| compression.with_cluster(cluster)).expect("a compression")
}

/// LZ4 alone where the kernel is too old for Zstandard.
pub(crate) fn algorithms() -> Vec<&'static str> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-', '+']).map_while(|number| number.trim().parse().ok());
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let all = ["lz4", "lz4hc,9", "zstd,3", "zstd,9"];
    all[..if version < (6, 10) { 2 } else { 4 }].to_vec()
}

fn layers() -> [Vec<u8>; 3] {
    let data = [text(1_500_000, 1), noise(1_200_001, 2), text(2_321_987, 3), vec![0; 900_000], text(777, 4)];
    let large = LayerBuilder::new().dir("./", 0o755).file("large", 0o644, &data.concat());
    let mut edges = LayerBuilder::new().dir("./", 0o755);
    for size in (0..60).chain(4_000..4_150).chain((1..80).map(|step| step * 1_021)) {
        edges = edges.file(format!("{size}"), 0o644, &text(size, size as u64));
    }
    [large.file("noise", 0o644, &noise(1_200_003, 5)).finish(), varied_layer(), edges.finish()]
}

/// Through the kernel, and unpacked by fsck.erofs, which knows LZ4 alone in version 1.5.
pub(crate) fn compressed_files_are_what_they_were() -> Verdict {
    for layer in layers() {
        let layers = [rich_layer(), layer];
        let plain = flat(&layers, Options::default())?;
        let expected = Mount::new("erofs", &plain, "loop,ro")?;
        for algorithm in algorithms() {
            for cluster in [4 << 10, 16 << 10, 64 << 10, 1 << 20] {
                let image = compressed(&layers, by(algorithm, cluster))?;
                let mount = Mount::new("erofs", &image, "loop,ro")?;
                equal(expected.path(), mount.path(), &[])?;
                if algorithm.starts_with("lz4") {
                    let unpacked = tempfile::tempdir()?;
                    let extract = format!("--extract={}", unpacked.path().display());
                    Run::new("fsck.erofs").args([&extract, "--overwrite"]).arg(&image).success()?;
                    // Version 1.5 restores no extended attributes, links between files and set-uid bits.
                    let ignored = [Aspect::Xattr, Aspect::HardLinks, Aspect::Links, Aspect::Mode];
                    equal(mount.path(), unpacked.path(), &ignored)?;
                }
            }
        }
    }
    Ok(())
}

/// Fragments through the kernel: fsck.erofs 1.5 does not know them, newer ones are asked with all forms.
pub(crate) fn fragments_are_what_they_were() -> Verdict {
    for layer in layers() {
        let layers = [rich_layer(), layer];
        let plain = flat(&layers, Options::default())?;
        let expected = Mount::new("erofs", &plain, "loop,ro")?;
        for algorithm in algorithms() {
            for cluster in [4 << 10, 16 << 10, 64 << 10, 1 << 20] {
                let image = compressed(&layers, by(algorithm, cluster).with_fragments())?;
                let mount = Mount::new("erofs", &image, "loop,ro")?;
                equal(expected.path(), mount.path(), &[])?;
            }
        }
    }
    Ok(())
}

/// Layers that are compressed while their tars are read show the kernel what those show that are not.
pub(crate) fn compressed_layers_are_what_they_were() -> Verdict {
    for layer in layers().into_iter().chain([rich_layer()]) {
        let plain = image(layer.clone(), Options::default())?;
        let expected = Mount::new("erofs", &plain, "loop,ro")?;
        let all = [("lz4", 4 << 10), ("lz4", 64 << 10), ("lz4hc,9", 1 << 20), ("zstd,3", 64 << 10)];
        for (algorithm, cluster) in all.into_iter().filter(|(algorithm, _)| algorithms().contains(algorithm))
        {
            let compressed = compressed_layer(&layer, by(algorithm, cluster))?;
            let mount = Mount::new("erofs", &compressed, "loop,ro")?;
            equal(expected.path(), mount.path(), &[])?;
            if algorithm.starts_with("lz4") {
                Run::new("fsck.erofs").arg(&compressed).success()?;
            }
        }
    }
    Ok(())
}

pub(crate) fn compressed_images_are_as_small_as_those_of_mkfs() -> Verdict {
    compressed_images_are_as_small_as_those_of("mkfs.erofs", &["lz4", "lz4hc,9"])
}

pub(crate) fn compressed_images_are_as_small_as_those_of_the_newest_mkfs() -> Verdict {
    compressed_images_are_as_small_as_those_of(MKFS, &algorithms())
}

/// A tree of less than 1 MB: few files of each size, as sources and settings have.
fn small_layer() -> Vec<u8> {
    let mut layer = LayerBuilder::new().dir("./", 0o755);
    for number in 0..150_usize {
        let size = 90 + number * number * 29 % 22_000;
        layer = layer.file(format!("{number}"), 0o644, &text(size, number as u64 + 100));
    }
    layer.finish()
}

/// What mkfs.erofs makes is read, and what is made here is at most 3 % larger.
fn compressed_images_are_as_small_as_those_of(mkfs: &str, algorithms: &[&str]) -> Verdict {
    for layer in layers().into_iter().chain([small_layer()]) {
        let tree = extracted(&layer)?;
        let size = |by| Ok::<_, Failure>(fs::metadata(compressed(std::slice::from_ref(&layer), by)?)?.len());
        for algorithm in algorithms {
            let clusters =
                if algorithm.starts_with("lz4hc") { &[16 << 10][..] } else { &[4 << 10, 16 << 10, 64 << 10] };
            for &cluster in clusters {
                let by = by(algorithm, cluster);
                let (alone, together) = (size(by.clone())?, size(by.with_fragments())?);
                let name = algorithm.replacen("zstd,", "zstd,level=", 1);
                for (option, ours) in
                    [(&[][..], alone), (&["-Eztailpacking"], alone), (&["-Efragments"], together)]
                {
                    // Version 1.5 has no fragments. Newer ones store what files have in common at their starts once, too.
                    if option == ["-Efragments"] && (mkfs != MKFS || layer == varied_layer()) {
                        continue;
                    }
                    let theirs = made_by(mkfs, tree.path(), &name, cluster, option)?;
                    let bar = fs::metadata(theirs.path())?.len() * 103 / 100;
                    assert!(ours <= bar, "{algorithm}, {cluster}, {option:?}: {ours} bytes, {bar} at most");
                    sees_what_the_kernel_shows(theirs.path())?;
                }
            }
        }
        for options in [&["-Efragments"][..], &["-Eall-fragments"], &["-Ededupe"], &["-Efragments,dedupe"]] {
            sees_what_the_kernel_shows(made_by(mkfs, tree.path(), "lz4hc", 16 << 10, options)?.path())?;
        }
    }
    Ok(())
}

fn made_by(
    mkfs: &str,
    tree: &Path,
    algorithm: &str,
    cluster: u32,
    options: &[&str],
) -> Result<NamedTempFile, Failure> {
    let image = NamedTempFile::new()?;
    let compression = [format!("-z{algorithm}"), format!("-C{cluster}")];
    Run::new(mkfs).args(compression).args(options).arg(image.path()).arg(tree).success()?;
    Ok(image)
}

fn sees_what_the_kernel_shows(image: &Path) -> Verdict {
    let mount = Mount::new("erofs", image, "loop,ro")?;
    assert!(mounted(mount.path())? == read(image), "the reader does not see what the kernel shows");
    Ok(())
}
