//! The printed scripts that mount verified disks, run in a guest: its kernel has device-mapper.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use plyfold::{Disks, Materializers, Options, Rootfs};
use plyfold_conformance::oracle::{Failure, Guest, Run, Verdict};

use super::Work;

/// That of util-linux, in place of busybox's own.
const LOSETUP: &str = "losetup() { X=/usr/sbin/losetup; [ -x $X ] || X=/sbin/losetup; $X \"$@\"; }\n";

/// Each form shows its files, and leaves nothing when it is unmounted. A block that was changed is an I/O error.
pub(crate) fn a_guest_mounts_verified_disks_by_the_script() -> Verdict {
    let formats = Materializers::linked()?;
    for (format, verity, has_upper) in [
        ("erofs-layers", "verity=append", true),
        ("erofs-merged", "verity=beside", false),
        ("erofs", "verity=beside", false),
        ("gpt", "verity=partition", false),
    ] {
        let rootfs = Rootfs::named(format, &Options::parse([verity])?, &formats)?.verified(true);
        let rootfs = if has_upper { rootfs.upper(64 << 20) } else { rootfs };
        let work = Work::new();
        let disks = work.disks(&rootfs);
        let folder = disks.files[0].path.parent().unwrap_or(Path::new("/"));
        let good = packed(&work, folder, "good")?;
        damage(&disks)?;
        let damaged = packed(&work, folder, "damaged")?;
        let mount = disks.verified_mount_script().ok_or_else(|| Failure::new("no script"))?;
        let mount = format!("{LOSETUP}{mount}");
        let unmount = disks.unmount_script();
        let place = folder.display();
        let write = if has_upper { "touch" } else { "! touch" };
        // Devices go a moment after their mounts.
        let script = format!(
            "mkdir -p {place}; mount -t ext4 /dev/vda {place}\n{mount}\ncat /mnt/rootfs/etc/motd\n\
             {write} /mnt/rootfs/new 2>/dev/null\n{unmount}\n[ ! -e /mnt/rootfs.parts ]\n\
             until [ -z \"$(ls -d /sys/block/dm-* /sys/block/loop*/loop 2>/dev/null)\" ]; do sleep 1; done\n\
             umount {place}; mount -t ext4 /dev/vdb {place}\n\
             cat >/damaged <<'END'\n{mount}\ncat /mnt/rootfs/etc/motd\nEND\n! sh -e /damaged 2>/dev/null\n\
             dmesg | grep -q 'verity: .* is corrupted'\n"
        );
        let drives =
            [good, damaged].map(|disk| format!("-drive file={},format=raw,if=virtio", disk.display()));
        let guest = Guest::new(script).program("veritysetup").program("losetup");
        let said = guest.devices(&drives.join(" ")).run()?;
        let shown = said.lines().filter(|line| !line.starts_with('['));
        assert_eq!(shown.collect::<Vec<_>>(), ["welcome to a block device"], "{format}: {said}");
    }
    Ok(())
}

/// A disk with the files of a folder.
fn packed(work: &Work, folder: &Path, name: &str) -> Result<PathBuf, Failure> {
    let disk = work.dir.path().join(name);
    let make = Run::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(folder);
    make.arg(&disk).arg("128M").success()?;
    Ok(disk)
}

/// Changes a file of the image, wherever it is.
fn damage(disks: &Disks) -> Verdict {
    for path in disks.paths() {
        let content = fs::read(path)?;
        if let Some(at) = content.windows(10).position(|window| window == b"welcome to") {
            // It may be a link to the artifact.
            let copy = path.with_extension("copy");
            fs::write(&copy, content)?;
            File::options().write(true).open(&copy)?.write_all_at(b"W", at as u64)?;
            fs::rename(copy, path)?;
            return Ok(());
        }
    }
    Err(Failure::new("no file has the content as it is"))
}
