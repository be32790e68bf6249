//! Disks that the kernel has open.

use std::fs;

use plyfold_conformance::oracle::{Mount, Run, Verdict};

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
