//! `sync` of 50 images of which 2 have changed, beside `skopeo sync`.

use std::path::{Path, PathBuf};
use std::{env, fs};

use plyfold_conformance::samples::{self, LayerBuilder, Sample};
use plyfold_conformance::server::FaultServer;

use crate::measure::{Bench, Goal, HEAD, Program, Result};

/// Images, and bytes of the layer of each.
const IMAGES: u64 = 50;
const LAYER: usize = 1 << 20;

/// From one registry on this machine into another; each program has its own target.
pub(crate) fn compare(bench: &Bench, plyfold: &Path) -> Result<()> {
    let [source, ours, theirs] = [FaultServer::start()?, FaultServer::start()?, FaultServer::start()?];
    let scratch = tempfile::tempdir()?;
    let list = scratch.path().join("list.toml");
    let from = format!("{}/org/app", source.host());
    fs::write(&list, format!("version = 1\n[[image]]\nname = \"{from}\"\ntags = [\"*\"]\n"))?;
    for number in 0..IMAGES {
        source.put("org/app", &format!("{number:02}"), &image(number));
    }
    let own =
        Program::new(plyfold).args(["sync", "--quiet"]).arg(&list).arg(format!("{}/mirror", ours.host()));
    let skopeo = env::var_os("SKOPEO").map_or_else(|| PathBuf::from("skopeo"), PathBuf::from);
    let fixed =
        ["sync", "--src=docker", "--dest=docker", "--src-tls-verify=false", "--dest-tls-verify=false"];
    let peer = Program::new(skopeo).args(fixed).arg(&from).arg(format!("{}/mirror/org", theirs.host()));
    // The first runs bring all images, and are not measured.
    let mut next = IMAGES;
    let change = || {
        for tag in ["10", "20"] {
            source.put("org/app", tag, &image(next));
            next += 1;
        }
        source.clear_requests();
    };
    println!("{HEAD}");
    bench.compare_after("sync, 2 of 50 have changed", change, &own, &peer, Goal::Ratio(0.1))
}

/// An image of noise, another one for each number.
fn image(number: u64) -> Sample {
    let mut state = number + 1;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    let content: Vec<u8> = noise.take(LAYER).collect();
    samples::of_layers("bench", &[LayerBuilder::new().file("noise", 0o644, &content).finish()])
}
