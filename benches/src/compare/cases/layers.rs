//! One layer to an EROFS image.

use std::path::Path;

use super::shared::{LIKE_A_LAYER, described, rootfs, rootfs_gzip, small_gzip, this_program};
use crate::compare::bench::{Bench, Found, Rival};
use crate::compare::program::Program;
use crate::compare::record::Record;
use crate::compare::{check, inputs};
use crate::result::Result;

pub(crate) fn gzip(bench: &Bench) -> Result<Record> {
    let tar = rootfs_gzip(bench)?;
    let rivals = vec![
        inflate(bench, &tar).map(|rival| rival.goal(1.06)),
        mkfs(bench, &tar, &["--ungzip"]).map(|rival| rival.goal(0.41)),
        microsandbox(bench, &tar).map(|rival| rival.goal(0.39)),
    ];
    converted(
        bench,
        "tar.gz to EROFS, with both digests",
        &described(bench, &tar),
        layer(bench, &tar),
        rivals,
    )
}

pub(crate) fn plain(bench: &Bench) -> Result<Record> {
    let tar = rootfs(bench)?;
    let hash = bench.rival("openssl", "openssl dgst -sha256, which writes nothing", |path| {
        Program::new(path).args(["dgst", "-sha256"]).arg(&tar)
    });
    let rivals = vec![hash.map(|rival| rival.goal(1.05)), mkfs(bench, &tar, &[]), microsandbox(bench, &tar)];
    converted(bench, "tar to EROFS, with its digest", &described(bench, &tar), layer(bench, &tar), rivals)
}

pub(crate) fn undigested(bench: &Bench) -> Result<Record> {
    let tar = rootfs(bench)?;
    let copy = bench.rival("cp", "cp --reflink=never", |path| {
        Program::new(path).arg("--reflink=never").arg(&tar).out(&bench.at("copied"))
    });
    let rivals = vec![copy.map(|rival| rival.goal(1.1)), mkfs(bench, &tar, &[])];
    let ours = layer(bench, &tar).arg("--no-digests");
    converted(bench, "tar to EROFS, without digests", &described(bench, &tar), ours, rivals)
}

pub(crate) fn zstandard(bench: &Bench) -> Result<Record> {
    let plain = rootfs(bench)?;
    let tar = bench.input("rootfs.tar.zst", |path| inputs::zstandard(&plain, path))?;
    let piped = bench.peers.find("zstd").and_then(|zstd| {
        bench.rival("mkfs.erofs", "zstd -dc into mkfs.erofs", |mkfs| {
            let script = "\"$1\" -dc \"$2\" | \"$3\" --quiet --tar=f --aufs -b4096 -Enoinline_data --sort=none \"$4\" /dev/stdin";
            Program::shell(script).arg(&zstd.path).arg(&tar).arg(mkfs).out(&bench.at("mkfs.erofs"))
        })
    });
    let rivals = vec![piped.map(|rival| rival.goal(0.85)), microsandbox(bench, &tar)];
    converted(
        bench,
        "tar.zst to EROFS, with both digests",
        &described(bench, &tar),
        layer(bench, &tar),
        rivals,
    )
}

pub(crate) fn small_files(bench: &Bench) -> Result<Record> {
    let tar = small_gzip(bench)?;
    let rivals = vec![
        inflate(bench, &tar),
        mkfs(bench, &tar, &["--ungzip"]).map(|rival| rival.goal(0.3)),
        microsandbox(bench, &tar),
    ];
    let input = format!("{} files of one or two KB", bench.size(50_000, 10_000));
    converted(bench, "tar.gz of small files to EROFS", &input, layer(bench, &tar), rivals)
}

pub(crate) fn one_directory(bench: &Bench) -> Result<Record> {
    let files = bench.size(100_000, 10_000);
    let tar = bench.input("flat.tar", |path| inputs::flat(path, files))?;
    // mkfs.erofs takes a minute for 100,000 names of one directory.
    let rivals =
        if bench.options.quick { vec![mkfs(bench, &tar, &[])] } else { vec![microsandbox(bench, &tar)] };
    let input = format!("{files} files of 100 bytes, out of order");
    converted(bench, "One directory of many entries", &input, layer(bench, &tar), rivals)
}

pub(crate) fn million(bench: &Bench) -> Result<Record> {
    let files = bench.size(1_000_000, 100_000);
    let tar = bench.input("million.tar", |path| inputs::small(path, files))?;
    let rivals = vec![mkfs(bench, &tar, &[]), microsandbox(bench, &tar)];
    let input = format!("{files} files of one or two KB in folders of 100");
    converted(bench, "A million entries", &input, layer(bench, &tar), rivals)
}

pub(crate) fn four_gib(bench: &Bench) -> Result<Record> {
    let gib = bench.size(4, 1);
    let tar = bench.input("sparse.tar", |path| inputs::sparse(path, gib << 30))?;
    let rivals = vec![mkfs(bench, &tar, &[]), microsandbox(bench, &tar)];
    let input = format!("one file of {gib} GiB, 64 KiB of noise in each 16 MiB, plain tar with holes");
    converted(bench, "One layer of 4 GiB", &input, layer(bench, &tar), rivals)
}

/// Compares the images, where a rival makes one.
fn converted(bench: &Bench, title: &str, input: &str, ours: Program, rivals: Vec<Found>) -> Result<Record> {
    let made: Vec<_> = ["mkfs.erofs", "microsandbox.erofs"].iter().map(|name| bench.at(name)).collect();
    for old in &made {
        let _ = std::fs::remove_file(old);
    }
    bench.contest((title, input), ("plyfold layer --no-sync", ours), rivals, || {
        let made: Vec<&Path> = made.iter().map(AsRef::as_ref).filter(|path: &&Path| path.exists()).collect();
        check::images(bench, &bench.at("ours.erofs"), &made)
    })
}

fn layer(bench: &Bench, tar: &Path) -> Program {
    bench.ours(&["layer", "--quiet", "--no-sync"]).arg(tar).arg("--out").out(&bench.at("ours.erofs"))
}

/// mkfs.erofs, which computes no digest.
fn mkfs(bench: &Bench, tar: &Path, more: &[&str]) -> Found {
    bench.rival("mkfs.erofs", "mkfs.erofs, without digests", |path| {
        Program::new(path).args(LIKE_A_LAYER).args(more).out(&bench.at("mkfs.erofs")).arg(tar)
    })
}

fn microsandbox(bench: &Bench, tar: &Path) -> Found {
    let peer = bench.peers.microsandbox()?;
    let program = Program::new(&peer.path).arg("layer").arg(tar).out(&bench.at("microsandbox.erofs"));
    Ok(Rival::new("microsandbox-image", &peer, program))
}

/// zlib-rs alone, into one buffer that stays in the cache of the processor.
fn inflate(bench: &Bench, tar: &Path) -> Found {
    let (peer, program) = this_program(bench, &["inflate"]).map_err(|error| error.to_string())?;
    Ok(Rival::new("zlib-rs alone, which writes nothing", &peer, program.arg(tar)))
}
