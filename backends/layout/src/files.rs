//! Looking at, opening and removing files that other processes may replace at any moment.

use std::fs::{self, DirEntry, File, Metadata, TryLockError};
use std::io;
use std::path::Path;

use plyfold_core::{Error, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

/// What is at a path itself, also a link; `None` when there is nothing.
pub(crate) fn look(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(format!("looking at {}", path.display()), e)),
    }
}

/// Removes a file; one that is gone is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", path.display()), e))
        }
        _ => Ok(()),
    }
}

/// Opens a file for reading; `None` when there is none, or a link. A pipe does not block.
pub(crate) fn open(path: &Path) -> io::Result<Option<File>> {
    match open_by(path, OFlags::RDONLY) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT | Errno::LOOP) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Opens a file for reading and writing, made for its owner alone when there is none; never through a link.
pub(crate) fn open_or_create(path: &Path) -> rustix::io::Result<File> {
    open_by(path, OFlags::RDWR | OFlags::CREATE)
}

fn open_by(path: &Path, how: OFlags) -> rustix::io::Result<File> {
    let flags = how | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    rustix::fs::openat(CWD, path, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

/// What became of trying a lock: whether it was taken.
pub(crate) fn is_locked(outcome: Result<(), TryLockError>) -> io::Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// Calls `each` for what is in a folder; a missing folder is empty. What vanishes meanwhile is left out, and links
/// are not followed.
pub(crate) fn for_each(
    folder: &Path,
    mut each: impl FnMut(&DirEntry, &Metadata) -> Result<()>,
) -> Result<()> {
    let at = |e| Error::io(format!("reading the folder {}", folder.display()), e);
    if look(folder)?.is_none_or(|found| !found.is_dir()) {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(at)? {
        let entry = entry.map_err(at)?;
        match entry.metadata() {
            Ok(metadata) => each(&entry, &metadata)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(at(e)),
        }
    }
    Ok(())
}
