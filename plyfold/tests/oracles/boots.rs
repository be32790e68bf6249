//! How machines end that the command boots, and what their users are told.

use std::fs;

use plyfold_conformance::oracle::{Guest, Verdict};

use super::Work;

/// A guest that did not power off is an error with what it has said; what its command ended with is the exit code.
pub(crate) fn the_end_of_a_machine_is_told() -> Verdict {
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
        (
            "echo c >/proc/sysrq-trigger\n",
            &[],
            &kernel,
            1,
            "Kernel panic - not syncing: sysrq triggered crash",
        ),
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
