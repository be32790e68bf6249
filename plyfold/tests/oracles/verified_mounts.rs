//! The printed scripts that mount verified disks, run in a guest: its kernel has device-mapper.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use plyfold::{Disks, Materializers, Options, Rootfs};
use plyfold_conformance::oracle::{Failure, Guest, Run, Verdict};

use super::Work;

/// Each form shows its files, and a block that was changed is an I/O error. All is unmounted, and no device is left.
pub(crate) fn a_guest_mounts_verified_disks_by_the_script() -> Verdict {
    let formats = Materializers::linked()?;
    for (format, verity, has_upper) in [
        ("erofs-layers", "verity=append", true),
        ("erofs-merged", "verity=append", false),
        ("erofs", "verity=beside", false),
        ("gpt", "verity=partition", false),
    ] {
        let rootfs = Rootfs::named(format, &Options::parse([verity])?, &formats)?.verified(true);
        let rootfs = if has_upper { rootfs.upper(64 << 20) } else { rootfs };
        let work = Work::new();
        let disks = work.disks(&rootfs);
        let write = if has_upper { "touch /mnt/rootfs/new" } else { "! touch /mnt/rootfs/new 2>/dev/null" };
        let said = mounted(&work, &disks, &format!("cat /mnt/rootfs/etc/motd; {write}"))?;
        assert_eq!(said, "welcome to a block device\n", "{format}");
        damage(&disks)?;
        let said = mounted(&work, &disks, "! cat /mnt/rootfs/etc/motd 2>/dev/null")?;
        // The console is where the kernel says so.
        assert!(said.contains("is corrupted") && !said.contains("elcome"), "{format}: {said}");
    }
    Ok(())
}

/// What a guest says that mounts the disks by the script, runs `look`, and unmounts them.
fn mounted(work: &Work, disks: &Disks, look: &str) -> Result<String, Failure> {
    let folder = disks.files[0].path.parent().unwrap_or(Path::new("/"));
    let image = work.dir.path().join("disk");
    let _ = std::fs::remove_file(&image);
    let make = Run::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(folder);
    make.arg(&image).arg("256M").success()?;
    let script = disks.verified_mount_script().ok_or_else(|| Failure::new("no script"))?;
    let place = folder.display();
    let script = format!(
        "mkdir -p {place}; mount -t ext4 /dev/vda {place}\n{script}\n{look}\n{}\n\
         [ ! -e /mnt/rootfs.parts ]; until [ -z \"$(ls -d /sys/block/dm-* /sys/block/loop*/loop 2>/dev/null)\" ]; do sleep 1; done\n\
         umount {place}\n",
        disks.unmount_script()
    );
    let drive = format!("-drive file={},format=raw,if=virtio", image.display());
    Guest::new(script).program("veritysetup").program("losetup").devices(&drive).run()
}

/// Changes a file of the image, wherever it is.
fn damage(disks: &Disks) -> Verdict {
    for path in disks.paths() {
        let content = std::fs::read(path)?;
        if let Some(at) = content.windows(10).position(|window| window == b"welcome to") {
            // It may be a link to the artifact.
            std::fs::copy(path, path.with_extension("copy"))?;
            let copy = File::options().write(true).open(path.with_extension("copy"))?;
            copy.write_all_at(b"W", at as u64)?;
            std::fs::rename(path.with_extension("copy"), path)?;
            return Ok(());
        }
    }
    Err(Failure::new("no file has the content as it is"))
}
