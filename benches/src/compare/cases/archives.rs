//! Archives, and many images at once.

use std::fs;
use std::path::Path;

use plyfold_conformance::samples::{self, LayerBuilder, Sample};
use plyfold_conformance::server::FaultServer;
use plyfold_core::reference;

use super::shared::two_layers;
use crate::compare::bench::{Bench, Found};
use crate::compare::program::Program;
use crate::compare::record::Record;
use crate::compare::{check, inputs};
use crate::result::Result;

/// A store with the image of the layout, and the image's name there.
fn stored(bench: &Bench, layout: &Path) -> Result<String> {
    let uri = format!("oci:{}:latest", layout.display());
    bench.ours(&["pull", "--quiet", &uri, "--store"]).arg(bench.at("kept-layout")).run()?;
    Ok(reference::local(layout, "latest")?.whole())
}

fn saved(bench: &Bench, image: &str, format: &str) -> Program {
    let save = bench.ours(&["save", image, "--quiet", "--no-sync", "--format", format, "--store"]);
    save.arg(bench.at("kept-layout")).arg("--out").out(&bench.at("saved.tar"))
}

fn skopeo(bench: &Bench, layout: &Path, to: &str) -> Found {
    bench.rival("skopeo", &format!("skopeo copy into {to}"), |path| {
        let source = format!("oci:{}:latest", layout.display());
        Program::new(path)
            .args(["copy", "--quiet", &source])
            .out_as(&format!("{to}:"), &bench.at("skopeo.tar"))
    })
}

pub(crate) fn save(bench: &Bench) -> Result<Record> {
    let layout = two_layers(bench)?;
    let image = stored(bench, &layout)?;
    saved(bench, &image, "oci").run()?;
    fs::rename(bench.at("saved.tar"), bench.at("result.tar"))?;
    let rivals = vec![
        bench
            .rival("cp", "cp --reflink=never of the result", |path| {
                Program::new(path).arg("--reflink=never").arg(bench.at("result.tar")).out(&bench.at("copied"))
            })
            .map(|rival| rival.goal(1.3)),
        skopeo(bench, &layout, "oci-archive").map(|rival| rival.goal(0.5)),
    ];
    let title = ("Save as an OCI archive", "the image of `pull`, in the store");
    bench.contest(title, ("plyfold save --no-sync", saved(bench, &image, "oci")), rivals, || {
        let theirs = bench.at("skopeo.tar");
        let wanted = check::digests(&bench.at("saved.tar"))?;
        check::blobs(
            &wanted,
            &[theirs.as_path()].into_iter().filter(|path| path.exists()).collect::<Vec<_>>(),
        )
    })
}

pub(crate) fn save_docker(bench: &Bench) -> Result<Record> {
    let layout = two_layers(bench)?;
    let image = stored(bench, &layout)?;
    let rivals = vec![skopeo(bench, &layout, "docker-archive").map(|rival| rival.goal(0.5))];
    let title = ("Save as docker save does, uncompressed", "the image of `pull`, in the store");
    bench.contest(
        title,
        ("plyfold save --format docker --no-sync", saved(bench, &image, "docker")),
        rivals,
        || {
            let found = fs::metadata(bench.at("saved.tar"))?.len() / 1_000_000;
            Ok(format!("The archive has {found} MB."))
        },
    )
}

pub(crate) fn load(bench: &Bench) -> Result<Record> {
    let layout = two_layers(bench)?;
    let image = stored(bench, &layout)?;
    saved(bench, &image, "oci").run()?;
    let archive = bench.at("archive.tar");
    fs::rename(bench.at("saved.tar"), &archive)?;
    let ours = bench.ours(&["load", "--quiet"]).arg(&archive).arg("--store").out(&bench.at("loaded"));
    let theirs = bench.rival("skopeo", "skopeo copy into a layout", |path| {
        Program::new(path)
            .args(["copy", "--quiet"])
            .arg(format!("oci-archive:{}", archive.display()))
            .out_as("oci:", &bench.at("skopeo"))
    });
    let title = ("Load an OCI archive", "the image of `pull`");
    bench.contest(title, ("plyfold load, synced", ours), vec![theirs], || {
        let others = [bench.at("loaded"), bench.at("skopeo")];
        let found: Vec<&Path> =
            others.iter().map(AsRef::as_ref).filter(|path: &&Path| path.exists()).collect();
        check::blobs(&check::digests(&archive)?, &found)
    })
}

pub(crate) fn export(bench: &Bench) -> Result<Record> {
    let layout = two_layers(bench)?;
    let image = stored(bench, &layout)?;
    saved(bench, &image, "docker").run()?;
    let archive = bench.at("archive-docker.tar");
    fs::rename(bench.at("saved.tar"), &archive)?;
    let ours =
        bench.ours(&["export", &image, "--quiet", "--no-sync", "--store"]).arg(bench.at("kept-layout"));
    let ours = ours.arg("--out").out(&bench.at("exported.tar"));
    let crane = bench.rival("crane", "crane export, of a docker-archive", |path| {
        let script = "exec \"$1\" export - \"$3\" < \"$2\"";
        Program::shell(script).arg(path).arg(&archive).out(&bench.at("crane.tar"))
    });
    let title = ("Export one flat tar", "the image of `pull`, in the store");
    bench.contest(title, ("plyfold export --no-sync", ours), vec![crane.map(|rival| rival.goal(0.4))], || {
        match bench.at("crane.tar") {
            theirs if theirs.exists() => check::tars(&bench.at("exported.tar"), &theirs),
            _ => Ok("Nothing to compare the tar with.".to_owned()),
        }
    })
}

/// From one registry on this machine into another; each program has its own target.
pub(crate) fn sync(bench: &Bench) -> Result<Record> {
    let [source, ours, theirs] = [FaultServer::start()?, FaultServer::start()?, FaultServer::start()?];
    let (list, images) = (bench.at("list.toml"), 50);
    let from = format!("{}/org/app", source.host());
    fs::write(&list, format!("version = 1\n[[image]]\nname = \"{from}\"\ntags = [\"*\"]\n"))?;
    for number in 0..images {
        source.put("org/app", &format!("{number:02}"), &image(number));
    }
    let own = bench.ours(&["sync", "--quiet"]).arg(&list).arg(format!("{}/mirror", ours.host()));
    let peer = bench.rival("skopeo", "skopeo sync", |path| {
        let fixed =
            ["sync", "--src=docker", "--dest=docker", "--src-tls-verify=false", "--dest-tls-verify=false"];
        Program::new(path).args(fixed).arg(&from).arg(format!("{}/mirror/org", theirs.host()))
    });
    // The first runs bring all images, and are not measured.
    let mut next = images;
    let change = || {
        for tag in ["10", "20"] {
            source.put("org/app", tag, &image(next));
            next += 1;
        }
        source.clear_requests();
    };
    let title = ("Sync of 50 images of which 2 have changed", "images of one layer of 1 MiB");
    let rivals = vec![peer.map(|rival| rival.goal(0.1))];
    let check = || Ok("Two images are others before each round.".to_owned());
    bench.contest_of(title, ("plyfold sync", own), rivals, check, change)
}

/// An image of noise, another one for each number.
fn image(number: u64) -> Sample {
    let content = inputs::noise(number, 1 << 20);
    samples::of_layers("bench", &[LayerBuilder::new().file("noise", 0o644, &content).finish()])
}
