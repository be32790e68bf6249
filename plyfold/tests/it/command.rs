//! Every verb, every kind of failure, as the user sees them.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use plyfold::blocking::Stop;
use plyfold::layer::{LayerOptions, LayerTar};
use plyfold::materializers::verity::{Parameters, TreeLayout, Work};
use plyfold_conformance::samples::{self, LayerBuilder, docker_archive, oci_archive};
use plyfold_conformance::server::{Auth, Fault, FaultServer, Login, On, Options};
use serde_json::Value;

use super::baseline;
use super::run::{Place, check, failure};

/// The verbs that a help lists, without `help` itself.
fn verbs(help: &str) -> Vec<String> {
    let (_, commands) = help.split_once("\nCommands:\n").unwrap();
    let lines = commands.lines().take_while(|line| !line.is_empty());
    let verbs = lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    verbs.filter(|verb| verb != "help").collect()
}

#[test]
fn help() {
    let place = Place::new();
    let mut runs = vec![place.run("--help")];
    let verbs = verbs(&runs[0]);
    runs.extend(verbs.iter().map(|verb| place.run(&format!("{verb} --help"))));
    let at = verbs.iter().position(|verb| verb == "snapshot").unwrap();
    let of_snapshot = self::verbs(&runs[at + 1]);
    runs.extend(of_snapshot.iter().map(|verb| place.run(&format!("snapshot {verb} --help"))));
    check("help", &runs);
}

#[test]
fn an_image_comes_and_goes() {
    let place = Place::new();
    let lines = [
        "list",
        "pull oci:examples/sample:latest --platform linux/amd64",
        "pull oci:examples/sample:latest --platform linux/amd64 -v",
        "pull oci:examples/sample:latest --platform linux/amd64 --force -q",
        "pull oci:examples/sample:latest --platform linux/arm64 --json",
        "list",
        "list --json",
        "inspect localhost/sample --platform linux/amd64",
        "inspect localhost/sample --platform linux/amd64 --json",
        "inspect localhost/sample --no-trunc --platform linux/amd64",
        "inspect localhost/sample --raw",
        "inspect localhost/sampel",
        "list --no-trunc",
        "tag localhost/sample a.example/other:2 --json",
        "tag localhost/sample app",
        "tag localhost/sample oci:app:1",
        "tag localhost/simple app",
        "images",
        "rmi app a.example/other:2",
        "ls localhost/sample",
        "verify localhost/sample:lates",
        "push localhost/sample:lates registry.invalid/app",
        "remove localhost/sample:lates",
        "rm localhost/sample",
        "list",
        "pull oci:examples/sample:latest --platform linux/amd64 -q",
        "remove localhost/sample",
        "remove localhost/sample",
        "inspect localhost/sample",
    ];
    check("store", &lines.map(|line| place.run(line)));
}

#[test]
fn what_nothing_needs_goes() {
    let place = Place::new();
    let lines = [
        "gc",
        "pull oci:examples/sample:latest --platform linux/amd64 -q",
        "load {}/app.tar --platform linux/amd64 -q",
        "pin localhost/sample a.example/app:1",
        "unpin localhost/sample",
        "pin localhost/sample a.example/none:1",
        "list",
        "gc --budget 0 --dry-run",
        "gc --budget 0 --grace 1h",
        "gc --budget 0",
        "list",
        "remove a.example/app:1 a.example/none:1",
        "remove a.example/app:1 a.example/app:1",
        "list",
        "gc --dry-run --json",
        "gc --json -q",
        "list --json",
        "gc --grace 1w",
        "gc --budget lots",
    ];
    let image = samples::of_layers("app", &[LayerBuilder::new().file("a", 0o644, b"a").finish()]);
    fs::write(place.path("app.tar"), oci_archive(&[("a.example/app:1".to_owned(), &image)])).unwrap();
    check("gc", &lines.map(|line| place.run(line)));
}

#[test]
fn a_store_is_verified_and_repaired() {
    let place = Place::new();
    let pull = "pull oci:examples/sample:latest --platform linux/amd64 -q";
    let run = |lines: &[&str]| lines.iter().map(|line| place.run(line)).collect::<Vec<_>>();
    let mut runs = run(&[pull, "verify", "verify localhost/sample --json", "verify nobody"]);
    let layer = "store/blobs/sha256/617e415ce3fed1cb433e84f0ff90f87445ab66413e9e87c35d48b8c9ffbfeda4";
    fs::remove_file(place.path(layer)).unwrap();
    fs::write(place.path(layer), "torn").unwrap();
    let damaged = ["verify", "verify --repair --json", "verify", "verify --json -q", pull, "verify --repair"];
    runs.extend(run(&damaged));
    fs::write(place.path("store/index.json"), "torn").unwrap();
    runs.extend(run(&["list", "verify", "verify --repair", "list"]));
    check("verify", &runs);
}

#[test]
fn what_broken_work_leaves_is_told_and_dropped() {
    let place = Place::new();
    let pulled = place.run("pull oci:examples/sample:latest --platform linux/amd64 -q");
    let leave = |folder: String, file: &str, content: &str| {
        let folder = place.path(&format!("store/{folder}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(format!("{folder}/{file}"), content).unwrap();
    };
    let digests = ["one", "two"].map(|text| plyfold::digest::sha256(text.as_bytes()));
    for (digest, content) in digests.iter().zip(["a part", "another part"]) {
        leave("ingest".to_owned(), &format!("sha256-{}", digest.digest()), content);
    }
    // Killed between a block device and its checksum.
    let hex = digests[0].digest();
    let folder = format!("artifacts/erofs-layers-v1/sha256/{}", &hex[..2]);
    leave(folder, &format!("{hex}.erofs"), "half of it");
    let lines = [
        "list",
        "list --json",
        "verify",
        "verify --json -q",
        "gc --dry-run",
        "gc --partial --dry-run",
        "verify --repair",
        "gc",
        "gc --partial --json",
        "list",
        "gc --partial",
    ];
    let runs: Vec<_> = std::iter::once(pulled).chain(lines.map(|line| place.run(line))).collect();
    check("broken_work", &runs);
}

#[test]
fn raw_is_the_bytes_as_they_were_received() {
    let place = Place::new();
    place.run("pull oci:examples/sample");
    let index = fs::read(baseline::root().join("examples/sample/index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let output = place.command(["inspect", "--raw", "localhost/sample"]).output().unwrap();
    assert_eq!(plyfold::digest::sha256(&output.stdout).as_ref(), digest);
}

#[test]
fn snapshots_of_disks() {
    let place = Place::new();
    let lines = [
        "materialize oci:examples/sample:latest --platform linux/amd64 --as vmdk --upper 64M --out {}/vm -q",
        "snapshot save {}/vm --out {}/saved",
        "snapshot save {}/vm --out {}/saved",
        "snapshot save {}/vm state:1",
        "snapshot save {}/vm state:1 -q",
        "snapshot save {}/vm localhost/sample",
        "snapshot save {}/vm oci:{}/layout:state --attach --json",
        "snapshot save {}/none state:2",
        "snapshot save {}/vm",
        "snapshot list",
        "snapshot ls --json",
        "snapshot verify {}/saved",
        "snapshot verify state:1 --json",
        "snapshot load {}/saved --out {}/vm2",
        "snapshot load state:1 --out {}/vm2",
        "snapshot load oci:{}/layout:state --out {}/vm3 --json",
        "snapshot load localhost/sample --out {}/vm4 --platform linux/amd64",
        "snapshot rm localhost/sample",
        "snapshot rm state:1 --json",
        "checkpoint {}/vm",
    ];
    let mut runs = lines.map(|line| place.run(line)).to_vec();
    let layer = place.path("saved/layer-00.erofs");
    let content = fs::read(&layer).unwrap();
    fs::remove_file(&layer).unwrap();
    runs.push(place.run("snapshot verify {}/saved"));
    fs::write(&layer, [&content[1..], b"x"].concat()).unwrap();
    runs.push(place.run("snapshot verify {}/saved --json"));
    runs.push(place.run("snapshot load {}/saved --out {}/vm4"));
    check("snapshots", &runs);
    let made: Vec<String> = place.files().into_iter().filter(|name| name.starts_with("vm4")).collect();
    assert_eq!(made, [""; 0]);
}

#[test]
fn disks_of_an_image() {
    let place = Place::new();
    let image = "materialize oci:examples/sample:latest --platform linux/amd64";
    let lines = [
        format!("{image} --as erofs-layers --out {{}}/layers"),
        format!("{image} --as erofs-merged --out {{}}/deep/merged -q"),
        format!("{image} --as vmdk --upper 64M --out {{}}/vmdk"),
        format!("{image} --as vmdk --upper 64M --out {{}}/vmdk --json"),
        format!("{image} --as erofs --out {{}}/flat"),
        format!("{image} --as erofs --upper 64M --out {{}}/flat --json"),
        format!("{image} --as raw --out {{}}/raw"),
        format!("{image} --as gpt --upper 64M --out {{}}/gpt"),
        format!("{image} --as vmdk-gpt --upper 64M --out {{}}/vmdk-gpt"),
        format!("{image} --as vmdk-stream -m of=gpt --out {{}}/vmdk-stream"),
        format!("{image} --as vmdk-stream --upper 64M --out {{}}/vmdk-stream"),
    ];
    check("materialize", &lines.each_ref().map(|line| place.run(line)));
    let expected = [
        "deep/merged/layer-00.erofs",
        "deep/merged/layer-01.erofs",
        "deep/merged/merged.erofs",
        "flat/.plyfold-set",
        "flat/rootfs.erofs",
        "flat/upper.ext4",
        "gpt/.plyfold-set",
        "gpt/rootfs.gpt",
        "gpt/upper.ext4",
        "layers/layer-00.erofs",
        "layers/layer-01.erofs",
        "layers/merged.erofs",
        "raw/.plyfold-set",
        "raw/rootfs.raw",
        "vmdk-gpt/.plyfold-set",
        "vmdk-gpt/layer-00.erofs",
        "vmdk-gpt/layer-01.erofs",
        "vmdk-gpt/merged.erofs",
        "vmdk-gpt/partitions.gpt",
        "vmdk-gpt/rootfs.vmdk",
        "vmdk-gpt/upper.ext4",
        "vmdk-stream/rootfs.vmdk",
        "vmdk/layer-00.erofs",
        "vmdk/layer-01.erofs",
        "vmdk/merged.erofs",
        "vmdk/rootfs.vmdk",
        "vmdk/upper.ext4",
    ];
    assert_eq!(place.files(), expected);
    for file in ["layer-00.erofs", "layer-01.erofs", "merged.erofs"] {
        let [one, other] =
            ["vmdk", "deep/merged"].map(|dir| fs::read(place.dir.path().join(dir).join(file)).unwrap());
        assert!(one == other, "{file} differs");
    }
}

#[test]
fn what_overlayfs_cannot_show_is_said_whatever_is_silenced() {
    let place = Place::new();
    let lower = LayerBuilder::new().file("a", 0o644, b"lower").finish();
    let upper = LayerBuilder::new().hard_link("b", "a").finish();
    let sample = samples::of_layers("links", &[lower, upper]);
    samples::write_layout(&place.dir.path().join("links"), &[("localhost/links:1".to_owned(), &sample)])
        .unwrap();
    let run = |options: &str| {
        let line = format!("materialize oci:{{}}/links --platform linux/amd64 --as erofs-layers {options}");
        let line = line.replace("{}", &place.dir.path().display().to_string());
        place.command(line.split(' ').collect::<Vec<_>>()).output().unwrap()
    };
    let refused = run(&format!("--strict --out {}/refused", place.dir.path().display()));
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("/b is a hard link"), "{refused:?}");
    assert!(!place.dir.path().join("refused").exists());
    let silenced = run(&format!("-q --json --out {}/layers", place.dir.path().display()));
    assert!(silenced.status.success(), "{silenced:?}");
    assert!(String::from_utf8_lossy(&silenced.stderr).contains("/b is a hard link"), "{silenced:?}");
    let told: Value = serde_json::from_slice(&silenced.stdout).unwrap();
    assert_eq!(told["overlay_differences"]["count"], 1);
    assert_eq!(told["overlay_differences"]["examples"][0]["path"], "/b");
    assert!(told["merged"].as_str().unwrap().ends_with("merged.erofs"));
    assert!(told["mount"].as_str().unwrap().contains("merged.erofs"));
}

#[test]
fn an_upper_that_was_written_to_is_never_replaced() {
    let place = Place::new();
    let line = "materialize oci:examples/sample --as vmdk --upper 64M --out {}/vmdk";
    place.run(line);
    let upper = place.dir.path().join("vmdk/upper.ext4");
    let mut disk = fs::read(&upper).unwrap();
    // s_mnt_count, offset 52 of the superblock at 1024: a kernel has mounted it.
    disk[1024 + 52] += 1;
    fs::write(&upper, &disk).unwrap();
    check("upper", &[place.run(line)]);
    assert!(fs::read(&upper).unwrap() == disk);
}

#[test]
fn a_root_disk_is_made_and_grows() {
    let place = Place::new();
    let image = "materialize oci:examples/sample --platform linux/amd64 --as ext4";
    let disk = "{}/root/rootfs.ext4";
    let lines = [
        format!("{image} -m size=128M --out {{}}/root"),
        format!("{image} -m size=1T -m journal=none -m label=root --out {{}}/other --json"),
        format!("{image} -m size=1M --out {{}}/small"),
        format!("{image} -m size=8GB --out {{}}/small"),
        format!("{image} --upper 64M --out {{}}/small"),
        format!("resize {disk} 20G"),
        format!("resize {disk} 20GiB --no-sync --json"),
        format!("resize {disk} 64M"),
        format!("resize {disk} 17T"),
        "resize {}/nothing.ext4 64M".to_owned(),
        "resize {} 64M".to_owned(),
        format!("{image} -m size=128M --out {{}}/root"),
    ];
    check("ext4", &lines.each_ref().map(|line| place.run(line)));
    assert_eq!(place.files(), ["other/rootfs.ext4", "root/rootfs.ext4"]);
    assert_eq!(fs::metadata(place.path("root/rootfs.ext4")).unwrap().len(), 20 << 30);
}

#[test]
fn one_layer_and_one_disk() {
    let place = Place::new();
    let tar = LayerBuilder::new().dir("etc", 0o755).file("etc/motd", 0o644, b"hello\n").finish();
    fs::write(place.path("layer.tar"), &tar).unwrap();
    fs::write(place.path("layer.tar.gz"), samples::gzip(&[&tar])).unwrap();
    fs::write(place.path("layer.tar.zst"), samples::zstd(&[&tar])).unwrap();
    let lines = [
        "layer {}/layer.tar --out {}/plain.erofs",
        "layer {}/layer.tar.gz --out {}/gzip.erofs --json",
        "layer {}/layer.tar.zst --out {}/zstd.erofs",
        "layer {}/layer.tar --out {}/large.erofs --max-metadata 1G",
        "layer {}/layer.tar --out {}/small.erofs --max-metadata 16",
        "disk --size 64M --out {}/disk.ext4",
        "disk --size 64MiB --out {}/disk.ext4 --json",
    ];
    check("layer", &lines.map(|line| place.run(line)));
    let [plain, gzip, zstd] =
        ["plain", "gzip", "zstd"].map(|name| fs::read(place.path(&format!("{name}.erofs"))).unwrap());
    assert!(plain == gzip && gzip == zstd);

    let mut child = place
        .command(["layer", "-", "--out", &place.path("pipe.erofs")])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&tar).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(fs::read(place.path("pipe.erofs")).unwrap() == plain);
}

#[test]
fn hash_trees() {
    let place = Place::new();
    let write = |name: &str, bytes: &[u8]| fs::write(place.path(name), bytes).unwrap();
    let content: Vec<u8> = (0..129 * 4096_u32).map(|at| (at / 4096 + at % 251) as u8).collect();
    write("disk.img", &content);
    write("odd.img", &content[..1000]);
    fs::hard_link(place.path("disk.img"), place.path("link.img")).unwrap();
    fs::set_permissions(place.path("disk.img"), fs::Permissions::from_mode(0o444)).unwrap();
    let layout = TreeLayout::beside(Parameters::default(), content.len() as u64).unwrap();
    let disk = fs::File::open(place.path("disk.img")).unwrap();
    let root = layout.root_hash(&disk, &Work::new(&Stop::default())).unwrap();
    let other = "ab".repeat(32);
    let run = |lines: &[&str]| {
        let lines = lines.iter().map(|line| line.replace("ROOT", &root.to_string()).replace("OTHER", &other));
        lines.map(|line| place.run(&line)).collect::<Vec<_>>()
    };
    let uuid = "--uuid 6fbd1df7-2b21-4e69-8bf3-6f5a2f1f5b3c";
    let mut runs = run(&[
        "verity {}/disk.img",
        "verity {}/disk.img --hash-tree {}/disk.verity",
        "verity {}/disk.img --hash-tree {}/disk.verity",
        "verity {}/disk.img --hash-tree {}/disk.img",
        &format!("verity {{}}/disk.img --hash-tree {{}}/named.verity {uuid} --salt a1b2 --json"),
        "verity {}/disk.img --hash-tree {}/bare.verity --no-superblock --salt - --data-block-size 512",
        "verity {}/disk.img --hash-tree {}/disk.verity --check ROOT",
        "verity {}/disk.img --hash-tree {}/disk.verity --check OTHER",
        "verity {}/disk.img --hash-tree {}/disk.verity --check ROOT --salt 00",
        "verity {}/disk.img --check ROOT",
        "verity {}/disk.img --check OTHER",
        "verity {}/disk.img --append --check ROOT",
        "verity {}/disk.img --append --sidecar",
        "verity {}/disk.img --append",
        "verity {}/disk.img --check ROOT --json",
        "verity {}/link.img --append --no-superblock --no-sync",
        "verity {}/link.img --append --no-superblock --check ROOT",
    ]);
    // A link to the file is another file since.
    let link = fs::read(place.path("link.img")).unwrap();
    let mut disk = fs::read(place.path("disk.img")).unwrap();
    assert!(link[..content.len()] == content && disk[..content.len()] == content && link.len() < disk.len());
    assert_eq!(fs::metadata(place.path("disk.img")).unwrap().permissions().mode() & 0o7777, 0o444);
    let sidecar = fs::read(place.path("disk.img.dmverity")).unwrap();
    let sidecar: Value = serde_json::from_slice(&sidecar).unwrap();
    let expected = serde_json::json!({ "roothash": root.to_string(), "hashoffset": content.len() });
    assert_eq!(sidecar, expected);
    disk[100 * 4096 + 77] ^= 1;
    write("bad.img", &disk);
    runs.extend(run(&[
        "verity {}/bad.img --check ROOT",
        "verity {}/odd.img",
        "verity {}/odd.img --data-block-size 500",
        "verity {}/odd.img --salt abc",
        "verity {}/odd.img --check abc",
        "verity {}/none.img",
        "verity {}",
        "verity {}/odd.img --sidecar",
        "verity {}/odd.img --append --hash-tree {}/tree",
    ]));
    check("verity", &runs);
    let files = [
        "bad.img",
        "bare.verity",
        "disk.img",
        "disk.img.dmverity",
        "disk.verity",
        "link.img",
        "named.verity",
        "odd.img",
    ];
    assert_eq!(place.files(), files);
}

#[test]
fn hash_trees_of_images() {
    let place = Place::new();
    let image = "oci:examples/sample:latest --platform linux/amd64";
    let lines = [
        format!("materialize {image} --as erofs -m verity=append --out {{}}/flat"),
        format!(
            "materialize {image} --as erofs -m verity=append --upper 64M --verity require --out {{}}/upper"
        ),
        format!("materialize {image} --as raw -m verity=beside --out {{}}/raw --json"),
        format!("materialize {image} --as erofs-merged -m verity=append --verity require --out {{}}/merged"),
        format!("materialize {image} --as erofs-layers -m verity=append --verity require --out {{}}/layers"),
        format!("verity {image} --as erofs"),
        format!("verity {image} --as erofs -m verity=beside --json"),
        format!("verity {image} --as erofs-layers -m block-size=512 --out {{}}/roots.json"),
        format!("verity {image} --as erofs-merged"),
        format!("verity {image} --as gpt -m verity=partition"),
        format!(
            "materialize {image} --as gpt -m verity=partition --upper 64M --verity require --out {{}}/partitions"
        ),
        format!("materialize {image} --as gpt -m verity=append --out {{}}/gpt --json"),
        format!("materialize {image} --as erofs-tar -m verity=append --verity require --out {{}}/tars"),
        // None of these makes a file.
        format!("materialize {image} --as erofs --verity require --out {{}}/none"),
        format!("materialize {image} --as vmdk --verity require --out {{}}/none"),
        format!("materialize {image} --as erofs -m verity=append --verity require --out {{}}/none --boot"),
        format!("materialize {image} --as vmdk -m verity=append --out {{}}/none"),
        format!("materialize {image} --as erofs-layers -m verity=beside --out {{}}/none"),
        format!("verity {image} --as vmdk"),
        format!("verity {image} --as erofs -m verity=inside"),
        format!("verity {image} --as erofs --append"),
        format!("verity {image} --out {{}}/none"),
    ];
    check("verified", &lines.each_ref().map(|line| place.run(line)));
    let files = [
        "flat/.plyfold-set",
        "flat/rootfs.erofs",
        "gpt/.plyfold-set",
        "gpt/rootfs.gpt",
        "layers/layer-00.erofs",
        "layers/layer-00.erofs.dmverity",
        "layers/layer-01.erofs",
        "layers/layer-01.erofs.dmverity",
        "layers/merged.erofs",
        "merged/layer-00.erofs",
        "merged/layer-00.erofs.dmverity",
        "merged/layer-01.erofs",
        "merged/layer-01.erofs.dmverity",
        "merged/merged.erofs",
        "partitions/.plyfold-set",
        "partitions/rootfs.gpt",
        "partitions/upper.ext4",
        "raw/.plyfold-set",
        "raw/rootfs.raw",
        "raw/rootfs.verity",
        "roots.json",
        "tars/layer-00.erofs",
        "tars/layer-00.erofs.dmverity",
        "tars/layer-01.erofs",
        "tars/layer-01.erofs.dmverity",
        "upper/.plyfold-set",
        "upper/rootfs.erofs",
        "upper/upper.ext4",
    ];
    assert_eq!(place.files(), files);
    // Another machine computes the same bytes.
    let other = Place::new();
    other.run(&lines[7]);
    assert!(fs::read(place.path("roots.json")).unwrap() == fs::read(other.path("roots.json")).unwrap());
    // What is shown is what the files have.
    let output = place.command(format!("verity {image} --as erofs").split(' ')).output().unwrap();
    let roots: Value = serde_json::from_slice(&output.stdout).unwrap();
    let root = roots["disks"][0]["rootHash"].as_str().unwrap().parse().unwrap();
    let flat = fs::File::open(place.path("flat/rootfs.erofs")).unwrap();
    let (layout, _) = TreeLayout::find(&flat).unwrap().unwrap();
    layout.verify(&root, &flat, &flat, &Work::new(&Stop::default())).unwrap();
    let hashes: plyfold::RootHashes = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(hashes.document().unwrap().as_bytes(), output.stdout);
    // A set without trees takes the files of the one before with it.
    place.run(&format!("materialize {image} --as erofs-merged --out {{}}/merged"));
    assert!(!place.files().iter().any(|file| file.starts_with("merged/") && file.ends_with(".dmverity")));
}

#[test]
fn archives() {
    let place = Place::new();
    let image = samples::image();
    let named = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), &image)).collect::<Vec<_>>();
    fs::write(place.path("docker.tar"), docker_archive(&named(&["a.example/app:1", "a.example/app:2"])))
        .unwrap();
    fs::write(place.path("oci.tar"), oci_archive(&named(&["b.example/app:1"]))).unwrap();
    let lines = [
        "load {}/docker.tar --platform linux/amd64",
        "load {}/oci.tar --platform linux/amd64 -q",
        "load oci-archive:{}/oci.tar:b.example/app:1 --platform linux/amd64 --json",
        "load examples/sample --platform linux/amd64 -q",
        "list",
        "pull docker-archive:{}/docker.tar",
    ];
    check("load", &lines.map(|line| place.run(line)));
}

#[test]
fn a_root_file_system_as_one_tar() {
    let place = Place::new();
    let image = "export oci:examples/sample --platform linux/amd64";
    let lines = [
        format!("{image} --out {{}}/rootfs.tar"),
        format!("{image} --out {{}}/again.tar --json"),
        format!("{image} --out {{}}/nope/rootfs.tar"),
    ];
    check("export", &lines.each_ref().map(|line| place.run(line)));
    let tar = fs::read(place.path("rootfs.tar")).unwrap();
    assert!(tar == fs::read(place.path("again.tar")).unwrap());
    let mut layer = LayerTar::new(std::io::Cursor::new(tar), LayerOptions::default()).unwrap();
    let mut names = Vec::new();
    while let Some(entry) = layer.next_entry().unwrap() {
        names.push(entry.path.to_string());
    }
    // The whiteout has done its work, and is gone; the second name of a file comes last.
    assert_eq!(names, ["/", "/bin", "/etc", "/bin/hello", "/etc/motd", "/bin/hi"]);
}

#[test]
fn failures() {
    let place = Place::new();
    fs::write(place.path("text"), "not an archive").unwrap();
    fs::write(place.path("cut.tar.gz"), &samples::gzip(&[&[0; 10240]])[..5000]).unwrap();
    fs::create_dir(place.path("dir")).unwrap();
    let lines = [
        "pull oci:examples/sample --policy never --platform linux/amd64",
        // Usage.
        "pull",
        "pull --json",
        "mount alpine",
        "save alpine --json",
        "materialise alpine",
        "pull s3://bucket/image",
        "pull s3://bucket/image --json",
        "pull UPPER",
        "pull oci:examples/sample -o depth=3",
        "pull oci:examples/sample -o depth",
        "pull oci:examples/sample -o follow-symlinks=yes",
        "tags localhost:1/org/app -o plain-http=true",
        "login https://localhost:1 -u me --password-stdin",
        "pull oci:examples/sample --platform linux",
        "pull examples/sample",
        "disk --size 8GB --out {}/disk.ext4",
        "disk --size 1M --out {}/disk.ext4",
        "disk --size 64M --out {}/dir",
        "layer {}/dir --out {}/layer.erofs",
        "materialize oci:examples/sample --as vmdk --upper 3 --out {}/vmdk",
        "materialize oci:examples/sample --as vmdk --mode 640 --out {}/vmdk",
        "materialize oci:examples/sample --as vmdk --copy --mode 4755 --out {}/vmdk",
        "materialize oci:examples/sample --as vmdk --copy --owner nobody-has-this --out {}/vmdk",
        "materialize oci:examples/sample --as vmdk --platform linux/amd64 --out {}/text -q",
        // Not found.
        "pull oci:examples/sample:nope",
        "pull oci:{}/nope:latest",
        "pull oci:examples/sample --platform linux/s390x",
        "pull oci:examples/sample --platform linux/s390x --json",
        "load {}/nope.tar",
        "layer {}/nope.tar --out {}/layer.erofs",
        "disk --size 64M --out {}/nope/disk.ext4",
        // Corrupt.
        "load {}/text",
        "layer {}/text --out {}/layer.erofs",
        "layer {}/cut.tar.gz --out {}/layer.erofs",
        "load {}/dir",
    ];
    check("failures", &lines.map(|line| place.run(line)));
    assert_eq!(place.files(), ["cut.tar.gz", "text"]);
}

#[test]
fn a_registry_and_its_failures() {
    let server =
        FaultServer::with(Options { auth: Auth::Basic(Login::new("me", "secret")), ..Options::default() })
            .unwrap();
    server.put("org/app", "1", &samples::image());
    let mut place = Place::new();
    // The first port is taken, the second was just released: nothing listens there.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    place.hosts = vec![server.host().to_owned()];
    let login = "-o username=me -o password=secret --platform linux/amd64";
    let lines = [
        format!("pull HOST:PORT/org/app:1 {login} -q"),
        format!("pull HOST:PORT/org/app:none {login}"),
        format!("pull HOST:PORT/org/app:none {login} --json"),
        "pull HOST:PORT/org/app:1 --platform linux/amd64 --policy never".to_owned(),
        "remove HOST:PORT/org/app:1".to_owned(),
        "pull HOST:PORT/org/app:1 --platform linux/amd64".to_owned(),
        "pull HOST:PORT/org/app:1 -o username=me -o password=wrong".to_owned(),
    ];
    let mut runs: Vec<String> = lines.iter().map(|line| place.run(line)).collect();
    place.hosts = vec![closed];
    runs.push(place.run("pull HOST:PORT/org/app:1"));
    check("registry", &runs);
}

#[test]
fn an_interrupted_download_leaves_a_store_that_goes_on() {
    let (server, sample) = (FaultServer::start().unwrap(), samples::image());
    server.put("org/app", "1", &sample);
    server.script(On::blob(sample.images[0].layers[0].descriptor.digest()), [Fault::StallAt(100)]);
    let place = Place::new();
    let (image, out) = (format!("{}/org/app:1", server.host()), place.path("vmdk"));
    let arguments = ["materialize", &image, "--as", "vmdk", "--out", &out, "--platform", "linux/amd64"];
    let mut child = place.command(arguments).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    // The other layer is here: this one hangs.
    assert!(said.any(|line| line.ends_with("converted")));
    interrupt(&child);
    // The header of a stalled layer, and the layer that has come.
    let last = said.last().unwrap();
    assert!(last.starts_with("error: interrupted; "), "{last}");
    assert!(last.ends_with("B are kept, and the same command resumes there"), "{last}");
    assert_eq!(child.wait().unwrap().signal(), Some(SIGINT));
    assert_eq!(place.files(), [""; 0]);
    server.clear_scripts();
    let output = place.command(arguments).output().unwrap();
    assert!(output.status.success(), "{:?}", failure(&output));
}

#[test]
fn control_characters_never_reach_the_terminal() {
    let place = Place::new();
    let output = place.command(["load", "\u{1b}[31m\u{7}red"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(!output.stderr.iter().any(|c| c.is_ascii_control() && *c != b'\n'), "{:?}", failure(&output));
}

#[test]
fn a_closed_standard_output_is_no_failure() {
    let place = Place::new();
    let mut child =
        place.command(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn a_standard_output_that_cannot_be_written_is() {
    let place = Place::new();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = place.command(["backends"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    let (code, said) = failure(&output);
    assert_eq!(code, Some(1));
    assert!(said.contains("hint: the disk is full"), "{said}");
}

#[test]
fn an_interrupt_leaves_nothing() {
    let place = Place::new();
    let mut child = place
        .command(["layer", "-", "--out", &place.path("layer.erofs")])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The pipe stays open: without the interrupt this would never end.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&[0; 512]).unwrap();
    while place.files().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    // A shell's loop would go on after any exit code.
    assert_eq!(output.status.signal(), Some(SIGINT));
    assert_eq!(failure(&output), (None, "error: interrupted\n".to_owned()));
    assert_eq!(place.files(), [""; 0]);
}

const SIGINT: i32 = 2;

fn interrupt(child: &Child) {
    // The shell's own `kill`: not every machine has the program.
    let kill = Command::new("sh").args(["-c", "kill -INT $0", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
}

#[test]
fn completions_name_every_verb() {
    let place = Place::new();
    let verbs = verbs(&place.run("--help"));
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = place.command(["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        let asks = ["bash", "fish", "zsh"].contains(&shell);
        assert_eq!(script.contains("names-for-completion"), asks, "{shell} asks for the names of images");
        for verb in &verbs {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
    }
}

#[test]
fn the_json_of_backends_lists_what_is_linked() {
    let place = Place::new();
    let output = place.command(["backends", "--json"]).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let schemes: Vec<&str> = document
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|backend| backend["schemes"].as_array().unwrap())
        .map(|scheme| scheme.as_str().unwrap())
        .collect();
    for scheme in ["docker", "docker-archive", "oci", "oci-archive", "registry"] {
        assert!(schemes.contains(&scheme), "{schemes:?}");
    }
    let oci = document.as_array().unwrap().iter().find(|backend| backend["schemes"][0] == "oci").unwrap();
    assert_eq!(oci["options"], "follow-symlinks=true");
    assert!(place.run("backends").contains("follow-symlinks=true"));
}

#[test]
fn a_place_on_this_machine_lists_full_names_and_an_archive_deletes_nothing() {
    let place = Place::new();
    let tag = "[exit 0]\n-- out\nlocalhost/sample:latest\n";
    for image in ["oci:examples/sample", "oci:examples/sample:latest"] {
        let text = place.run(&format!("tags {image}"));
        assert!(text.contains(tag), "{text}");
    }
    let text = place.run("tags oci:examples/sample:latest --json");
    assert!(text.contains("\"localhost/sample:latest\""), "{text}");
    let text = place.run("delete docker-archive:o.tar:app:1");
    assert!(text.contains("[exit 1]") && text.contains("this backend cannot delete images"), "{text}");
}

#[test]
fn formats_take_options_and_others_are_refused() {
    let place = Place::new();
    let output = place.command(["formats", "--json"]).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let named: Vec<(&str, &str)> = document
        .as_array()
        .unwrap()
        .iter()
        .map(|format| (format["name"].as_str().unwrap(), format["input"].as_str().unwrap()))
        .collect();
    let expected = [
        ("erofs", "image"),
        ("erofs-layers", "layer"),
        ("erofs-merged", "erofs-layers"),
        ("erofs-tar", "layer"),
        ("ext4", "image"),
        ("gpt", "erofs-merged"),
        ("raw", "erofs-merged"),
        ("vmdk", "erofs-merged"),
        ("vmdk-gpt", "erofs-merged"),
        ("vmdk-stream", "raw"),
    ];
    assert_eq!(named, expected);
    assert_eq!(document[2]["outputs"][0]["role"], "image");
    assert!(place.run("formats").contains("block-size=BYTES"));
    let sample = "materialize oci:examples/sample:latest --platform linux/amd64 --out {}/out -q";
    for (arguments, said) in [
        ("--as cpio", "invalid value 'cpio' for '--as <FORMAT>'"),
        ("--as vmdk -m depth=3", "unknown field `depth`"),
        ("--as erofs -m uuid=7", "\"7\" is no UUID"),
        ("--as erofs -m mtime=soon", "invalid"),
        ("--as vmdk-stream -m of=ext4", "of is one of erofs, gpt and raw"),
        ("--as vmdk-stream -m level=10", "there are 1 to 9"),
        ("--as raw -m block-size=100", "512, 1024, 2048 or 4096"),
        ("--as erofs-layers -m block-size=100", "512, 1024, 2048 or 4096"),
        ("--as erofs-layers -m block-size", "format: erofs-layers"),
        ("--as erofs-layers -m block-size", "hint: write KEY=VALUE"),
        (
            "--as erofs-layers -m block-size=1 -m block-size=2",
            "invalid option `block-size`: it takes one value, and is given 2",
        ),
        ("--as erofs-layers -m block-size=x", "\"x\" is not a whole number"),
    ] {
        let text = place.run(&format!("{sample} {arguments}"));
        assert!(text.contains("[exit 2]") && text.contains(said), "{arguments}: {text}");
    }
    assert_eq!(place.files(), [""; 0]);
    let layer = || fs::read(place.path("out/layer-00.erofs")).unwrap();
    place.run(&format!("{sample} --as erofs-layers"));
    let usual = layer();
    // The superblock's `blkszbits`, at 1024 + 12.
    let text = place.run(&format!("{sample} --as erofs-merged -m block-size=512 -m label=root"));
    assert!(text.contains("[exit 0]"), "{text}");
    assert_eq!((usual[1036], layer()[1036]), (12, 9));
    let merged = fs::read(place.path("out/merged.erofs")).unwrap();
    assert_eq!((merged[1036], &merged[1024 + 64..1024 + 68]), (9, &b"root"[..]));
    let options = "-m mtime=258 -m uuid=01020304-0506-0708-090a-0b0c0d0e0f10";
    let text = place.run(&format!("{sample} --as erofs {options}"));
    assert!(text.contains("[exit 0]"), "{text}");
    let flat = fs::read(place.path("out/rootfs.erofs")).unwrap();
    let uuid: Vec<u8> = (1..=16).collect();
    assert_eq!((&flat[1024 + 24..1024 + 28], &flat[1024 + 48..1024 + 64]), (&[2, 1, 0, 0][..], &*uuid));
    // The layers that the set before had are gone, and nothing else is made.
    let entries = fs::read_dir(place.path("out")).unwrap();
    let mut left: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".plyfold-image", ".plyfold-set", "rootfs.erofs"]);
}
