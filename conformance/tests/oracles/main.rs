//! The oracle helpers themselves, where they need rights or tools, and the suite's media as skopeo sees them.

#[path = "../shared/broken_store.rs"]
mod broken_store;
mod durability;
mod peers;
mod rootfs;
mod skopeo;

use std::fs;
use std::path::Path;
use std::time::Duration;

use plyfold_conformance::oracle::{
    Aspect, Failure, Guest, LoopDevice, Mount, Need, Run, Verdict, difference,
};
use plyfold_conformance::oracle_tests;
use rustix::fs::{XattrFlags, setxattr};

use self::durability::{
    every_test_of_durability_has_a_mutant, what_a_full_disk_leaves_is_caught,
    what_a_power_cut_loses_is_caught, what_a_tracer_shows_is_caught,
};
use self::peers::{crane_pulls_and_pushes, oras_pulls_and_pushes};
use self::rootfs::{
    gnu_tar_unpacks_the_flattened_golden_tree, umoci_reads_odd_layers_alike,
    umoci_unpacks_marks_and_links_in_order, umoci_unpacks_random_changes, umoci_unpacks_the_golden_tree,
};
use self::skopeo::{skopeo_pulls_and_pushes, skopeo_reads_every_medium};

oracle_tests! {
    child durability::child;
    every_test_of_durability_has_a_mutant needs [];
    what_a_tracer_shows_is_caught needs [Need::Tracing];
    what_a_power_cut_loses_is_caught needs [
        Need::Mounts, Need::MKFS_EXT4, Need::FileSystem("xfs"), Need::MKFS_XFS, Need::XFS_IO
    ];
    what_a_full_disk_leaves_is_caught needs [Need::Mounts];
    a_guest_that_fails_or_hangs_shows_its_console needs [Need::Guest];
    mounts_end_with_their_value needs [Need::Mounts];
    devices_owners_and_attributes_differ needs [Need::Mounts, Need::Tool { name: "mknod", package: "coreutils" }];
    a_loop_device_shows_its_file needs [Need::Mounts];
    skopeo_pulls_and_pushes needs [Need::SKOPEO];
    crane_pulls_and_pushes needs [Need::CRANE];
    oras_pulls_and_pushes needs [Need::ORAS];
    skopeo_reads_every_medium needs [Need::SKOPEO];
    gnu_tar_unpacks_the_flattened_golden_tree needs [Need::GNU_TAR, Need::Mounts];
    umoci_reads_odd_layers_alike needs [Need::UMOCI, Need::Mounts];
    umoci_unpacks_marks_and_links_in_order needs [Need::UMOCI, Need::Mounts];
    umoci_unpacks_random_changes needs [Need::UMOCI, Need::Mounts];
    umoci_unpacks_the_golden_tree needs [Need::UMOCI, Need::Mounts];
}

fn a_guest_that_fails_or_hangs_shows_its_console() -> Verdict {
    let failure = |guest: Guest| match guest.run() {
        Err(failure) => Ok(format!("{failure:?}")),
        Ok(said) => Err(Failure::new(format!("it has not failed: {said}"))),
    };
    let failed = failure(Guest::new("echo seen\nfalse\necho unseen"))?;
    assert!(failed.contains("seen\n") && failed.contains("guest: exit status 1\n"), "{failed}");
    assert!(!failed.contains("unseen"), "{failed}");
    let no_disk = failure(Guest::new("").devices("-drive file=/nowhere,if=virtio"))?;
    assert!(no_disk.contains("/nowhere"), "{no_disk}");
    let hangs = failure(Guest::new("sleep 1000").limit(Duration::from_secs(5)))?;
    assert!(hangs.starts_with("the guest was not off after 5s; its console ends with:\n"), "{hangs}");
    Ok(())
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1).map(Path::new) == Some(path))
}

fn mounts_end_with_their_value() -> Verdict {
    let mount = Mount::new("tmpfs", "none", "size=1m")?;
    let path = mount.path().to_owned();
    fs::write(path.join("file"), "kept inside")?;
    assert!(is_mounted(&path));
    let open = fs::File::open(path.join("file"))?;
    // Busy: it goes as soon as the file is closed, and its folder at once.
    drop(mount);
    assert!(!is_mounted(&path) && !path.exists());
    drop(open);

    let mount = Mount::new("tmpfs", "none", "size=1m")?;
    let path = mount.path().to_owned();
    mount.unmount()?;
    assert!(!is_mounted(&path) && !path.exists());
    assert!(Mount::new("plyfoldfs", "none", "ro").is_err());
    Ok(())
}

fn devices_owners_and_attributes_differ() -> Verdict {
    let (left, right) = (Mount::new("tmpfs", "none", "mode=755")?, Mount::new("tmpfs", "none", "mode=755")?);
    for (tree, minor) in [(&left, "3"), (&right, "5")] {
        let at = |name| tree.path().join(name);
        Run::new("mknod").arg(at("device")).args(["c", "1", minor]).success()?;
        fs::create_dir(at("directory"))?;
        std::os::unix::fs::chown(at("directory"), Some(minor.parse()?), None)?;
        fs::write(at("file"), "")?;
        setxattr(at("file"), "trusted.note", minor.as_bytes(), XattrFlags::empty())?;
        setxattr(at("file"), "trusted.same", b"", XattrFlags::empty())?;
    }
    let mut ignored = vec![Aspect::Mtime];
    for (expected, aspect) in [
        ("/device: Device: Some((1, 3)) against Some((1, 5))", Aspect::Device),
        ("/directory: Owner: 3:0 against 5:0", Aspect::Owner),
        ("/file: Xattr: trusted.note=3 against trusted.note=5", Aspect::Xattr),
    ] {
        let found = difference(left.path(), right.path(), &ignored)?.map(|found| found.to_string());
        assert_eq!(found.as_deref(), Some(expected));
        ignored.push(aspect);
    }
    assert_eq!(difference(left.path(), right.path(), &ignored)?, None);
    Ok(())
}

fn a_loop_device_shows_its_file() -> Verdict {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), vec![7; 4096])?;
    let device = LoopDevice::new(file.path())?;
    assert_eq!(fs::read(device.path())?, vec![7; 4096]);
    let path = device.path().to_owned();
    drop(device);
    let listed = Run::new("losetup").arg(&path).output()?;
    assert!(!listed.stdout.contains(&*file.path().to_string_lossy()), "{listed}");
    Ok(())
}
