//! Files that wait for their name, and what killed writers have left of theirs.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use tempfile::{Builder, NamedTempFile};

/// What the names of such files begin with.
pub(super) const PREFIX: &str = ".plyfold-";

/// How often another process may take a file for one that a killed writer has left, before it is locked.
const ATTEMPTS: usize = 10;

/// A new file in a folder, with the lock that says that its writer lives, as long as it is open.
pub(super) fn create(directory: &Path, builder: &Builder<'_, '_>) -> io::Result<NamedTempFile> {
    for _ in 0..ATTEMPTS {
        let file = builder.tempfile_in(directory)?;
        match file.as_file().try_lock() {
            Ok(()) if is_at(file.as_file(), file.path()) => return Ok(file),
            // Another process looks at it at this moment, and removes it.
            Ok(()) | Err(TryLockError::WouldBlock) => {}
            // Where nothing can be locked, nothing is removed either.
            Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Removes the files that killed writers of the same user have left in a folder. Best effort: files that stay do no harm.
pub(super) fn clear(directory: &Path, own: &File) {
    let Ok(user) = own.metadata().map(|metadata| metadata.uid()) else { return };
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
            || !entry.file_type().is_ok_and(|kind| kind.is_file())
        {
            continue;
        }
        // Nothing that has come there in the meantime is waited for or followed.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(CWD, &path, flags, Mode::empty()).map(File::from) else { continue };
        // A file with a second name is a link to an artifact, which has no lock.
        let is_ours =
            file.metadata().is_ok_and(|found| found.is_file() && found.uid() == user && found.nlink() == 1);
        if is_ours && file.try_lock().is_ok() && is_at(&file, &path) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Whether the file is still there under this name.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
    let (open, there) = (file.metadata(), fs::symlink_metadata(path));
    open.is_ok_and(|open| there.is_ok_and(|there| identity(&open) == identity(&there)))
}
