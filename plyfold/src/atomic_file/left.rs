//! Files that wait for their name, and what killed writers have left of theirs.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use tempfile::{Builder, NamedTempFile};

/// What the names of such files begin with. Six letters and digits follow, which are drawn at random.
pub(super) const PREFIX: &str = ".plyfold-tmp-";

/// How often another process may take a file for one that a killed writer has left, before it is locked.
pub(crate) const ATTEMPTS: usize = 10;

/// A new file in a folder, with the lock that says that its writer lives, as long as it is open.
pub(super) fn create(directory: &Path, builder: &Builder<'_, '_>) -> io::Result<NamedTempFile> {
    for _ in 0..ATTEMPTS {
        let file = builder.tempfile_in(directory)?;
        // Where nothing can be locked, nothing is removed either.
        if lock(file.as_file(), file.path()).unwrap_or(true) {
            return Ok(file);
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Locks a file or a folder; whether it is locked now, and still there under this name. Otherwise another process looks
/// at it at this moment, and removes it.
pub(crate) fn lock(file: &File, path: &Path) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(is_at(file, path)),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// Whether a name is one of such files.
pub(crate) fn is_temporary(name: &OsStr) -> bool {
    let random = name.as_encoded_bytes().strip_prefix(PREFIX.as_bytes());
    random.is_some_and(|rest| rest.len() == 6 && rest.iter().all(u8::is_ascii_alphanumeric))
}

/// Removes the files that killed writers of the same user have left in a folder. Best effort: files that stay do no harm.
pub(super) fn clear(directory: &Path, own: &File) {
    // A file with a second name is a link to an artifact, which has no lock.
    for (path, _lock) in
        of_killed(directory, is_temporary, own, |found| found.is_file() && found.nlink() == 1)
    {
        let _ = fs::remove_file(path);
    }
}

/// What killed processes of the user who owns `own` have left in a folder under such names, each locked.
pub(crate) fn of_killed(
    directory: &Path,
    is_name: fn(&OsStr) -> bool,
    own: &File,
    is_kind: fn(&Metadata) -> bool,
) -> impl Iterator<Item = (PathBuf, File)> {
    let user = own.metadata().map(|metadata| metadata.uid()).ok();
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(move |entry| is_name(&entry.file_name())).filter_map(move |entry| {
        entry.metadata().ok().filter(is_kind)?;
        let path = entry.path();
        // Nothing that has come there in the meantime is waited for or followed.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(CWD, &path, flags, Mode::empty()).ok()?);
        let is_ours = file.metadata().is_ok_and(|found| is_kind(&found) && Some(found.uid()) == user);
        (is_ours && lock(&file, &path).unwrap_or(false)).then_some((path, file))
    })
}

/// Whether the file is still there under this name.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let (open, there) = (file.metadata().map(identity), fs::symlink_metadata(path).map(identity));
    open.is_ok_and(|open| there.is_ok_and(|there| open == there))
}
