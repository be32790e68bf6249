//! Disks that the kernel has open.

use std::fs;

use plyfold_conformance::oracle::{Mount, Run, Verdict};

/// What the kernel has mounted is not at rest.
pub(crate) fn a_disk_of_a_loop_device_is_not_saved_or_started() -> Verdict {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let program = || Run::new(env!("CARGO_BIN_EXE_plyfold")).arg("--store").arg(path("store"));
    let image = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../examples/sample:latest");
    let make = program().args(["materialize", image, "--platform", "linux/amd64", "--as", "erofs"]);
    make.args(["--upper", "64M", "--out"]).arg(path("vm")).success()?;
    let save = |more: &[&str], out: &str| {
        program().args(["snapshot", "save"]).args(more).arg(path("vm")).arg("--out").arg(path(out)).output()
    };
    let mount = Mount::new("ext4", path("vm/upper.ext4"), "loop")?;
    fs::write(mount.path().join("upper/file"), "written")?;
    rustix::fs::syncfs(fs::File::open(mount.path())?)?;
    let refused = save(&[], "saved")?;
    let is_told = refused.stderr.contains("is attached to /dev/loop");
    assert!(refused.status.code() == Some(2) && is_told && !path("saved").exists(), "{refused}");
    let saved = save(&["--live"], "live")?;
    assert!(saved.status.success() && saved.stderr.contains("as a power cut would leave it"), "{saved}");
    let refused = program().arg("boot").arg(path("vm")).output()?;
    let is_told =
        refused.stderr.contains("is attached to /dev/loop") && refused.stderr.contains("losetup -d");
    assert!(refused.status.code() == Some(2) && is_told, "{refused}");
    mount.unmount()?;
    let saved = save(&[], "saved")?;
    assert!(saved.status.success() && !saved.stderr.contains("warning"), "{saved}");
    Ok(())
}

/// Mounted read-only its superblock says nothing of that, and a later mount for writing would put the old one back.
pub(crate) fn a_disk_of_a_loop_device_does_not_grow() -> Verdict {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk.ext4");
    let program = || Run::new(env!("CARGO_BIN_EXE_plyfold"));
    program().args(["disk", "--size", "64M", "--out"]).arg(&disk).success()?;
    let resize = || program().arg("resize").arg(&disk).arg("128M");
    let mount = Mount::new("ext4", &disk, "loop,ro")?;
    let refused = resize().output()?;
    assert!(
        refused.status.code() == Some(2) && refused.stderr.contains("is attached to /dev/loop"),
        "{refused:?}"
    );
    assert_eq!(fs::metadata(&disk)?.len(), 64 << 20);
    mount.unmount()?;
    resize().success()?;
    assert_eq!(fs::metadata(&disk)?.len(), 128 << 20);
    Ok(())
}
