//! Disks without room for what is written.

use std::fs;
use std::path::Path;

use plyfold::Rootfs;
use plyfold_conformance::oracle::{Mount, Run, Verdict};

use super::{Work, sample_uri, tar_of_sample};

/// Every size of a disk up to the one that is enough.
pub(crate) fn a_full_disk_leaves_nothing() -> Verdict {
    let work = Work::new();
    work.disks(&Rootfs::erofs_layers());
    let tar = work.dir.path().join("layer.tar");
    tar_of_sample(&tar)?;
    let (vm, saved) = (work.dir.path().join("vm"), work.dir.path().join("saved"));
    work.disks_at(&Rootfs::vmdk().upper(64 << 20), &vm);
    let [vm, saved] = [vm, saved].map(|path| path.to_str().unwrap().to_owned());
    assert!(work.plyfold("store", &["snapshot", "save", &vm, "--out"], Path::new(&saved)).status.success());
    let verbs: [&[&str]; 6] = [
        &[
            "materialize",
            "localhost/sample",
            "--as",
            "vmdk",
            "--upper",
            "64M",
            "--platform",
            "linux/amd64",
            "--out",
        ],
        &["layer", tar.to_str().unwrap(), "--out"],
        &["export", "localhost/sample", "--platform", "linux/amd64", "--out"],
        &["disk", "--size", "64M", "--out"],
        &["snapshot", "save", &vm, "--out"],
        &["snapshot", "load", &saved, "--out"],
    ];
    for verb in verbs {
        let (mut kib, mut failures) = (4, 0);
        loop {
            let disk = Mount::new("tmpfs", "none", &format!("size={kib}k"))?;
            let out = disk.path().join("out");
            let output = work.plyfold("store", verb, &out);
            if output.status.success() {
                break;
            }
            failures += 1;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("\nhint: the disk is full"), "{said}");
            let left: Vec<_> = fs::read_dir(disk.path())?.map(|entry| entry.unwrap().path()).collect();
            assert!(left.is_empty(), "{verb:?} with {kib} KiB left {left:?}");
            kib += 4;
        }
        assert!(failures > 0, "{verb:?} needs no space");
    }
    Ok(())
}

/// In every form: too little room for it leaves the set that was there, and nothing of the new one.
pub(crate) fn a_full_disk_keeps_the_older_set() -> Verdict {
    let work = Work::new();
    work.disks(&Rootfs::erofs_layers());
    let forms: [&[&str]; 8] = [
        &["erofs"],
        &["erofs", "-m", "compress=lz4"],
        &["erofs-layers", "-m", "block-size=512"],
        &["erofs-tar"],
        &["ext4", "-m", "size=128M"],
        &["gpt"],
        &["raw"],
        &["vmdk", "--upper", "64M"],
    ];
    for form in forms {
        let disk = Mount::new("tmpfs", "none", "size=64m")?;
        let out = disk.path().join("out");
        let materialized = |form: &[&str]| {
            let line = ["materialize", "localhost/sample", "--copy", "--platform", "linux/amd64", "--as"];
            work.plyfold("store", &[&line, form, &["--out"]].concat(), &out)
        };
        assert!(materialized(&["erofs-merged"]).status.success());
        let content = |folder: &Path| {
            let read = |entry: fs::DirEntry| (entry.file_name(), fs::read(entry.path()).unwrap());
            let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| read(entry.unwrap())).collect();
            files.sort();
            files
        };
        let (before, filler) = (content(&out), disk.path().join("filler"));
        let (mut kib, mut failures) = (0, 0);
        loop {
            let free = rustix::fs::statvfs(disk.path())?;
            let bytes = free.f_bavail * free.f_frsize;
            fs::write(&filler, vec![1; usize::try_from(bytes.saturating_sub(kib << 10))?])?;
            let run = materialized(form);
            fs::remove_file(&filler)?;
            if run.status.success() {
                break;
            }
            failures += 1;
            let said = String::from_utf8_lossy(&run.stderr).into_owned();
            assert_eq!(run.status.code(), Some(1), "{said}");
            assert!(said.contains("\nhint: the disk is full"), "{form:?} with {kib} KiB: {said}");
            assert!(content(&out) == before, "{form:?} with {kib} KiB has changed the older set");
            let left: Vec<_> = fs::read_dir(disk.path())?.map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left, ["out"], "{form:?} with {kib} KiB");
            kib += kib.max(16);
        }
        assert!(failures > 0, "{form:?} needs no room");
        assert!(content(&out) != before);
    }
    Ok(())
}

pub(crate) fn a_full_store_leaves_no_name() -> Verdict {
    let work = Work::new();
    let mut kib = 4;
    loop {
        let disk = Mount::new("tmpfs", "none", &format!("size={kib}k"))?;
        let store = disk.path().join("store");
        let output = work.plyfold(&store, &["pull", "--platform", "linux/amd64"], &sample_uri());
        if output.status.success() {
            break;
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // Told before anything is fetched, or when something else has taken the room.
        let hints = ["\nhint: `plyfold gc` removes", "\nhint: the disk is full"];
        assert!(hints.iter().any(|hint| said.contains(hint)), "{said}");
        let index = fs::read_to_string(store.join("index.json")).unwrap_or_default();
        assert!(!index.contains("sample"), "{index}");
        // With more space the next pull goes on from whatever is there.
        Run::new("mount").args(["-o", "remount,size=1m"]).arg(disk.path()).success()?;
        let output = work.plyfold(&store, &["pull", "--platform", "linux/amd64"], &sample_uri());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let left: Vec<_> = fs::read_dir(store.join("ingest"))?.map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "with {kib} KiB: {left:?}");
        kib += 4;
    }
    assert!(kib > 8);
    Ok(())
}
