//! Compressed images of a tar, beside those of mkfs.erofs by the same algorithm and level in clusters of the same size.

use std::fs;
use std::path::Path;

use crate::measure::{Bench, Program, Result};

const ALGORITHMS: [&str; 4] = ["lz4", "lz4hc,9", "lz4hc,12", "zstd,3"];

/// The goals of the ratios of times and sizes.
const TIME: f64 = 0.6;
const SIZE: f64 = 1.03;

/// Prints a line for each algorithm and size of clusters.
pub(crate) fn compare(
    bench: &Bench,
    plyfold: &Path,
    mkfs: &Path,
    tar: &Path,
    algorithms: &[&str],
) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let (ours_at, theirs_at) = (scratch.path().join("ours"), scratch.path().join("theirs"));
    let algorithms = if algorithms.is_empty() { &ALGORITHMS } else { algorithms };
    println!(
        "algorithm  cluster    plyfold mkfs.erofs  ratio    CPU: plyfold mkfs.erofs  ratio    size  \
         goals: {TIME:.2} of the time, {SIZE:.2} of the size"
    );
    for algorithm in algorithms {
        for cluster in [4, 16, 64] {
            let options = [format!("compress={algorithm}"), format!("cluster={cluster}K")];
            let ours = Program::new(plyfold).arg("layer").arg(tar).args(["--as", "erofs", "--no-digests"]);
            let ours = ours.args(["--no-sync", "-m", &options[0], "-m", &options[1], "--out"]).out(&ours_at);
            let level = algorithm.replacen("zstd,", "zstd,level=", 1);
            let options = [format!("-z{level}"), format!("-C{}", cluster << 10)];
            // mkfs.erofs hashes nothing.
            let theirs =
                Program::new(mkfs).args(["--quiet", "--tar=f"]).args(options).out(&theirs_at).arg(tar);
            let (ours, theirs) = bench.medians(&ours, &theirs)?;
            let permille = fs::metadata(&ours_at)?.len() * 1000 / fs::metadata(&theirs_at)?.len();
            let size = f64::from(u32::try_from(permille)?) / 1000.0;
            let time = ours.wall / theirs.wall;
            let verdict = if time <= TIME && size <= SIZE { "met" } else { "missed" };
            println!(
                "{algorithm:<11}{cluster:>3} KiB {:>9.2} s {:>8.2} s {time:>6.2} {:>13.2} s {:>8.2} s {:>6.2} {size:>7.3}  {verdict}",
                ours.wall,
                theirs.wall,
                ours.cpu,
                theirs.cpu,
                ours.cpu / theirs.cpu
            );
        }
    }
    Ok(())
}
