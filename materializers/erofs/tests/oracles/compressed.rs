//! Images with compressed files, as the kernel and erofs-utils see them.

use std::fs;
use std::path::{Path, PathBuf};

use plyfold_conformance::oracle::{Aspect, Failure, Mount, Run, Verdict, debian_root};
use plyfold_conformance::samples::LayerBuilder;
use plyfold_conformance::tree::mounted;
use plyfold_erofs::{Compression, Options};
use tempfile::NamedTempFile;

use crate::common::{
    compressed, compressed_layer, flat, image, noise, random, rich_layer, text, varied_layer,
};
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

/// LZ4HC searches less than mkfs.erofs where that costs little: what is made here is at most 3 % larger of any kind of data.
pub(crate) fn lz4hc_is_as_dense_as_that_of_the_newest_mkfs() -> Verdict {
    for (kind, layer) in kinds()? {
        let tree = extracted(&layer)?;
        for algorithm in ["lz4hc,9", "lz4hc,12"] {
            for cluster in [4 << 10, 16 << 10, 64 << 10] {
                let ours = compressed(std::slice::from_ref(&layer), by(algorithm, cluster))?;
                let theirs = made_by(MKFS, tree.path(), algorithm, cluster, &["-Eztailpacking"])?;
                let (ours, theirs) = (fs::metadata(&ours)?.len(), fs::metadata(theirs.path())?.len());
                let bar = theirs * 103 / 100;
                assert!(ours <= bar, "{kind}, {algorithm}, {cluster}: {ours} bytes, {bar} at most");
            }
        }
    }
    Ok(())
}

/// Data of several kinds, some of it in one large file and some in many. Programs are those of the Debian root, where that has been
/// made.
fn kinds() -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
    let (mut state, mut lines, mut records) = (1, Vec::new(), Vec::new());
    while lines.len() < 3_000_000 {
        let (host, status, time) = (random(&mut state) % 9, random(&mut state) % 3, random(&mut state) % 900);
        let line = format!("{{\"host\": \"node-{host}\", \"status\": {status}, \"duration\": {time}}}\n");
        lines.extend_from_slice(line.as_bytes());
        records.extend_from_slice(&(records.len() as u32 / 5).to_le_bytes());
        records.extend_from_slice(&[host as u8, 0, status as u8, 0]);
        records.extend_from_slice(&(time % 100).to_le_bytes());
    }
    let file = |content: &[u8]| LayerBuilder::new().dir("./", 0o755).file("file", 0o644, content).finish();
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = SOURCES.map(|folder| crate_folder.join(folder));
    let mut kinds = vec![
        ("text", file(&text(3_000_000, 1))),
        ("lines", file(&lines)),
        ("records", file(&records)),
        ("small files", small_layer()),
        ("sources", files_of(&sources, 1 << 20)?),
    ];
    let programs = [debian_root().join("usr/bin"), debian_root().join("usr/lib/x86_64-linux-gnu")];
    if programs.iter().all(|folder| folder.is_dir()) {
        kinds.push(("programs", files_of(&programs, 12 << 20)?));
    }
    Ok(kinds)
}

/// Folders with files of Rust.
const SOURCES: [&str; 8] =
    ["src", "src/compress", "src/flat", "src/layer", "src/patch", "src/reader", "tests/it", "tests/oracles"];

/// The files of folders, up to so many bytes of each.
fn files_of(folders: &[PathBuf], most: u64) -> Result<Vec<u8>, Failure> {
    let mut layer = LayerBuilder::new().dir("./", 0o755);
    for (number, folder) in folders.iter().enumerate() {
        let mut left = most;
        let mut paths: Vec<_> =
            fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_, Failure>>()?;
        paths.sort();
        for (index, path) in paths.iter().enumerate() {
            let size = fs::symlink_metadata(path)?;
            if size.is_file() && size.len() <= left {
                left -= size.len();
                layer = layer.file(format!("{number}-{index}"), 0o644, &fs::read(path)?);
            }
        }
    }
    Ok(layer.finish())
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
