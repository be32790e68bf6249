//! Names that survive a power cut, and files without one.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::{Error, Result};

/// Waits until the names in a folder are on the disk.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io).
pub fn sync_folder(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    match synced {
        // fsync(2): the file system has no way to sync a folder.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        Err(e) => Err(Error::io("syncing the folder", e).with_context("path", path.display())),
        Ok(()) => Ok(()),
    }
}

/// A new file without a name in a folder, which is made if there is none: gone when it is dropped.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io).
pub fn temporary_file(folder: &Path) -> Result<File> {
    let made = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
    made.map_err(|e| Error::io("making a temporary file", e).with_context("path", folder.display()))
}

/// The folder that a path's last name is in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}
