//! The folder that a set's files wait in, and the removal of those of killed processes.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::path::Path;

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

impl AsRef<Path> for StagingFolder {
    fn as_ref(&self) -> &Path {
        self.path()
    }
}

impl StagingFolder {
    /// A folder in another one, with the mode that the user's umask gives. Leftovers of killed processes are removed.
    pub(super) fn new(parent: &Path) -> io::Result<Self> {
        for _ in 0..left::ATTEMPTS {
            let dir = tempfile::Builder::new().prefix(STAGE).tempdir_in(parent)?;
            let lock = match File::open(dir.path()) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            // On a file system without locks no folder counts as a leftover.
            if left::lock(&lock, dir.path()).unwrap_or(true) {
                clear(parent, &lock);
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

/// Removes leftovers of killed processes of this user from a folder. Best effort: they do no harm.
fn clear(parent: &Path, own: &File) {
    for (path, _lock) in left::of_killed(parent, is_stage, own, Metadata::is_dir) {
        remove_files(&path.join(OLD));
        remove_files(&path);
    }
}

/// Whether a name is one of a folder in which files wait.
fn is_stage(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(STAGE.as_bytes())
}

/// Removes the files that are a set's, and the folder if it is empty then.
fn remove_files(folder: &Path) {
    let set = SetNames::waiting_in(folder);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if set.has(&name) || left::is_temporary(&name) {
            // A folder is no file, and stays.
            let _ = fs::remove_file(entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}
