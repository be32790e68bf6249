//! `ls`, `cat` and `inspect` of files: what is in an image or a disk, without mounting it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Stdio;

use plyfold::digest::sha256;
use plyfold::files::Files as _;
use plyfold::layer::LayerLimits;
use plyfold::{ErrorKind, Images, PullOptions};
use plyfold_conformance::samples::{self, LayerBuilder, Sample, docker_archive};
use serde_json::Value;

use super::run::{Place, check};

fn image() -> Sample {
    let lower = LayerBuilder::new()
        .dir("etc", 0o755)
        .file("etc/os-release", 0o644, b"NAME=sample\n")
        .file("etc/gone", 0o644, b"gone")
        .symlink("etc/release", "../../../etc/os-release")
        .symlink("etc/nowhere", "none")
        .hard_link("etc/again", "etc/os-release")
        .dir("dev", 0o755)
        .char_device("dev/null", 0o666, 1, 3)
        .fifo("dev/pipe", 0o600)
        .symlink("lib", "usr/lib")
        .xattr("user.note", [0, 255])
        .owner(1000, 70_000)
        .mtime("-1.5")
        .file("usr/lib/data", 0o4755, &[b'x'; 6000])
        .file(b"usr/b\xff\n", 0o644, b"no text")
        .finish();
    let upper = LayerBuilder::new().whiteout("etc/gone").file("etc/new", 0o600, b"new\n").finish();
    samples::of_layers("app", &[lower, upper])
}

/// A hash tree behind an image, or in a partition of its own, is none of the image's data.
#[test]
fn files_of_disks_with_hash_trees() {
    let place = place();
    for (number, format) in [
        "erofs -m verity=append",
        "ext4 -m verity=append",
        "gpt -m verity=append",
        "gpt -m verity=append -m block-size=512",
        "gpt -m verity=partition",
        "raw -m verity=append",
        "vmdk -m verity=append",
        "vmdk-gpt -m verity=append",
        "vmdk-gpt -m verity=partition",
        "vmdk-stream -m verity=append",
        "vmdk-stream -m of=gpt -m verity=append",
        "vmdk-stream -m of=gpt -m verity=partition",
    ]
    .into_iter()
    .enumerate()
    {
        let made = run(&place, &format!("materialize {{}}/app.tar --as {format} --out {{}}/{number} -q"));
        assert!(made.contains("[exit 0]"), "{format}: {made}");
        let mut files = place.files();
        files.retain(|name| name.starts_with(&format!("{number}/rootfs.")) && !name.ends_with(".verity"));
        assert_eq!(files.len(), 1, "{format}");
        for (path, wanted) in [("etc/new", b"new\n".to_vec()), ("usr/lib/data", vec![b'x'; 6000])] {
            let file = place.path(&files[0]);
            let read = place.command(["cat", file.as_str(), path]).output().unwrap();
            assert!(read.stdout == wanted, "{format}: {path}: {read:?}");
        }
    }
}

/// A place with the image as an archive.
fn place() -> Place {
    let place = Place::new();
    let archive = docker_archive(&[("a.example/app:1".to_owned(), &image())]);
    fs::write(place.path("app.tar"), archive).unwrap();
    place
}

/// The image is of one platform, which need not be this machine's.
fn run(place: &Place, line: &str) -> String {
    place.run(&format!("{line} --platform linux/amd64"))
}

#[test]
fn files_of_an_image() {
    let place = place();
    let lines = [
        "ls {}/app.tar",
        "pull {}/app.tar -q",
        "ls a.example/app:1 /etc",
        "ls -l a.example/app:1 /etc",
        "ls -lR a.example/app:1",
        "ls a.example/app:1 lib",
        "ls -l a.example/app:1 lib",
        "ls -l a.example/app:1 lib/",
        "ls -l a.example/app:1 usr/lib/data",
        "ls a.example/app:1 etc/nowhere",
        "ls --json a.example/app:1 usr",
        "ls --json a.example/app:1 dev",
        "ls -R --json a.example/app:1 lib",
        "ls a.example/app:1 etc/gone",
        "ls a.example/app:1 etc/nowhere/",
        "ls a.example/none:1 --policy never",
        "ls a.example/app:1 --max-metadata 0",
        "cat a.example/app:1 /etc/os-release",
        "cat a.example/app:1 etc/release etc/again etc/new",
        "cat a.example/app:1 etc/new etc/nowhere",
        "cat a.example/app:1 etc",
        "cat a.example/app:1 dev/null",
        "cat a.example/app:1 dev/pipe",
        "cat a.example/app:1",
        "cat a.example/app:1 etc/new --json",
        "ls",
        "ls --json -q",
        "list a.example/app:1",
    ];
    check("files", &lines.map(|line| run(&place, line)));
}

#[test]
fn files_of_disks() {
    let place = place();
    let lines = [
        "materialize {}/app.tar --as vmdk --upper 64M --out {}/set -q",
        "ls {}/set/rootfs.vmdk /etc",
        "cat {}/set/rootfs.vmdk lib/../../etc/release",
        "ls -l {}/set/layer-01.erofs etc",
        "ls -l {}/set/merged.erofs etc",
        "cat {}/set/merged.erofs etc/release",
        "ls -lR {}/set/upper.ext4",
        "ls {}/set/upper.ext4 upper",
        "cat {}/set/upper.ext4 upper",
        "cat {}/set/upper.ext4 upper/none",
        "inspect {}/set/layer-00.erofs",
        "inspect {}/set/merged.erofs",
        "inspect {}/set/merged.erofs --json",
        "inspect {}/set/upper.ext4",
        "inspect {}/set/upper.ext4 --json",
        "inspect {}/set/rootfs.vmdk",
        "inspect {}/set/rootfs.vmdk --json",
        "inspect {}/set/rootfs.vmdk --raw",
    ];
    check("disks", &lines.map(|line| run(&place, line)));
    // A disk whose data is all in its file.
    let lines = [
        "materialize {}/app.tar --as erofs -m label=root --out {}/flat -q",
        "ls -R {}/flat/rootfs.erofs",
        "cat {}/flat/rootfs.erofs etc/release",
        "inspect {}/flat/rootfs.erofs",
        "materialize {}/app.tar --as vmdk-stream -m of=erofs --out {}/stream -q",
        "ls -lR {}/stream/rootfs.vmdk",
        "cat {}/stream/rootfs.vmdk etc/release",
        "inspect {}/stream/rootfs.vmdk",
        "inspect {}/stream/rootfs.vmdk --json",
        "materialize {}/app.tar --as vmdk-gpt --out {}/over -q",
        "ls {}/over/rootfs.vmdk etc",
        "cat {}/over/rootfs.vmdk etc/release",
        "materialize {}/app.tar --as gpt --out {}/gpt -q",
        "ls {}/gpt/rootfs.gpt etc",
        "cat {}/gpt/rootfs.gpt etc/release",
        "inspect {}/gpt/rootfs.gpt",
        "inspect {}/gpt/rootfs.gpt --json",
    ];
    let runs = lines.map(|line| run(&place, line)).to_vec();
    fs::remove_file(place.path("set/layer-01.erofs")).unwrap();
    fs::write(place.path("cut.erofs"), &fs::read(place.path("set/merged.erofs")).unwrap()[..1100]).unwrap();
    fs::write(place.path("text.ext4"), "text").unwrap();
    let mut escaping = fs::read_to_string(place.path("set/rootfs.vmdk")).unwrap();
    escaping = escaping.replace("layer-00.erofs", "../flat/rootfs.erofs");
    fs::write(place.path("set/escaping.vmdk"), escaping).unwrap();
    let linked = fs::read_to_string(place.path("over/rootfs.vmdk")).unwrap();
    fs::write(place.path("over/linked.vmdk"), linked.replace("merged.erofs", "linked.erofs")).unwrap();
    std::os::unix::fs::symlink("../set/merged.erofs", place.path("over/linked.erofs")).unwrap();
    let mut damaged = fs::read(place.path("gpt/rootfs.gpt")).unwrap();
    damaged[1024 + 32] ^= 1;
    fs::write(place.path("damaged.gpt"), damaged).unwrap();
    fs::write(place.path("sparse.vmdk"), [&b"KDMV"[..], &[0; 600]].concat()).unwrap();
    fs::write(place.path("foreign.vmdk"), "# Disk DescriptorFile\nversion=1\nCID=1\nRW 8 SPARSE \"a\"\n")
        .unwrap();
    let lines = [
        "ls {}/set/rootfs.vmdk",
        "inspect {}/set/rootfs.vmdk",
        "ls {}/set/escaping.vmdk",
        "cat {}/set/escaping.vmdk etc/release",
        "inspect {}/set/escaping.vmdk",
        "ls {}/over/linked.vmdk",
        "cat {}/over/linked.vmdk etc/release",
        "inspect {}/over/linked.vmdk",
        "ls {}/cut.erofs",
        "inspect {}/cut.erofs",
        "ls {}/text.ext4",
        "inspect {}/text.ext4 --json",
        "ls {}/damaged.gpt",
        "inspect {}/damaged.gpt",
        "ls {}/none.erofs",
        "ls {}/sparse.vmdk",
        "inspect {}/sparse.vmdk",
        "ls {}/foreign.vmdk",
        "ls {}/app.tar -q",
    ];
    check("disks_refused", &[&runs[..], &lines.map(|line| run(&place, line))].concat());
}

/// Layers as their tars, and one layer by itself as any format.
#[test]
fn layers_as_other_formats() {
    let place = place();
    let tar = LayerBuilder::new().dir("./", 0o755).file("file", 0o644, &[b'x'; 5000]).finish();
    fs::write(place.path("layer.tar"), &tar).unwrap();
    fs::write(place.path("odd.tar"), [&tar[..], b"odd"].concat()).unwrap();
    let lines = [
        "materialize {}/app.tar --as erofs-tar --upper 64M --out {}/tars -q",
        "ls -l {}/tars/layer-01.erofs etc",
        "cat {}/tars/layer-00.erofs etc/os-release",
        "inspect {}/tars/layer-00.erofs",
        "materialize {}/app.tar --as erofs-tar -m block-size=512 --out {}/options",
        "layer {}/layer.tar --as erofs-tar --out {}/tar.erofs",
        "inspect {}/tar.erofs",
        "layer {}/odd.tar --as erofs-tar --out {}/odd.erofs",
        "layer {}/layer.tar --as erofs -m label=one --out {}/flat.erofs",
        "layer {}/layer.tar --as erofs --out {}/flat.erofs --json",
        "layer /dev/null --as erofs --out {}/nothing.erofs",
        "layer {}/layer.tar -m block-size=512 --out {}/small.erofs --json",
        "layer {}/layer.tar --as vmdk --out {}/disk.vmdk",
        "layer {}/layer.tar --as erofs -m depth=3 --out {}/flat.erofs",
        "layer {}/layer.tar -m verity=append --out {}/verified.erofs",
        "layer {}/layer.tar --as erofs -m verity=append --out {}/verified.erofs --json",
        "inspect {}/verified.erofs",
        "layer {}/layer.tar --as erofs -m verity=beside --out {}/beside.erofs",
        "layer {}/layer.tar -m verity=beside --out {}/beside.erofs",
        "layer {}/layer.tar --as ext4 --out {}/root.ext4",
        "layer {}/layer.tar --as ext4 --size 96M --out {}/root.ext4",
        "layer {}/layer.tar --as ext4 -m size=1T -m journal=none --out {}/root.ext4",
        "layer {}/layer.tar --as ext4 --size 1M --out {}/small.ext4",
        "layer {}/layer.tar --as ext4 --size 96M -m size=96M --out {}/small.ext4",
        "layer {}/layer.tar --size 96M --out {}/small.erofs",
        "materialize {}/app.tar --as ext4 --size 80M --out {}/sized -q",
        "materialize {}/app.tar --as raw --size 80M --out {}/raw",
        "materialize {}/app.tar --as vmdk --verity require --out {}/raw",
        "materialize {}/tars/layer-00.erofs --as raw --out {}/raw",
        "inspect {}/tars/.plyfold-image",
        "verity oci:examples/sample:latest",
    ];
    check("formats_of_layers", &lines.map(|line| run(&place, line)));
    // The digest of the end of the file is the layer's diff_id.
    let file = fs::read(place.path("tar.erofs")).unwrap();
    assert_eq!(sha256(&file[file.len() - tar.len()..]), sha256(&tar));
}

/// A name is any bytes, and a command line has them as they are.
#[test]
fn names_that_are_no_text_are_read() {
    let place = place();
    let image = place.path("app.tar");
    let path = OsStr::from_bytes(b"/usr/b\xff\n");
    let platform = ["--platform", "linux/amd64"];
    let output = place.command(["cat", &image]).arg(path).args(platform).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"no text");
    let output = place.command(["ls", "--json", &image, "usr"]).args(platform).output().unwrap();
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&list[0]["path"], &list[0]["path_hex"]), (&"b\u{fffd}\n".into(), &"62ff0a".into()));
    assert_eq!(list[1]["path_hex"], Value::Null);
    let disk = OsStr::from_bytes(b"d\xff");
    fs::create_dir(place.dir.path().join(disk)).unwrap();
    let file = place.dir.path().join(disk).join("x");
    assert!(place.run("disk --size 64M --out {}/disk").contains("[exit 0]"));
    fs::rename(place.path("disk"), &file).unwrap();
    let output = place.command(["ls"]).arg(&file).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "lost+found\nupper\nwork\n");
    let output = place.command([OsStr::new("ls"), disk]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

/// What reads the output may have enough of it.
#[test]
fn a_closed_pipe_is_no_failure() {
    let place = Place::new();
    let names =
        (0..5000).fold(LayerBuilder::new(), |layer, number| layer.file(format!("{number:0200}"), 0o644, b""));
    let layer = names.file("large", 0o644, &vec![b'x'; 4 << 20]).finish();
    let archive = docker_archive(&[("a.example/app:1".to_owned(), &samples::of_layers("app", &[layer]))]);
    fs::write(place.path("app.tar"), archive).unwrap();
    let image = place.path("app.tar");
    for line in [&["ls", &image][..], &["ls", "--json", &image], &["cat", &image, "large"]] {
        let platform = ["--platform", "linux/amd64"];
        let mut child =
            place.command(line).args(platform).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{line:?}: {output:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("error"), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_read_files_of_images() {
    let place = place();
    let images = Images::open(place.path("store")).await.unwrap();
    let options = PullOptions { platform: "linux/amd64".parse().unwrap(), ..PullOptions::default() };
    let pulled = images.pull(&format!("docker-archive:{}", place.path("app.tar")), options).await.unwrap();
    let mut files = images.files(&pulled, LayerLimits::default()).await.unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let mut content = Vec::new();
        files.read(b"etc/release", &mut |bytes| {
            content.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok::<_, plyfold::Error>((content, files.list(b"etc")?.len()))
    });
    let (content, names) = read.await.unwrap().unwrap();
    assert_eq!((&*content, names), (&b"NAME=sample\n"[..], 5));
    let images_files = images.files(&pulled, LayerLimits { entries: 1, ..LayerLimits::default() }).await;
    assert_eq!(*images_files.map(drop).unwrap_err().kind(), ErrorKind::Limit);
}
