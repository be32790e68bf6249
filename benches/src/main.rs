//! Measures plyfold against mkfs.erofs: wall time, their ratio, peak memory. How to run it: `benches/README.md`.

#![expect(clippy::print_stdout, reason = "a table on standard output is what this program is for")]

mod archives;
mod compressed;
mod ext4;
mod fuzz;
mod inputs;
mod measure;
mod pull;
mod store;
mod sync;
mod verity;
mod whole;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::{env, fs};

use measure::{Bench, Goal, HEAD, Program, Result};
use plyfold_core::{InputArtifact, Materializer as _};
use plyfold_erofs::ErofsMerged;

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [] => compare(None),
        [verb, target, seconds, rest @ ..] if verb == "fuzz" && rest.len() < 2 => {
            let number = |text: &OsString| -> Result<u64> { Ok(text.to_str().ok_or("a number is text")?.parse()?) };
            let target = target.to_str().ok_or("a target is text")?;
            fuzz::run(target, number(seconds)?, rest.first().map_or(Ok(0), number)?, seconds == "0")
        }
        [verb, tar] if verb == "ext4" => ext4::compare(&Bench::from_env()?, Path::new(tar)),
        [verb, out, tar] if verb == "ext4-of" => ext4::make(Path::new(out), Path::new(tar)),
        [verb] if verb == "store" => store::compare(),
        [verb, tar] if verb == "disks" => disks(Path::new(tar)),
        [verb, tar, algorithms @ ..] if verb == "compressed" => {
            let algorithms = algorithms.iter().map(|text| text.to_str().ok_or("an algorithm is text"));
            let algorithms = algorithms.collect::<std::result::Result<Vec<_>, _>>()?;
            compressed::compare(&Bench::from_env()?, &plyfold()?, Path::new(&mkfs()), Path::new(tar), &algorithms)
        }
        [verb, format, out, layer] if verb == "whole-of" => {
            whole::make(format.to_str().ok_or("a format is text")?, Path::new(out), Path::new(layer))
        }
        [verb] if verb == "sync" => sync::compare(&Bench::from_env()?, &plyfold()?),
        [verb] if verb == "verity" => {
            println!("{HEAD}");
            verity::compare(&Bench::from_env()?, &plyfold()?)
        }
        [verb, image] if verb == "archives" => {
            let image = image.to_str().ok_or("an image is text")?;
            archives::compare(&Bench::from_env()?, &plyfold()?, image)
        }
        [verb, image] if verb == "pull" => {
            let image = image.to_str().ok_or("an image is text")?;
            pull::compare(&Bench::from_env()?, &plyfold()?, image)
        }
        [verb, out, layers @ ..] if verb == "merge" => merge(Path::new(out), layers),
        [rootfs] => compare(Some(Path::new(rootfs))),
        _ => Err("usage: plyfold-bench [ROOTFS.tar | fuzz TARGET SECONDS [NUMBER] | disks ROOTFS.tar | compressed ROOTFS.tar [ALGORITHM...] | ext4 ROOTFS.tar | store | verity | pull IMAGE | archives DIR:TAG | sync]".into()),
    }
}

/// The measured half of the merge: this program again, because the command merges only what it has pulled.
fn merge(out: &Path, layers: &[OsString]) -> Result<()> {
    let artifact = |path: &OsString| Ok(InputArtifact::local(Path::new(path), None)?);
    let layers = layers.iter().map(artifact).collect::<Result<Vec<_>>>()?;
    let mut out = File::options().read(true).write(true).create_new(true).open(out)?;
    ErofsMerged::default().join(&layers, &mut out)?;
    Ok(())
}

/// The command under measurement.
fn plyfold() -> Result<PathBuf> {
    let beside = env::current_exe()?.with_file_name("plyfold");
    Ok(env::var_os("PLYFOLD").map_or(beside, PathBuf::from))
}

/// The peer.
fn mkfs() -> OsString {
    env::var_os("MKFS_EROFS").unwrap_or_else(|| "mkfs.erofs".into())
}

fn compare(rootfs: Option<&Path>) -> Result<()> {
    let (plyfold, mkfs) = (plyfold()?, mkfs());
    let scratch = tempfile::tempdir()?;
    let at = |name: &str| scratch.path().join(name);
    let bench = Bench::from_env()?;

    let layer = |tar: &Path| Program::new(&plyfold).arg("layer").arg(tar).arg("--out").out(&at("ours"));
    let peer = |tar: &Path, more: &[&str]| {
        let fixed = ["--quiet", "--tar=f", "--aufs", "-b4096", "-Enoinline_data", "--sort=none"];
        Program::new(&mkfs).args(fixed).args(more).out(&at("theirs")).arg(tar)
    };
    println!("{HEAD}");
    if let Some(rootfs) = rootfs {
        let gz = at("rootfs.tar.gz");
        inputs::gzip(rootfs, &gz)?;
        bench.compare("layer from tar.gz", &layer(&gz), &peer(&gz, &["--ungzip"]), Goal::Ratio(0.60))?;
        fs::remove_file(gz)?;
        let from_tar = peer(rootfs, &[]);
        bench.compare("layer from tar", &layer(rootfs), &from_tar, Goal::Ratio(0.80))?;
        // mkfs.erofs hashes nothing: the like for like.
        let unhashed = layer(rootfs).arg("--no-digests");
        bench.compare("layer from tar, no digests", &unhashed, &from_tar, Goal::Ratio(0.80))?;
    }
    let flat = at("flat.tar");
    inputs::flat(&flat)?;
    bench.compare(
        "100,000 entries in one directory",
        &layer(&flat),
        &peer(&flat, &[]),
        Goal::Seconds(0.5),
    )?;

    merged(&bench, &plyfold, Path::new(&mkfs), scratch.path())
}

/// All that makes disks, in one run.
fn disks(tar: &Path) -> Result<()> {
    let (bench, plyfold, scratch) = (Bench::from_env()?, plyfold()?, tempfile::tempdir()?);
    let mkfs = mkfs();
    println!("{HEAD}");
    merged(&bench, &plyfold, Path::new(&mkfs), scratch.path())?;
    whole::compare(&bench, &plyfold, Path::new(&mkfs), tar)?;
    verity::compare(&bench, &plyfold)?;
    let (ours, theirs) = (scratch.path().join("ours"), scratch.path().join("theirs"));
    let disk = Program::new(&plyfold).args(["disk", "--size", "1T", "--no-sync", "--out"]).out(&ours);
    let peer = Program::new("mke2fs").args(["-q", "-t", "ext4"]).out(&theirs).arg("1T");
    bench.compare("empty ext4 of 1 TiB", &disk, &peer, Goal::Seconds(0.01))
}

/// Two layers, merged.
fn merged(bench: &Bench, plyfold: &Path, mkfs: &Path, scratch: &Path) -> Result<()> {
    let this = env::current_exe()?;
    let at = |name: &str| scratch.join(name);
    let (base, top) = (at("base.tar"), at("top.tar"));
    inputs::stacked(&base, &top)?;
    let mut ours = Program::new(&this).arg("merge").out(&at("ours"));
    let mut theirs = Program::new(mkfs).args(["--quiet", "--aufs", "--ovlfs-strip=1"]).out(&at("theirs"));
    for tar in [&base, &top] {
        let (mine, other) = (tar.with_extension("ours"), tar.with_extension("theirs"));
        Program::new(plyfold).arg("layer").arg(tar).arg("--out").arg(&mine).run()?;
        let fixed = ["--quiet", "--tar=f", "--aufs", "-b4096", "-Enoinline_data", "--sort=none"];
        Program::new(mkfs).args(fixed).arg(&other).arg(tar).run()?;
        ours = ours.arg(mine);
        theirs = theirs.arg(other);
    }
    bench.compare("merge 50,000 over 50,000", &ours, &theirs, Goal::Seconds(0.15))
}
