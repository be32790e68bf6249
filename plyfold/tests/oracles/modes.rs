//! Who may read what is written.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use plyfold::Rootfs;
use plyfold::atomic_file::{FileOptions, Owner};
use plyfold_conformance::oracle::{Run, Verdict};

use super::Work;

/// A virtual machine's monitor often runs as another user.
pub(crate) fn another_user_reads_every_file_of_a_set() -> Verdict {
    let nobody = 65534;
    let read = |path: &Path| {
        let user = [format!("--reuid={nobody}"), format!("--regid={nobody}")];
        Run::new("setpriv").args(user).args(["--clear-groups", "cat"]).arg(path).output()
    };
    let work = Work::new();
    fs::set_permissions(work.dir.path(), fs::Permissions::from_mode(0o755))?;
    let out = work.dir.path().join("set");
    let mode = |path: &Path| fs::metadata(path).map(|found| found.permissions().mode() & 0o7777);
    let disks = work.disks_at(&Rootfs::vmdk().upper(64 << 20), &out);
    for file in disks.paths() {
        assert!(read(file)?.status.success(), "{} cannot be read", file.display());
        let expected = if file.ends_with("upper.ext4") { 0o644 } else { 0o444 };
        assert_eq!(mode(file)?, expected, "{}", file.display());
    }
    // The store itself stays for its owner alone.
    let store = work.dir.path().join("store");
    assert!(!read(&store.join("index.json"))?.status.success());
    let owner = Owner { user: Some(nobody), group: None };
    let files = FileOptions { copy: true, mode: Some(0o400), owner: Some(owner), ..FileOptions::default() };
    let disks = work.disks_at(&Rootfs::vmdk().upper(64 << 20).files(files), &out);
    for file in disks.paths() {
        let expected = if file.ends_with("upper.ext4") { 0o600 } else { 0o400 };
        let found = fs::metadata(file)?;
        assert_eq!((mode(file)?, found.uid(), found.nlink()), (expected, nobody, 1), "{}", file.display());
        assert!(read(file)?.status.success(), "{} cannot be read", file.display());
    }
    Ok(())
}
