//! The folder that a set's files wait in, and the removal of those of killed processes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use tempfile::TempDir;

use super::names::SetNames;
use crate::atomic_file::left;

/// What the names of folders begin with whose files are not a set yet, or not any more.
pub(super) const STAGE: &str = ".plyfold-set-";
/// Where in such a folder the files are that were replaced one by one.
pub(super) const OLD: &str = ".old";

/// A new folder, and the lock that its process holds.
#[derive(Debug)]
pub(super) struct StagingFolder {
    dir: TempDir,
    _lock: File,
}

impl StagingFolder {
    /// A folder in another one, with the mode that the user's umask gives. Leftovers of killed processes are removed.
    pub(super) fn new(parent: &Path) -> io::Result<Self> {
        /// How often another process may remove the folder before it is locked.
        const ATTEMPTS: usize = 10;
        for _ in 0..ATTEMPTS {
            let dir = tempfile::Builder::new().prefix(STAGE).tempdir_in(parent)?;
            if let Some(lock) = lock(dir.path())? {
                clear(parent, lock.metadata()?.uid());
                return Ok(Self { dir, _lock: lock });
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves what is at the path where it is.
    pub(super) fn keep(&mut self) {
        self.dir.disable_cleanup(true);
    }
}

/// The lock on a folder that is still there; `None` when another process has it, or has removed the folder.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(folder) => File::from(folder),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    match folder.try_lock() {
        Ok(()) if left::is_at(&folder, path) => Ok(Some(folder)),
        Ok(()) | Err(fs::TryLockError::WouldBlock) => Ok(None),
        // On a file system without locks no folder counts as a leftover.
        Err(fs::TryLockError::Error(_)) => Ok(Some(folder)),
    }
}

/// Removes leftovers of killed processes of this user from a folder. Best effort: they do no harm.
fn clear(parent: &Path, user: u32) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_name().as_encoded_bytes().starts_with(STAGE.as_bytes()) {
            continue;
        }
        let Ok(Some(folder)) = lock(&path) else { continue };
        // A folder of another user could be replaced by a link at any moment.
        let is_dead = folder.try_lock().is_ok() && folder.metadata().is_ok_and(|found| found.uid() == user);
        if is_dead {
            remove_files(&path.join(OLD));
            remove_files(&path);
        }
    }
}

/// Removes the files that are a set's, and the folder if it is empty then.
fn remove_files(folder: &Path) {
    let set = SetNames::listed_in(folder);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if set.has(&name) || name.as_encoded_bytes().starts_with(b".plyfold-") {
            // A folder is no file, and stays.
            let _ = fs::remove_file(entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}
