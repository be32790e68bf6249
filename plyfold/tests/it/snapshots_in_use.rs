//! Snapshots of disks that are in use, that were not unmounted, or that were cut off.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;

use plyfold::atomic_file::FileOptions;
use plyfold::materializers::ext4::Summary;
use plyfold::progress::Progress;
use plyfold::snapshot::{self, DisksToSave, SnapshotFault};
use plyfold::{Disks, ErrorKind, Rootfs};

use super::run::Place;
use super::snapshots::{Scene, change_superblock, name};

async fn made(scene: &Scene) -> Disks {
    let rootfs = Rootfs::erofs_flat().upper(64 << 20);
    scene.images.materialize(&scene.image, &rootfs, &scene.path("vm")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_cut_off_is_not_saved() {
    let scene = Scene::new().await;
    let upper = made(&scene).await.upper.unwrap();
    let sizes = [40 << 20, 4096, 1500, 1024, 0];
    for (size, live) in sizes.into_iter().flat_map(|size| [(size, false), (size, true)]) {
        File::options().write(true).open(&upper).unwrap().set_len(size).unwrap();
        let disks = DisksToSave::from(&scene.path("vm")).live(live);
        let error =
            snapshot::save(disks.clone(), &scene.path("saved"), FileOptions::default()).await.unwrap_err();
        let fault = SnapshotFault::Short("upper.ext4".to_owned(), size, 64 << 20);
        assert_eq!((error.kind(), error.detail()), (&ErrorKind::Corrupt, Some(&fault)));
        assert_eq!(error.context("path"), Some(&*upper.display().to_string()));
        assert!(!scene.path("saved").exists());
        let kept = scene.images.save_snapshot(disks, &name("a:1"), false, Progress::none()).await;
        assert_eq!(kept.unwrap_err().detail(), Some(&fault));
    }
}

/// The superblock says it, as that of a guest that was killed does.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_not_unmounted_is_saved_with_a_note() {
    let scene = Scene::new().await;
    let upper = made(&scene).await.upper.unwrap();
    let saved =
        snapshot::save(&scene.path("vm"), &scene.path("clean"), FileOptions::default()).await.unwrap();
    assert!(saved.notes.is_empty(), "{:?}", saved.notes);
    let disk = File::options().read(true).write(true).open(&upper).unwrap();
    // needs_recovery
    change_superblock(&disk, |superblock| superblock[0x60] |= 0x4);
    assert!(Summary::read(&disk).unwrap().needs_recovery);
    let saved =
        snapshot::save(&scene.path("vm"), &scene.path("saved"), FileOptions::default()).await.unwrap();
    let note = "upper.ext4 was not unmounted; it is saved as it is, as after a power cut";
    assert_eq!(saved.notes, [note]);
    let kept = scene.images.save_snapshot(&scene.path("vm"), &name("a:1"), false, Progress::none()).await;
    assert_eq!(kept.unwrap().notes, [note]);
    let (_, loaded) =
        snapshot::load(&scene.path("saved"), &scene.path("out"), FileOptions::default()).await.unwrap();
    assert!(Summary::read(File::open(loaded.upper.unwrap()).unwrap()).unwrap().needs_recovery);
}

/// QEMU and Cloud Hypervisor lock the disks that they have open.
#[test]
fn a_disk_that_a_machine_has_open_is_saved_live_alone() {
    let place = Place::new();
    place.run(
        "materialize oci:examples/sample:latest --platform linux/amd64 --as erofs --upper 64M --out {}/vm",
    );
    let disk = File::options().read(true).write(true).open(place.path("vm/upper.ext4")).unwrap();
    rustix::fs::fcntl_lock(&disk, rustix::fs::FlockOperation::LockShared).unwrap();
    let refused = place.run("snapshot save {}/vm --out {}/saved");
    assert!(
        refused.contains("[exit 2]") && refused.contains("another program has the disk open"),
        "{refused}"
    );
    assert!(refused.contains("--live") && !fs::exists(place.path("saved")).unwrap(), "{refused}");
    let refused = place.run("boot {}/vm");
    assert!(refused.contains("[exit 2]") && refused.contains("hint: shut the machine down"), "{refused}");
    let saved = place.run("snapshot save {}/vm --live --out {}/saved");
    assert!(saved.contains("[exit 0]") && saved.contains("warning: upper.ext4: another program"), "{saved}");
    drop(disk);
    let saved = place.run("snapshot save {}/vm --out {}/again --json");
    assert!(saved.contains("\"notes\": []"), "{saved}");
    for size in [32 << 20, 1024] {
        File::options().write(true).open(place.path("vm/upper.ext4")).unwrap().set_len(size).unwrap();
        let refused = place.run("boot {}/vm");
        assert!(refused.contains("[exit 5]") && refused.contains("was cut off"), "{refused}");
    }
}

/// What a guest would write to it afterwards would be in a file without a name.
#[test]
fn a_disk_that_a_machine_has_open_is_not_replaced() {
    let place = Place::new();
    let make =
        "materialize oci:examples/sample:latest --platform linux/amd64 --as erofs --upper 64M --out {}/vm";
    place.run(make);
    let disk = File::options().read(true).write(true).open(place.path("vm/upper.ext4")).unwrap();
    rustix::fs::fcntl_lock(&disk, rustix::fs::FlockOperation::LockShared).unwrap();
    let refused = place.run(make);
    assert!(refused.contains("[exit 2]") && refused.contains("shut the machine down first"), "{refused}");
    assert_eq!(disk.metadata().unwrap().nlink(), 1);
    drop(disk);
    assert!(place.run(make).contains("[exit 0]"));
}

#[test]
fn disks_are_not_made_in_the_store_or_in_what_they_are_made_of() {
    let place = Place::new();
    place.run("pull oci:examples/sample:latest --platform linux/amd64 --store {}/store");
    place.run("copy oci:examples/sample:latest oci:{}/layout:a");
    for (image, out) in [
        ("oci:examples/sample:latest", "store"),
        ("oci:examples/sample:latest", "store/blobs/disks"),
        ("oci:{}/layout:a", "layout/disks"),
    ] {
        let refused =
            place.run(&format!("materialize {image} --as erofs --out {{}}/{out} --store {{}}/store"));
        assert!(refused.contains("[exit 2]"), "{refused}");
        assert!(!fs::exists(place.path(&format!("{out}/rootfs.erofs"))).unwrap());
    }
}
