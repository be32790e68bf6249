//! Sets of disks that are there already: what is said of them, and how they are started.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use plyfold::atomic_file::FileOptions;
use plyfold::{DiskSet, ErrorKind, Rootfs, snapshot};

use super::run::{Place, check};
use super::snapshots::{Scene, verified};

#[test]
fn a_set_that_is_there_is_shown_and_started() {
    let place = Place::new();
    let image = "oci:examples/sample:latest --platform linux/amd64";
    let vm = format!("materialize {image} --as erofs -m verity=append --upper 64M --out {{}}/vm");
    for line in [&vm, &format!("materialize {image} --as erofs-layers --out {{}}/layers")] {
        place.run(line);
    }
    let upper = File::options().write(true).open(place.path("vm/upper.ext4")).unwrap();
    upper.write_all_at(b"written", 0).unwrap();
    let again = place.run(&vm);
    place.run("snapshot save {}/layers --out {}/saved");
    let arm = image.replace("amd64", "arm64");
    let foreign = [
        place.run(&format!("materialize {arm} --as erofs --out {{}}/arm --boot")),
        place.run(&format!("materialize {arm} --as erofs --out {{}}/arm --boot --json")),
    ];
    assert!(!fs::exists(place.path("arm")).unwrap());
    let mut runs = [
        "inspect {}/vm",
        "inspect {}/vm --json",
        "inspect {}/layers --no-trunc",
        "inspect {}/layers --json",
        "inspect {}/vm --raw",
        // No program is found here.
        "boot {}/vm",
        "boot {}/layers",
        "boot {}/layers --verity require",
        "boot {}/vm --json",
        "boot {}/none",
        "boot {}",
        "boot app:1",
        "start {}/vm",
        "ls {}/vm",
        "cat {}/layers /etc/motd",
        "inspect {}/saved",
        "snapshot load oci:examples/sample:latest --platform linux/amd64 --out {}/no",
    ]
    .map(|line| place.run(line))
    .to_vec();
    runs.insert(0, again);
    runs.extend(foreign);
    fs::remove_file(place.path("layers/layer-01.erofs")).unwrap();
    runs.extend(["inspect {}/layers", "boot {}/layers"].map(|line| place.run(line)));
    check("sets", &runs);
}

/// What was made, what is in the folder, and what a snapshot brings to another one are the same set.
#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_what_was_made() {
    for rootfs in [
        Rootfs::vmdk().upper(64 << 20),
        Rootfs::erofs_tar(),
        verified("erofs-layers", "append"),
        verified("raw", "beside").upper(64 << 20),
        verified("gpt", "partition"),
    ] {
        let scene = Scene::new().await;
        let made = scene.disks(&rootfs, "vm").await;
        let [vm, saved, out] = ["vm", "saved", "out"].map(|name| scene.path(name));
        let set = DiskSet::open(&vm).unwrap();
        assert_eq!(set.disks.files, made.files);
        assert_eq!((set.disks.boot_lines(), set.disks.kernel), (made.boot_lines(), made.kernel));
        assert_eq!(set.disks.mount_script().unwrap(), made.mount_script().unwrap());
        let process = set.image.process.as_ref().unwrap();
        assert_eq!(process.args, ["/bin/hello"]);
        snapshot::save(&vm, &saved, FileOptions::default()).await.unwrap();
        snapshot::load(&saved, &out, FileOptions::default()).await.unwrap();
        let loaded = DiskSet::open(&out).unwrap();
        assert_eq!((loaded.image, loaded.records), (set.image, set.records));
        let first = &made.files[0].path;
        fs::remove_file(first).unwrap();
        let error = DiskSet::open(&vm).unwrap_err();
        let found = (error.kind().clone(), error.context("path").map(str::to_owned));
        assert_eq!(found, (ErrorKind::NotFound, Some(first.display().to_string())));
    }
}

/// Files of other tools by names that sets have: they stay, or are in the way.
#[test]
fn files_of_others_are_neither_removed_nor_replaced() {
    let place = Place::new();
    fs::create_dir(place.path("vm")).unwrap();
    let theirs = ["layer-07.erofs", "layer-08.erofs.dmverity", "rootfs.vmdk"];
    for name in theirs {
        fs::write(place.path(&format!("vm/{name}")), name).unwrap();
    }
    let line = "materialize oci:examples/sample:latest --platform linux/amd64 --out {}/vm --as";
    // The second time there is a set, which they are no part of.
    for format in ["erofs-layers", "erofs-layers", "erofs"] {
        let run = place.run(&format!("{line} {format}"));
        assert!(run.contains("[exit 0]"), "{run}");
        for name in theirs {
            assert_eq!(fs::read_to_string(place.path(&format!("vm/{name}"))).unwrap(), name, "{format}");
        }
    }
    assert!(!fs::exists(place.path("vm/layer-00.erofs")).unwrap(), "that of the older set");
    let told = place.told(&format!("{line} vmdk"));
    assert!(told.is_refused("config") && told.code == Some(2), "{told:?}");
    assert!(told.error["context"]["path"].as_str().unwrap().ends_with("vm/rootfs.vmdk"), "{told:?}");
    assert!(DiskSet::open(place.path("vm").as_ref()).is_ok(), "the older set is there");
}
