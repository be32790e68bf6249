//! A hash tree, beside one pass of sha256 over the same file.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use crate::measure::{Bench, Goal, Program, Result};

/// The size of the file, in bytes.
const SIZE: u64 = 800_000_000 / 4096 * 4096;

pub(crate) fn compare(bench: &Bench, plyfold: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let (data, tree) = (scratch.path().join("data"), scratch.path().join("tree"));
    let mut file = BufWriter::new(File::create(&data)?);
    // An odd multiplier: no two blocks are the same.
    for word in 0..SIZE / 8 {
        file.write_all(&word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())?;
    }
    file.into_inner()?.sync_all()?;
    let pass = Program::new("openssl").args(["dgst", "-sha256"]).arg(&data);
    let root = Program::new(plyfold).arg("verity").arg(&data);
    bench.compare("root hash of 800 MB", &root, &pass, Goal::Ratio(1.2))?;
    let ours = root.arg("--no-sync").arg("--hash-tree").out(&tree);
    bench.compare("hash tree of 800 MB", &ours, &pass, Goal::Ratio(1.2))?;
    let blocks = ["--data-block-size=512", "--hash-block-size=512"];
    bench.compare("the same in 512-byte blocks", &ours.args(blocks), &pass, Goal::Ratio(1.2))
}
