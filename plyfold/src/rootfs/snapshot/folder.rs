//! Files of a folder, by names that are no paths.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use plyfold_core::manifest::limits;
use plyfold_core::snapshot::{DOCUMENT, RECORD, SetRecord, Snapshot, SnapshotFault, SnapshotFile};
use plyfold_core::{Error, Result};

use super::stored::{Content, Stored};
use crate::regular_file::open;

/// A document in a folder; one byte more than it may have is read at most.
fn document(folder: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let Some(file) = open(folder, name)? else { return Ok(None) };
    let mut bytes = Vec::new();
    let read = file.take(limits::CONFIG + 1).read_to_end(&mut bytes);
    read.map_err(|e| Error::io("reading a document", e).with_context("path", folder.join(name).display()))?;
    Ok(Some(bytes))
}

/// Which image the disks in a folder are of.
///
/// # Errors
/// [`NotFound`](plyfold_core::ErrorKind::NotFound) when the folder is not there, or does not say.
pub(in super::super) fn record(folder: &Path) -> Result<SetRecord> {
    let at = |e: Error| e.with_context("path", folder.join(RECORD).display());
    if !folder.is_dir() {
        let error = match folder.symlink_metadata() {
            Ok(_) => {
                Error::config("it is no directory").with_hint("name the directory that the disks are in")
            }
            Err(_) => Error::not_found("there is no such directory"),
        };
        return Err(error.with_context("path", folder.display()));
    }
    let missing = || {
        if folder.join(DOCUMENT).is_file() {
            let error = Error::config("it is a snapshot, and not its disks");
            return error.with_hint("load it: its disks can be saved");
        }
        SnapshotFault::NoRecord.into()
    };
    let bytes = document(folder, RECORD)?.ok_or_else(|| at(missing()))?;
    SetRecord::parse(&bytes).map_err(at)
}

/// The error for a disk of a set that is not there.
pub(in super::super) fn missing_disk(path: &Path) -> Error {
    let error = Error::not_found("a disk of the image is missing").with_context("path", path.display());
    error.with_hint("bring the file back, or make the disks again by `materialize` in another directory")
}

/// A snapshot in a folder.
#[derive(Debug)]
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    /// The document in it.
    ///
    /// # Errors
    /// [`NotFound`](plyfold_core::ErrorKind::NotFound) when there is none.
    pub(super) fn snapshot(&self) -> Result<Snapshot> {
        let at = |e: Error| e.with_context("path", self.0.join(DOCUMENT).display());
        let missing = || {
            let error = Error::not_found("no snapshot is in this directory");
            error.with_hint("a snapshot in a directory has the file snapshot.json")
        };
        let bytes = document(&self.0, DOCUMENT)?.ok_or_else(|| at(missing()))?;
        Snapshot::parse(&bytes).map_err(at)
    }
}

impl Stored for Folder {
    fn open(&self, file: &SnapshotFile) -> Result<Content> {
        let name = file.file.stored_name();
        let at = |e: Error| e.with_context("path", self.0.join(&name).display());
        let opened = open(&self.0, &name)?.ok_or_else(|| at(SnapshotFault::Missing(name.clone()).into()))?;
        let size = opened.metadata().map_err(|e| at(Error::io("looking at a file", e)))?.len();
        if size != file.stored().1 {
            return Err(at(SnapshotFault::Altered(name.clone()).into()));
        }
        Ok(Content::File(opened))
    }

    fn path(&self, file: &SnapshotFile) -> Option<PathBuf> {
        Some(self.0.join(file.file.stored_name()))
    }
}
