//! `patch`: changes appended to finished images.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use plyfold_conformance::samples::{LayerBuilder, gzip};

use super::run::{Place, check};

/// A place with the tars of an image, of changes, and a file.
fn place() -> Place {
    let place = Place::new();
    let base = LayerBuilder::new()
        .dir("./", 0o755)
        .dir("etc", 0o755)
        .file("etc/hostname", 0o600, b"old\n")
        .file("etc/gone", 0o644, b"gone\n")
        .dir("usr/lib", 0o755)
        .file("usr/lib/large", 0o644, &[b'x'; 9000])
        .symlink("lib", "usr/lib")
        .finish();
    let changes = LayerBuilder::new()
        .whiteout("usr/lib/large")
        .owner(1000, 1000)
        .file("lib/new", 0o640, b"new\n")
        .hard_link("etc/name", "etc/hostname")
        .finish();
    fs::write(place.path("base.tar"), base).unwrap();
    fs::write(place.path("changes.tar.gz"), gzip(&[&changes])).unwrap();
    fs::write(place.path("short.tar"), &changes[..changes.len() - 2048]).unwrap();
    fs::write(place.path("hostname"), "patched\n").unwrap();
    let file = File::options().write(true).open(place.path("hostname")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789)).unwrap();
    fs::set_permissions(place.path("hostname"), Permissions::from_mode(0o4751)).unwrap();
    place
}

#[test]
fn files_are_added_replaced_and_removed() {
    let place = place();
    let lines = [
        "layer {}/base.tar --as erofs --out {}/rootfs.erofs",
        "patch {}/rootfs.erofs --tar {}/changes.tar.gz",
        "ls -lR {}/rootfs.erofs",
        "patch {}/rootfs.erofs --add /etc/hostname={}/hostname --remove etc/gone --remove lib/new --json",
        "ls -lR {}/rootfs.erofs",
        "cat {}/rootfs.erofs etc/hostname etc/name",
        "patch {}/rootfs.erofs --remove etc --add etc={}/hostname --add a/b/c={}/hostname --no-sync \
         --uuid 00000000-0000-0000-0000-000000000007",
        "ls -lR {}/rootfs.erofs",
        "inspect {}/rootfs.erofs",
    ];
    check("patch", &lines.map(|line| place.run(line)));
    // The same changes in one go, and from a pipe.
    place.run("layer {}/base.tar --as erofs --out {}/other.erofs");
    let changes = fs::read(place.path("changes.tar.gz")).unwrap();
    let line = "patch {}/other.erofs --tar - --remove etc --add etc={}/hostname --add a/b/c={}/hostname";
    place.run_fed(line, &changes);
    let listed = |name: &str| {
        let text = place.run(&format!("ls -lR {{}}/{name}.erofs"));
        text.split_once('\n').unwrap().1.to_owned()
    };
    assert!(listed("other").contains("/lib/new") && !listed("rootfs").contains("/lib/new"));
    place.run("patch {}/other.erofs --remove usr/lib/new");
    assert_eq!(listed("other"), listed("rootfs"));
}

#[test]
fn what_cannot_be_patched_stays_as_it_is() {
    let place = place();
    for line in [
        "layer {}/base.tar --as erofs --out {}/rootfs.erofs",
        "layer {}/changes.tar.gz --out {}/layer.erofs",
        "layer {}/base.tar --as erofs-tar --out {}/tar.erofs",
        "layer {}/base.tar --as erofs --out {}/verity.erofs",
        "verity {}/verity.erofs --append",
        "materialize oci:examples/sample --platform linux/amd64 --as erofs --out {}/set",
    ] {
        let run = place.run(line);
        assert!(run.contains("[exit 0]"), "{run}");
    }
    for name in ["linked", "read-only", "longer"] {
        fs::copy(place.path("rootfs.erofs"), place.path(&format!("{name}.erofs"))).unwrap();
    }
    fs::hard_link(place.path("linked.erofs"), place.path("other-name")).unwrap();
    fs::set_permissions(place.path("read-only.erofs"), Permissions::from_mode(0o444)).unwrap();
    let longer = [fs::read(place.path("rootfs.erofs")).unwrap(), b"more".to_vec()].concat();
    fs::write(place.path("longer.erofs"), longer).unwrap();
    let files = || {
        let names = ["rootfs", "layer", "tar", "verity", "linked", "read-only", "longer", "set/rootfs"];
        names.map(|name| fs::read(place.path(&format!("{name}.erofs"))).unwrap())
    };
    let before = files();
    let on_rootfs = [
        "",
        " --remove etc/none",
        " --remove /",
        " --remove ../etc",
        " --add etc={}/hostname",
        " --add usr/lib/large/x={}/hostname",
        " --add usr/lib/large/x/y={}/hostname",
        " --add new={}/hostname --add new/x={}/hostname",
        " --add etc/={}/hostname",
        " --add etc/.wh.x={}/hostname",
        " --add etc/hostname",
        " --add x={}/none",
        " --add x={}",
        " --add usr/lib/x={}/hostname --tar {}/short.tar",
        " --tar {}/none.tar",
        " --tar {}",
        " --tar - --tar -",
        " --tar {}/changes.tar.gz --max-metadata 16",
        " --tar {}/changes.tar.gz --uuid 7",
    ];
    let on_others = ["layer", "tar", "verity", "linked", "read-only", "longer", "set/rootfs", "none"];
    let lines = on_rootfs.map(|rest| format!("patch {{}}/rootfs.erofs{rest}"));
    let others = on_others.map(|name| format!("patch {{}}/{name}.erofs --tar {{}}/changes.tar.gz"));
    let more = ["patch {}/base.tar --remove etc".to_owned(), "patch {} --remove etc".to_owned()];
    let runs: Vec<String> = lines.iter().chain(&others).chain(&more).map(|line| place.run(line)).collect();
    assert!(runs.iter().all(|run| !run.contains("[exit 0]")));
    check("patch_refused", &runs);
    assert!(files() == before);
    // A copy of an artifact is one's own.
    place.run(
        "materialize oci:examples/sample --platform linux/amd64 --as erofs --out {}/own --copy --mode 644",
    );
    let run = place.run("patch {}/own/rootfs.erofs --add new={}/hostname");
    assert!(run.contains("[exit 0]"), "{run}");
    assert!(place.run("cat {}/own/rootfs.erofs new").contains("patched"));
}

/// A process that is killed leaves the old image, and the next patch cuts off what it has left.
#[test]
fn a_killed_patch_leaves_the_old_image() {
    let place = place();
    place.run("layer {}/base.tar --as erofs --out {}/rootfs.erofs");
    let old = fs::read(place.path("rootfs.erofs")).unwrap();
    let mut child = place
        .command(["patch", &place.path("rootfs.erofs"), "--tar", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let content = vec![b'z'; 8 << 20];
    let tar = LayerBuilder::new().file("first", 0o644, &content).file("second", 0o644, &content).finish();
    let mut pipe = child.stdin.take().unwrap();
    // All but the end: the program waits for it.
    std::io::Write::write_all(&mut pipe, &tar[..tar.len() - 4096]).unwrap();
    while fs::metadata(place.path("rootfs.erofs")).unwrap().len() < (12 << 20) {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let left = fs::read(place.path("rootfs.erofs")).unwrap();
    assert!(left.len() > old.len() && left[..old.len()] == old);
    let listed = place.run("ls {}/rootfs.erofs");
    assert!(listed.contains("etc") && !listed.contains("first"), "{listed}");
    let run = place.run("patch {}/rootfs.erofs --remove etc/gone");
    assert!(run.contains("[exit 0]"), "{run}");
    assert!(fs::metadata(place.path("rootfs.erofs")).unwrap().len() < 1 << 20);
}

/// A named pipe that no program writes to: the program ends when it is asked to, and takes back what it has appended.
#[test]
fn a_patch_that_waits_for_a_pipe_heeds_signals() {
    let place = place();
    place.run("layer {}/base.tar --as erofs --out {}/rootfs.erofs");
    let old = fs::read(place.path("rootfs.erofs")).unwrap();
    let pipe = place.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut command = place.command(["patch", &place.path("rootfs.erofs"), "--tar", &pipe]);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    // Its mark is there.
    while fs::metadata(place.path("rootfs.erofs")).unwrap().len() == old.len() as u64 {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    let kill = format!("kill -s TERM {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert!(!child.wait().unwrap().success());
    assert!(fs::read(place.path("rootfs.erofs")).unwrap() == old);
}

#[test]
fn a_sparse_file_of_terabytes_is_added() {
    let place = place();
    place.run("layer {}/base.tar --as erofs --out {}/rootfs.erofs");
    File::create(place.path("sparse")).unwrap().set_len(5 << 40).unwrap();
    let run = place.run("patch {}/rootfs.erofs --add sparse={}/sparse --add cpu=/proc/self/status");
    assert!(run.contains("[exit 0]"), "{run}");
    let listed = place.run("ls -l {}/rootfs.erofs");
    assert!(listed.contains(&format!("{} ", 5_u64 << 40)), "{listed}");
    assert!(place.run("cat {}/rootfs.erofs cpu").contains("Name:"));
    assert!(fs::metadata(place.path("rootfs.erofs")).unwrap().len() < 8 << 20);
}
