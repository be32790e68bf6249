//! Images out of a registry on this machine, and what is made of them.

use std::fs;
use std::path::{Path, PathBuf};

use plyfold_core::reference;
use serde_json::Value;

use super::shared::{many_layers, pushed, rootfs_gzip, small_gzip, two_layers};
use crate::compare::bench::{Bench, Found, Rival};
use crate::compare::program::Program;
use crate::compare::record::Record;
use crate::compare::{check, inputs};
use crate::result::Result;

/// The size of the disk that is written to.
pub(super) const UPPER: &str = "8589934592";

pub(crate) fn pull(bench: &Bench) -> Result<Record> {
    let layout = two_layers(bench)?;
    let image = pushed(bench, &layout, "two")?;
    let blobs = blobs(&layout)?;
    let ours = bench.ours(&["pull", "--quiet", &image, "--store"]).out(&bench.at("pulled"));
    let host = &bench.registry()?.host;
    let fetch = |digest: &String| {
        format!("curl --silent http://{host}/v2/bench/two/blobs/sha256:{digest} | sha256sum & ")
    };
    let script = blobs.iter().map(fetch).collect::<String>() + "wait";
    let rivals = vec![
        crane(bench, &image).map(|rival| rival.goal(0.8)),
        skopeo(bench, &image),
        oras(bench, &image),
        bench
            .rival("curl", "curl into sha256sum, which writes nothing", |_| Program::shell(&script))
            .map(|rival| rival.goal(1.2)),
    ];
    let peers = ["crane.tar", "skopeo", "oras"].map(|name| bench.at(name));
    contest(
        bench,
        ("Pull", &described(&layout, &blobs)),
        ("plyfold pull, synced", ours),
        rivals,
        &blobs,
        &peers,
    )
}

/// Compares what has been pulled: all blobs of the image are there.
fn contest(
    bench: &Bench,
    title: (&str, &str),
    ours: (&str, Program),
    rivals: Vec<Found>,
    blobs: &[String],
    peers: &[PathBuf],
) -> Result<Record> {
    bench.contest(title, ours, rivals, || {
        let pulled = bench.at("pulled");
        let found: Vec<&Path> = peers.iter().map(PathBuf::as_path).filter(|path| path.exists()).collect();
        // The configuration is named otherwise in the tar of crane.
        check::blobs(&blobs[1..].iter().cloned().collect(), &[&[pulled.as_path()], &found[..]].concat())
    })
}

pub(crate) fn again(bench: &Bench) -> Result<Record> {
    let image = pushed(bench, &two_layers(bench)?, "two")?;
    let ours = bench.ours(&["pull", "--quiet", &image, "--store"]).arg(bench.at("kept"));
    let mut rivals = vec![bench.rival("skopeo", "skopeo copy", |path| {
        skopeo_words(path, &image).arg(format!("oci:{}:latest", bench.at("kept-skopeo").display()))
    })];
    rivals.push(bench.peers.microsandbox().map(|peer| {
        let program = Program::new(&peer.path).args(["pull", &image]).arg(bench.at("kept-microsandbox"));
        Rival::new("microsandbox-image", &peer, program)
    }));
    let input = "the image of `pull`, of which everything is here";
    bench.contest(("Pull of what is here", input), ("plyfold pull", ours), rivals, || {
        Ok("Whole processes; nothing is written.".to_owned())
    })
}

pub(crate) fn cold_start(bench: &Bench) -> Result<Record> {
    let layout = two_layers(bench)?;
    let image = pushed(bench, &layout, "two")?;
    let mut rivals = vec![microsandbox(bench, &image).map(|rival| rival.goal(0.4))];
    rivals.push(by_parts(bench, &image, &blobs(&layout)?).map(|rival| rival.goal(0.35)));
    let input = described(&layout, &blobs(&layout)?);
    disks(
        bench,
        ("From a registry to disks: pull, layers, merged image, VMDK, empty upper", &input),
        &image,
        rivals,
    )
}

pub(crate) fn forty(bench: &Bench) -> Result<Record> {
    many(bench, "forty", 40, 1 << 20)
}

pub(crate) fn hundred_and_twenty(bench: &Bench) -> Result<Record> {
    many(bench, "120", 120, 100 << 10)
}

pub(crate) fn hundred_and_twenty_eight(bench: &Bench) -> Result<Record> {
    many(bench, "128", 128, 1 << 20)
}

fn many(bench: &Bench, name: &str, count: usize, bytes: usize) -> Result<Record> {
    let image = many_in_registry(bench, name, count, bytes)?;
    let title = format!("{count} layers of {} KiB: pull, layers, merged image, VMDK", bytes >> 10);
    let rivals = vec![microsandbox(bench, &image).map(|rival| rival.goal(0.6))];
    disks(bench, (&title, "a file of noise in each layer, as gzip"), &image, rivals)
}

/// An image of so many layers, in the registry.
pub(crate) fn many_in_registry(bench: &Bench, name: &str, count: usize, bytes: usize) -> Result<String> {
    pushed(bench, &many_layers(bench, name, count, bytes)?, name)
}

/// From a registry to disks, into an empty store.
pub(crate) fn disks_of(bench: &Bench, image: &str) -> Program {
    let ours = bench.ours(&["materialize", "--quiet", image, "--as", "vmdk", "--upper", UPPER, "--store"]);
    ours.out(&bench.at("pulled")).arg("--out").out(&bench.at("disks"))
}

fn disks(bench: &Bench, title: (&str, &str), image: &str, rivals: Vec<Found>) -> Result<Record> {
    let out = bench.at("disks");
    bench.contest(title, ("plyfold materialize, synced", disks_of(bench, image)), rivals, || {
        let listed = bench.ours(&["ls", "-R", "--json"]).arg(vmdk(&out)?).output()?;
        let entries = listed.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{")).count();
        let theirs = merged_inodes(bench)?;
        Ok(format!(
            "Checked: the disk lists {entries} entries{theirs}. microsandbox-image and skopeo sync nothing."
        ))
    })
}

fn vmdk(folder: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "vmdk") {
            return Ok(path);
        }
    }
    Err("the disks have no VMDK".into())
}

/// How many inodes the merged image of microsandbox-image has: at offset 16 of its superblock, after the root's number.
fn merged_inodes(bench: &Bench) -> Result<String> {
    let Ok(folder) = fs::read_dir(bench.at("microsandbox/fsmeta")) else {
        return Ok(String::new());
    };
    for entry in folder {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "erofs") {
            let image = fs::read(&path)?;
            let inodes = image
                .get(1024 + 16..1024 + 24)
                .and_then(|bytes| bytes.try_into().ok())
                .map(u64::from_le_bytes);
            return Ok(format!(
                ", the merged image of microsandbox-image has {} inodes",
                inodes.unwrap_or_default()
            ));
        }
    }
    Ok(String::new())
}

pub(crate) fn materialize(bench: &Bench) -> Result<Record> {
    let layout = two_layers(bench)?;
    let (kept, store, out) = (bench.at("kept-layout"), bench.at("store"), bench.at("disks"));
    let uri = format!("oci:{}:latest", layout.display());
    bench.ours(&["pull", "--quiet", &uri, "--store"]).out(&kept).run()?;
    let name = reference::local(&layout, "latest")?.whole();
    let fresh = Program::new("cp").args(["-a", "--reflink=auto"]).arg(&kept).out(&store);
    let ours = bench.ours(&["materialize", "--quiet", &name, "--as", "vmdk", "--store"]).arg(&store);
    let ours = ours.arg("--out").out(&out).after(fresh);
    let script = "\"$1\" layer --quiet \"$2\" --out \"$4\" & \"$1\" layer --quiet \"$3\" --out \"$5\" & wait";
    let layers =
        Program::shell(script).arg(&bench.plyfold.path).arg(rootfs_gzip(bench)?).arg(small_gzip(bench)?);
    let layers = layers.out(&bench.at("one.erofs")).out(&bench.at("two.erofs"));
    let layers = Rival::new("plyfold layer on both layers at once", &bench.plyfold, layers).goal(1.05);
    let title =
        ("Disks of what is in the store", "the image of `pull`, of which the store has no artifact yet");
    bench.contest(title, ("plyfold materialize", ours), vec![Ok(layers)], || {
        vmdk(&out)?;
        Ok("Both sync what they write.".to_owned())
    })
}

/// The layer of a store that has an index of it, beside the same layer of one that has none.
pub(crate) fn indexed(bench: &Bench) -> Result<Record> {
    let layer = rootfs_gzip(bench)?;
    let layout = bench.input("layout-one", |path| inputs::layout(path, std::slice::from_ref(&layer)))?;
    let uri = format!("oci:{}:latest", layout.display());
    let name = reference::local(&layout, "latest")?.whole();
    let made = |store: &str, out: &str, options: &[&str]| -> Result<Program> {
        let (kept, store, out) = (bench.at(&format!("kept-{store}")), bench.at(store), bench.at(out));
        bench.ours(&["pull", "--quiet", &uri]).args(options).arg("--store").out(&kept).run()?;
        let fresh = Program::new("cp").args(["-a", "--reflink=auto"]).arg(&kept).out(&store);
        let made =
            bench.ours(&["materialize", "--quiet", "--no-sync", &name, "--as", "erofs-layers", "--store"]);
        Ok(made.arg(&store).arg("--out").out(&out).after(fresh))
    };
    let ours = made("indexed", "indexed-disks", &["--index"])?;
    let serial = made("serial", "serial-disks", &[])?;
    let rival = Rival::new("the same without an index", &bench.plyfold, serial).goal(0.7);
    let title = ("A gzip layer of the store to EROFS, with its index", "the layer of `layer-gzip`");
    bench.contest(title, ("plyfold materialize, with an index", ours), vec![Ok(rival)], || {
        let image = |out: &str| bench.at(out).join("layer-00.erofs");
        check::images(bench, &image("indexed-disks"), &[&image("serial-disks")])
    })
}

pub(crate) fn concurrent(bench: &Bench) -> Result<Record> {
    let (count, bytes) = (bench.size(64, 16), 1 << 20);
    let script = at_once(bench, count, bytes)?;
    let each = |words: &str, folder: &Path| Program::shell(&script.replace("RUN", words)).out(folder);
    let ours =
        each("\"$2\" pull --quiet \"$image\" --store \"$1\"", &bench.at("pulled")).arg(&bench.plyfold.path);
    let rivals = vec![
        bench.rival("crane", "crane pull, each into its file", |path| {
            each("\"$2\" pull --insecure \"$image\" \"$1/$n.tar\"", &bench.at("many-crane")).arg(path)
        }),
        bench.rival("skopeo", "skopeo copy, each into its folder", |path| {
            let words = "\"$2\" copy --quiet --src-tls-verify=false docker://\"$image\" oci:\"$1/$n\":latest";
            each(words, &bench.at("many-skopeo")).arg(path)
        }),
    ];
    let title = format!("{count} pulls at once");
    bench.contest(
        (&title, "another image of one layer of 1 MiB for each"),
        ("plyfold pull, into one store", ours),
        rivals,
        || {
            let (found, wanted) = (check::digests(&bench.at("pulled"))?.len(), count * 3);
            if found < wanted {
                return Err(format!("{found} blobs of {wanted}").into());
            }
            Ok(format!("Checked: {found} blobs are in the store."))
        },
    )
}

/// A script that does `RUN` for each of so many images at once, into the folder `$1`.
pub(crate) fn at_once(bench: &Bench, count: usize, bytes: usize) -> Result<String> {
    let mut images = Vec::new();
    for number in 0..count {
        let tar = bench.input(&format!("single-{bytes}-{number}.tar"), |path| {
            inputs::one_of_many(path, number, bytes)
        })?;
        let gzip =
            bench.input(&format!("single-{bytes}-{number}.tar.gz"), |path| inputs::gzip(&tar, path))?;
        let layout =
            bench.input(&format!("layout-single-{bytes}-{number}"), |path| inputs::layout(path, &[gzip]))?;
        images.push(pushed(bench, &layout, &format!("single-{bytes}-{number}"))?);
    }
    let images = images.join(" ");
    Ok(format!("mkdir -p \"$1\"; n=0; for image in {images}; do n=$((n + 1)); RUN & done; wait"))
}

fn crane(bench: &Bench, image: &str) -> Found {
    bench.rival("crane", "crane pull", |path| {
        Program::new(path).args(["pull", "--insecure", image]).out(&bench.at("crane.tar"))
    })
}

fn skopeo(bench: &Bench, image: &str) -> Found {
    bench.rival("skopeo", "skopeo copy", |path| skopeo_words(path, image).out_as("oci:", &bench.at("skopeo")))
}

fn skopeo_words(path: &Path, image: &str) -> Program {
    Program::new(path).args(["copy", "--quiet", "--src-tls-verify=false"]).arg(format!("docker://{image}"))
}

fn oras(bench: &Bench, image: &str) -> Found {
    bench.rival("oras", "oras cp", |path| {
        let words = ["cp", "--no-tty", "--from-plain-http", image, "--to-oci-layout"];
        Program::new(path)
            .args(words)
            .makes(&bench.at("oras"))
            .arg(format!("{}:latest", bench.at("oras").display()))
    })
}

fn microsandbox(bench: &Bench, image: &str) -> Found {
    let peer = bench.peers.microsandbox()?;
    let program = Program::new(&peer.path).args(["pull", image]).out(&bench.at("microsandbox"));
    Ok(Rival::new("microsandbox-image", &peer, program.out(&bench.at("microsandbox.upper")).arg(UPPER)))
}

/// skopeo, then mkfs.erofs for each layer and for the merged image, then mke2fs.
fn by_parts(bench: &Bench, image: &str, blobs: &[String]) -> Found {
    let (skopeo, mke2fs) = (bench.peers.find("skopeo")?, bench.peers.find("mke2fs")?);
    bench.rival("mkfs.erofs", "skopeo, mkfs.erofs, mke2fs", |mkfs| {
        let copy = "set -e; \"$1\" copy --quiet --src-tls-verify=false \"docker://$4\" \"oci:$5:latest\"; ";
        let convert = |digest: &String| {
            let words = "--quiet --tar=f --aufs -b4096 -Enoinline_data --sort=none --ungzip";
            format!("\"$2\" {words} \"$5/{digest}.erofs\" \"$5/blobs/sha256/{digest}\"; ")
        };
        let layers: Vec<String> = blobs[1..].iter().map(|digest| format!("\"$5/{digest}.erofs\"")).collect();
        let merge =
            format!("\"$2\" --quiet --aufs --ovlfs-strip=1 \"$5/merged.erofs\" {}; ", layers.join(" "));
        let upper = "\"$3\" -q -t ext4 \"$5/upper\" 8G";
        let script = [copy, &blobs[1..].iter().map(convert).collect::<String>(), &merge, upper].concat();
        Program::shell(&script)
            .arg(&skopeo.path)
            .arg(mkfs)
            .arg(&mke2fs.path)
            .arg(image)
            .out(&bench.at("parts"))
    })
}

/// The blobs of the image of a layout: the configuration, and each layer.
fn blobs(layout: &Path) -> Result<Vec<String>> {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    let hex = |descriptor: &Value| {
        descriptor["digest"].as_str().unwrap_or_default().trim_start_matches("sha256:").to_owned()
    };
    let manifest = fs::read(layout.join("blobs/sha256").join(hex(&index["manifests"][0])))?;
    let manifest: Value = serde_json::from_slice(&manifest)?;
    let layers = manifest["layers"].as_array().ok_or("a manifest has layers")?;
    Ok([&manifest["config"]].into_iter().chain(layers).map(hex).collect())
}

fn described(layout: &Path, blobs: &[String]) -> String {
    let size = |digest: &String| {
        layout.join("blobs/sha256").join(digest).metadata().map_or(0, |metadata| metadata.len())
    };
    format!("{} layers, {} MB as gzip", blobs.len() - 1, blobs.iter().map(size).sum::<u64>() / 1_000_000)
}
