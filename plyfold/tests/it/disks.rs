//! What the program makes of images for machines: disks, hash trees, snapshots.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use plyfold::blocking::Stop;
use plyfold::materializers::verity::{Parameters, TreeLayout, Work};
use plyfold_conformance::samples::{self, LayerBuilder};
use serde_json::Value;

use super::run::{Place, check};

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
        "snapshot save {}/saved state:2",
        "snapshot save {}/vm/rootfs.vmdk state:2",
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
        "snapshot rm stat:1",
        "snapshot rm state:1 --json",
        "snapshot rm state:1",
        "checkpoint {}/vm",
        "snapshot verify {}/vm",
        "snapshot load plyfold --out {}/vm4",
    ];
    let mut runs = lines.map(|line| place.run(line)).to_vec();
    let layer = place.path("saved/layer-00.erofs");
    let content = fs::read(&layer).unwrap();
    fs::remove_file(&layer).unwrap();
    runs.push(place.run("snapshot verify {}/saved"));
    fs::write(&layer, [&content[1..], b"x"].concat()).unwrap();
    runs.push(place.run("snapshot verify {}/saved --json"));
    runs.push(place.run("snapshot load {}/saved --out {}/vm4"));
    fs::remove_file(place.path("saved/snapshot.json")).unwrap();
    runs.push(place.run("snapshot load {}/saved --out {}/vm4"));
    let merged = place.path("vm2/merged.erofs");
    let content = fs::read(&merged).unwrap();
    fs::remove_file(&merged).unwrap();
    fs::write(&merged, [&content[..], b"x"].concat()).unwrap();
    runs.push(place.run("snapshot save {}/vm2 state:2"));
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
        "materialize oci:examples/sample --platform linux/amd64 --as gpt --out {}/gpt -q".to_owned(),
        "materialize oci:examples/sample --platform linux/amd64 --as erofs --out {}/erofs -q".to_owned(),
        "resize {}/gpt/rootfs.gpt 64M".to_owned(),
        "resize {}/erofs/rootfs.erofs 64M".to_owned(),
        format!("{image} -m size=128M --out {{}}/root"),
    ];
    check("ext4", &lines.each_ref().map(|line| place.run(line)));
    assert_eq!(
        place.files(),
        [
            "erofs/.plyfold-set",
            "erofs/rootfs.erofs",
            "gpt/.plyfold-set",
            "gpt/rootfs.gpt",
            "other/rootfs.ext4",
            "root/rootfs.ext4"
        ]
    );
    assert_eq!(fs::metadata(place.path("root/rootfs.ext4")).unwrap().len(), 20 << 30);
}

/// QEMU and Cloud Hypervisor lock the disks that they have open.
#[test]
fn a_disk_that_a_machine_has_open_does_not_grow() {
    let place = Place::new();
    place.run("disk --size 64M --out {}/disk.ext4");
    let disk = File::options().read(true).write(true).open(place.path("disk.ext4")).unwrap();
    rustix::fs::fcntl_lock(&disk, rustix::fs::FlockOperation::LockShared).unwrap();
    let refused = place.run("resize {}/disk.ext4 128M");
    assert!(refused.contains("another program has the disk open"), "{refused}");
    assert_eq!(disk.metadata().unwrap().len(), 64 << 20);
    drop(disk);
    place.run("resize {}/disk.ext4 128M");
    assert_eq!(fs::metadata(place.path("disk.ext4")).unwrap().len(), 128 << 20);
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
    let disk = File::open(place.path("disk.img")).unwrap();
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
        format!("materialize {image} --as vmdk-gpt -m verity=partition --verity require --out {{}}/vmdk-gpt"),
        format!("verity {image} --as vmdk-gpt"),
        format!(
            "materialize {image} --as vmdk-stream -m verity=append --verity require --out {{}}/stream --json"
        ),
        format!("materialize {image} --as vmdk-stream -m verity=append --out {{}}/stream"),
        format!("verity {image} --as vmdk-stream -m of=gpt"),
        // None of these makes a file.
        format!("materialize {image} --as ext4 --verity require --out {{}}/none"),
        format!("materialize {image} --as erofs --verity require --out {{}}/none"),
        format!("materialize {image} --as vmdk --verity require --out {{}}/none"),
        format!("materialize {image} --as erofs -m verity=append --verity require --out {{}}/none --boot"),
        format!("materialize {image} --as vmdk -m verity=partition --out {{}}/none"),
        format!("materialize {image} --as erofs-layers -m verity=inside --out {{}}/none"),
        format!("materialize {image} --as vmdk-stream -m verity=partition --out {{}}/none"),
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
        "stream/rootfs.vmdk",
        "tars/layer-00.erofs",
        "tars/layer-00.erofs.dmverity",
        "tars/layer-01.erofs",
        "tars/layer-01.erofs.dmverity",
        "upper/.plyfold-set",
        "upper/rootfs.erofs",
        "upper/upper.ext4",
        "vmdk-gpt/.plyfold-set",
        "vmdk-gpt/layer-00.erofs",
        "vmdk-gpt/layer-00.erofs.dmverity",
        "vmdk-gpt/layer-01.erofs",
        "vmdk-gpt/layer-01.erofs.dmverity",
        "vmdk-gpt/merged.erofs",
        "vmdk-gpt/partitions.gpt",
        "vmdk-gpt/rootfs.vmdk",
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
    let flat = File::open(place.path("flat/rootfs.erofs")).unwrap();
    let (layout, _) = TreeLayout::find(&flat).unwrap().unwrap();
    layout.verify(&root, &flat, &flat, &Work::new(&Stop::default())).unwrap();
    let hashes: plyfold::RootHashes = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(hashes.document().unwrap().as_bytes(), output.stdout);
    // A set without trees takes the files of the one before with it.
    place.run(&format!("materialize {image} --as erofs-merged --out {{}}/merged"));
    assert!(!place.files().iter().any(|file| file.starts_with("merged/") && file.ends_with(".dmverity")));
}
