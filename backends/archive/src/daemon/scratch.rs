//! The temporary folder of what a daemon is to load.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use plyfold_core::{Error, Result};
use rustix::fs::OFlags;
use tempfile::{Builder, TempDir};

/// What the names of such folders begin with. Six letters and digits follow, which are drawn at random.
const PREFIX: &str = "plyfold-load-";
/// How often another process may take a new folder for one that a killed process has left, before it is locked.
const ATTEMPTS: usize = 10;

/// A folder in `TMPDIR`, with the lock that says that its process lives. Dropped, it is removed.
#[derive(Debug)]
pub(super) struct Scratch {
    folder: TempDir,
    _lock: File,
}

impl Scratch {
    /// A new one, after those that killed processes of the same user have left are removed.
    pub(super) fn new() -> Result<Self> {
        let within = std::env::temp_dir();
        clear(&within);
        Self::within(&within).map_err(|e| Error::io("making a temporary folder", e))
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn within(within: &Path) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let folder = Builder::new().prefix(PREFIX).tempdir_in(within)?;
            let lock = open(folder.path())?;
            // Where nothing can be locked, nothing is removed either.
            let is_locked = !matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock));
            if is_locked && folder.path().exists() {
                return Ok(Self { folder, _lock: lock });
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }
}

/// Removes the folders that killed processes of the same user have left. Best effort: what stays does no harm.
fn clear(within: &Path) {
    let user = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(within).into_iter().flatten().flatten() {
        let path = entry.path();
        let Some(folder) = open(&path).ok().filter(|_| is_scratch(&entry.file_name())) else { continue };
        if folder.metadata().is_ok_and(|found| found.uid() == user) && folder.try_lock().is_ok() {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn is_scratch(name: &OsStr) -> bool {
    let random = name.as_encoded_bytes().strip_prefix(PREFIX.as_bytes());
    random.is_some_and(|rest| rest.len() == 6 && rest.iter().all(u8::is_ascii_alphanumeric))
}

/// A folder, and no link to one.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_killed_processes_have_left_is_removed_and_nothing_else() {
        let within = tempfile::tempdir().unwrap();
        let at = |name: &str| within.path().join(name);
        for name in ["plyfold-load-abcdef", "plyfold-load-notes12", "plyfold-load-abc.ef", "other-abcdef"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("load.tar"), "content").unwrap();
        }
        fs::write(at("plyfold-load-aaaaaa"), "a file").unwrap();
        std::os::unix::fs::symlink(at("other-abcdef"), at("plyfold-load-bbbbbb")).unwrap();
        let used = Scratch::within(within.path()).unwrap();
        fs::write(used.path().join("load.tar"), "content").unwrap();
        clear(within.path());
        assert!(!at("plyfold-load-abcdef").exists());
        for name in [
            "plyfold-load-notes12",
            "plyfold-load-abc.ef",
            "plyfold-load-aaaaaa",
            "plyfold-load-bbbbbb/load.tar",
        ] {
            assert!(at(name).exists(), "{name}");
        }
        assert!(used.path().join("load.tar").exists());
        let path = used.path().to_owned();
        drop(used);
        assert!(!path.exists());
    }
}
