//! What is in a folder of the store.

use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::path::Path;

use plyfold_core::{Error, Result};

/// Calls `each` for what is in a folder; a missing folder is empty. What vanishes meanwhile is left out, and links
/// are not followed.
pub(super) fn for_each(
    folder: &Path,
    mut each: impl FnMut(&DirEntry, &Metadata) -> Result<()>,
) -> Result<()> {
    let at = |e| Error::io(format!("reading the folder {}", folder.display()), e);
    if fs::symlink_metadata(folder).is_ok_and(|found| !found.is_dir()) {
        return Ok(());
    }
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(at(e)),
    };
    for entry in entries {
        let entry = entry.map_err(at)?;
        match entry.metadata() {
            Ok(metadata) => each(&entry, &metadata)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(at(e)),
        }
    }
    Ok(())
}
