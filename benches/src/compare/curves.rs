//! What plyfold takes by the size of its input.

use std::path::Path;

use super::bench::Bench;
use super::cases::pulls::{at_once, disks_of, many_in_registry};
use super::program::{Cost, Program};
use super::record::{Curve, Line};
use super::{inputs, large_store};
use crate::result::Result;

/// A curve by its name.
pub(crate) struct CurveOf {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Bench) -> Result<Curve>,
}

/// All of them.
pub(crate) const CURVES: &[CurveOf] = &[
    CurveOf { name: "by-entries", run: entries },
    CurveOf { name: "by-bytes", run: bytes },
    CurveOf { name: "by-layers", run: layers },
    CurveOf { name: "by-names", run: names },
    CurveOf { name: "by-pulls", run: pulls },
];

fn entries(bench: &Bench) -> Result<Curve> {
    let sizes =
        bench.size([10_000, 30_000, 100_000, 300_000, 1_000_000], [1_000, 3_000, 10_000, 30_000, 100_000]);
    let mut costs = Vec::new();
    for files in sizes {
        let tar = bench.at("curve.tar");
        inputs::small(&tar, files)?;
        costs.push((files, bench.alone(&layer(bench, &tar))?));
        std::fs::remove_file(tar)?;
    }
    let reason = "Each entry takes memory until the image is written: its name, its inode, and where its content is. A million of \
                  them are an image of 2.6 GB, which the kernel writes to the disk meanwhile: its part of the CPU time grows by \
                  more, that of the program by 3.5 for 3.3 times as many entries.";
    Ok(curve(bench, "A layer by its entries, files of one or two KB", "entries", &costs, reason))
}

fn bytes(bench: &Bench) -> Result<Curve> {
    let sizes = bench.size([16, 64, 256, 1024], [4, 16, 64, 128]);
    let mut costs = Vec::new();
    for mebibytes in sizes {
        let tar = bench.at("curve.tar");
        inputs::one_of_many(&tar, 0, mebibytes << 20)?;
        costs.push((mebibytes, bench.alone(&layer(bench, &tar))?));
        std::fs::remove_file(tar)?;
    }
    Ok(curve(bench, "A layer by its bytes, one file of noise", "MiB", &costs, ""))
}

fn layers(bench: &Bench) -> Result<Curve> {
    let mut costs = Vec::new();
    for count in bench.size([1, 8, 32, 64, 128], [1, 4, 8, 16, 32]) {
        let image = many_in_registry(bench, &format!("curve-{count}"), count, 100 << 10)?;
        costs.push((count, bench.alone(&disks_of(bench, &image))?));
    }
    Ok(curve(bench, "From a registry to disks by layers of 100 KiB", "layers", &costs, ""))
}

fn names(bench: &Bench) -> Result<Curve> {
    let mut lines: Vec<Line> = Vec::new();
    for names in bench.size([100, 1_000, 10_000, 30_000], [10, 100, 300, 1_000]) {
        let store = bench.input(&format!("names-{names}"), |path| large_store::fill(path, names))?;
        for (at, (call, seconds)) in large_store::calls(&store, names, 21)?.into_iter().enumerate() {
            if lines.len() == at {
                lines.push(Line { name: call.to_owned(), points: Vec::new() });
            }
            lines[at].points.push((names as f64, seconds));
        }
        std::fs::remove_dir_all(store)?;
    }
    let reason = "`usage` looks at each blob of ten for each name. `add a name` writes the list of names anew, in one file, as the \
                  image layout has it.";
    Ok(Curve { lines, ..curve(bench, "A store by its names", "names", &[], reason) })
}

fn pulls(bench: &Bench) -> Result<Curve> {
    let mut costs = Vec::new();
    for count in bench.size([1, 4, 16, 64], [1, 2, 4, 8]) {
        let words = "\"$2\" pull --quiet \"$image\" --store \"$1\"";
        let script = at_once(bench, count, 1 << 20)?.replace("RUN", words);
        let program = Program::shell(&script).out(&bench.at("pulled")).arg(&bench.plyfold.path);
        costs.push((count, bench.alone(&program)?));
    }
    Ok(curve(bench, "Pulls at once into one store, of 1 MiB each", "pulls", &costs, ""))
}

fn layer(bench: &Bench, tar: &Path) -> Program {
    bench.ours(&["layer", "--quiet", "--no-sync"]).arg(tar).arg("--out").out(&bench.at("ours.erofs"))
}

/// Lines of time, CPU and memory.
fn curve(bench: &Bench, title: &str, unit: &str, costs: &[(usize, Cost)], reason: &str) -> Curve {
    let line = |name: &str, value: fn(&Cost) -> Option<f64>| {
        let points = costs.iter().filter_map(|(size, cost)| Some((*size as f64, value(cost)?))).collect();
        Line { name: name.to_owned(), points }
    };
    let lines = vec![
        line("time, s", |cost| Some(cost.wall)),
        line("CPU, s", |cost| cost.cpu),
        line("peak memory, MiB", |cost| cost.memory),
    ];
    Curve {
        title: title.to_owned(),
        taken: bench.taken.clone(),
        version: bench.plyfold.version.clone(),
        unit: unit.to_owned(),
        lines: lines.into_iter().filter(|line| !line.points.is_empty()).collect(),
        reason: reason.to_owned(),
    }
}
