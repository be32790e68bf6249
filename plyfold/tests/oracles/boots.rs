//! How machines end that the command boots, and what the command says of it.

use std::fs;
use std::time::Duration;

use plyfold_conformance::oracle::{Guest, Run, Verdict};

use super::Work;

/// Makes the kernel panic.
const PANIC: &str = "busybox mkdir /proc; busybox mount -t proc proc /proc; echo c >/proc/sysrq-trigger\n";

/// A guest that did not power off is an error with what it has said; what its command ended with is the exit code.
pub(crate) fn the_end_of_a_guest_is_reported() -> Verdict {
    let work = Work::new();
    let kernel = Guest::folder().join("vmlinuz");
    let [alone, no_archive] = ["vmlinuz", "initrd"].map(|name| work.dir.path().join(name));
    // Its modules are not beside it, so it has no disks.
    fs::copy(&kernel, &alone)?;
    fs::write(&no_archive, "no archive")?;
    let initrd = no_archive.display().to_string();
    let image = |script: &str| work.image_with(script);
    for (script, options, kernel, code, said) in [
        ("exit 3\n", &[][..], &kernel, 3, ""),
        ("busybox poweroff -f\n", &[], &kernel, 0, ""),
        ("busybox reboot -f\n", &[], &kernel, 1, "the guest has reset the machine"),
        (PANIC, &[], &kernel, 1, "Kernel panic - not syncing: sysrq triggered crash"),
        ("", &["--initrd", &initrd], &kernel, 1, "Unable to mount root fs"),
        ("", &[], &alone, 1, "the guest could not mount its disks"),
    ] {
        let options = [&["--as", "erofs"], options].concat();
        let ended = work.machine(&image(script), &options, kernel)?;
        assert!(ended.status.code() == Some(code) && ended.stderr.contains(said), "{script}: {ended}");
        let has_error = ended.stderr.contains("error: ");
        assert_eq!(has_error, !said.is_empty(), "{script}: {ended}");
    }
    Ok(())
}

/// A set is started again as it is, also in another place and without the store: with what a guest has written.
pub(crate) fn a_guest_boots_again_from_its_set() -> Verdict {
    let work = Work::new();
    let kernel = Guest::folder().join("vmlinuz");
    let script = "echo $PWD >>/starts\nexit $(busybox wc -l </starts)\n";
    for options in [&["--as", "erofs", "-m", "verity=append"][..], &["--as", "vmdk"]] {
        let first = work.machine(&work.image_with(script), options, &kernel)?;
        assert_eq!(first.status.code(), Some(1), "{first}");
        let [old, new] = ["out", "a moved, set"].map(|name| work.dir.path().join(name));
        let _ = fs::remove_dir_all(&new);
        fs::rename(&old, &new)?;
        fs::remove_dir_all(work.dir.path().join("store"))?;
        let boot = Run::new(env!("CARGO_BIN_EXE_plyfold")).arg("boot").arg(&new).arg("--kernel").arg(&kernel);
        let boot = boot.args(["--", "-m", "256"]).env("PATH", Guest::folder());
        let second = boot.limit(Duration::from_secs(240)).output()?;
        assert_eq!(second.status.code(), Some(2), "{second}");
    }
    Ok(())
}

/// Also in an image without `/dev`, where nothing of the initramfs has a place: the first start makes it.
pub(crate) fn a_guest_starts_a_command_in_its_folder() -> Verdict {
    let work = Work::new();
    let [out, store] = ["out", "store"].map(|name| work.dir.path().join(name));
    let image = work.image_with("echo in $PWD\n[ -e /dev ] && exit 4\nbusybox mkdir /dev\nexit 3\n");
    let make = Run::new(env!("CARGO_BIN_EXE_plyfold")).args(["materialize", &image, "--as", "erofs"]);
    let make = make.args(["--platform", "linux/amd64", "--upper", "64M", "--store"]).arg(store);
    make.arg("--out").arg(&out).success()?;
    let record = out.join(".plyfold-image");
    let mut changed: serde_json::Value = serde_json::from_slice(&fs::read(&record)?)?;
    changed["image"]["process"]["cwd"] = "/etc".into();
    fs::write(&record, changed.to_string())?;
    for code in [3, 4] {
        let boot = Run::new(env!("CARGO_BIN_EXE_plyfold")).arg("boot").arg(&out).arg("--kernel");
        let boot = boot.arg(Guest::folder().join("vmlinuz")).args(["--", "-m", "256"]);
        let ended = boot.env("PATH", Guest::folder()).limit(Duration::from_secs(240)).output()?;
        assert!(ended.status.code() == Some(code) && ended.stdout.contains("in /etc"), "{ended}");
    }
    Ok(())
}
