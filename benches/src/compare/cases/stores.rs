//! Stores: everything read again, and a collection.

use std::path::Path;

use super::shared::two_layers;
use crate::compare::bench::Bench;
use crate::compare::large_store;
use crate::compare::program::Program;
use crate::compare::record::Record;
use crate::result::Result;

pub(crate) fn verify(bench: &Bench) -> Result<Record> {
    let layout = two_layers(bench)?;
    let (store, out) = (bench.at("verified"), bench.at("disks"));
    let uri = format!("oci:{}:latest", layout.display());
    let made = bench.ours(&["materialize", "--quiet", &uri, "--as", "vmdk", "--store"]).out(&store);
    made.arg("--out").out(&out).run()?;
    let ours = bench.ours(&["verify", "--quiet", "--store"]).arg(&store);
    let hash = bench.rival("sha256sum", "sha256sum of every file of it", |path| {
        Program::shell("find \"$1\" -type f -size +0 -print0 | xargs -0 \"$2\"").arg(&store).arg(path)
    });
    let title = ("Verify a store", "the image of `pull`, with the artifacts of its disks");
    bench.contest(title, ("plyfold verify", ours), vec![hash], || {
        // A byte of a layer is another one.
        let damaged = bench.at("damaged");
        let script = "cp -r \"$2\" \"$1\"; f=$(find \"$1/blobs\" -type f -size +1M | head -n 1); \
                      printf X | dd of=\"$f\" bs=1 seek=70000 conv=notrunc 2>/dev/null; ! \"$3\" verify --quiet --store \"$1\"";
        Program::shell(script).out(&damaged).arg(&store).arg(&bench.plyfold.path).run()?;
        std::fs::remove_dir_all(damaged)?;
        Ok("Checked: it fails once one byte of a blob is changed.".to_owned())
    })
}

pub(crate) fn collect(bench: &Bench) -> Result<Record> {
    let names = bench.size(10_000, 1_000);
    let store = bench.input(&format!("half-{names}"), |path| {
        large_store::fill(path, names)?;
        large_store::forget_half(path, names)
    })?;
    let fresh = |to: &Path| Program::new("cp").args(["-a", "--reflink=never"]).arg(&store).out(to);
    let (here, there) = (bench.at("collected"), bench.at("removed"));
    let ours = bench.ours(&["gc", "--quiet", "--grace", "0s", "--store"]).arg(&here).after(fresh(&here));
    let script = "ls -U \"$1/blobs/sha256\" | head -n \"$2\" | sed \"s|^|$1/blobs/sha256/|\" | xargs rm";
    let rm = Program::shell(script)
        .arg(&there)
        .arg((names / 2 * large_store::BLOBS).to_string())
        .after(fresh(&there));
    let rm = bench.rival("cp", "rm of as many files", |_| rm);
    let input =
        format!("{names} images of {} blobs, half of which have lost their names", large_store::BLOBS);
    bench.contest(("Collect", &input), ("plyfold gc", ours), vec![rm], || {
        let left = std::fs::read_dir(here.join("blobs/sha256"))?.count();
        let wanted = (names - names / 2) * large_store::BLOBS;
        if left != wanted {
            return Err(format!("{left} blobs are left, and not {wanted}").into());
        }
        Ok(format!("Checked: {left} blobs are left."))
    })
}
