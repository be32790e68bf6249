//! Names that survive a power cut.

use std::fs::File;
use std::path::Path;

use plyfold_core::{Error, Result};
use rustix::io::Errno;

/// Waits until the names in a folder are on the disk.
///
/// # Errors
/// [`Io`](plyfold_core::ErrorKind::Io).
pub(crate) fn folder(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    match synced {
        // fsync(2): the file system has no way to sync a folder.
        Err(e) if Errno::from_io_error(&e) == Some(Errno::INVAL) => Ok(()),
        Err(e) => Err(failed("syncing the folder", path, e)),
        Ok(()) => Ok(()),
    }
}

/// Waits until a file's content is on the disk.
///
/// # Errors
/// [`Io`](plyfold_core::ErrorKind::Io).
pub(crate) fn content(file: &File, shown: &Path) -> Result<()> {
    file.sync_all().map_err(|e| failed("syncing the output", shown, e))
}

fn failed(action: &str, path: &Path, e: std::io::Error) -> Error {
    Error::io(action, e).with_context("path", path.display())
}

/// The folder that a path's last name is in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}
