//! A set of disks that is in a folder already.

use std::path::{Path, PathBuf};

#[cfg(feature = "command")]
use plyfold_core::durable::parent;
use plyfold_core::snapshot::{RECORD, SetFile, SetRecord, SnapshotFault, SnapshotImage};
use plyfold_core::{Error, Result};

use super::disks::{Disk, Disks};
use super::own_vmdk;
use super::snapshot::{missing_disk, record};
use crate::regular_file;
#[cfg(doc)]
use crate::{Images, snapshot};

/// The disks in a folder that [`Images::materialize`] has made, or that a snapshot was loaded into, with what guests have
/// written to them since.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DiskSet {
    /// The image that they are of.
    pub image: SnapshotImage,
    /// The files.
    pub disks: Disks,
    /// What was recorded of each of [`Disks::files`], in their order.
    pub records: Vec<SetFile>,
    /// Those of the files that are not there, of a set that [`open_incomplete`](Self::open_incomplete) has read.
    pub missing: Vec<PathBuf>,
}

impl DiskSet {
    /// Reads what the folder says of its disks, and how large they are. Their content is not read, but for VMDKs, which have to
    /// be what is made here: [`snapshot::save`] is what compares it with what was made.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when the folder lacks a disk, or does not say which image its disks are of;
    /// [`Config`](crate::ErrorKind::Config) when a disk is no regular file; [`Corrupt`](crate::ErrorKind::Corrupt) for a record
    /// that is none, and for a disk that guests do not write to and whose size has changed; [`Io`](crate::ErrorKind::Io).
    pub fn open(folder: &Path) -> Result<Self> {
        let set = Self::open_incomplete(folder)?;
        set.check_complete()?;
        Ok(set)
    }

    /// The same of a folder that may lack disks: they are [`missing`](Self::missing), and have the size 0.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for missing disks.
    pub fn open_incomplete(folder: &Path) -> Result<Self> {
        let SetRecord { image, kernel, files: records, .. } = record(folder)?;
        let (mut disks, mut missing) = (Disks { kernel, ..Disks::default() }, Vec::new());
        for of in &records {
            let path = folder.join(&of.name);
            let Some(file) = regular_file::open(folder, &of.name)? else {
                missing.push(path.clone());
                disks.add(Disk::of(of, path, 0));
                continue;
            };
            let size = file.metadata().map_err(|e| Error::io("looking at a disk", e))?.len();
            if own_vmdk::is_one(of) {
                own_vmdk::check_file(of, &file, records.iter())
                    .map_err(|e| e.with_context("path", path.display()))?;
            }
            if of.size.is_some_and(|made| made != size) {
                let altered = Error::from(SnapshotFault::Modified(of.name.clone()));
                return Err(altered.with_context("path", path.display()));
            }
            disks.add(Disk::of(of, path, size));
        }
        disks.notes = disks.left_in(folder);
        Ok(Self { image, disks, records, missing })
    }

    /// Refuses a set that lacks a disk.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    pub fn check_complete(&self) -> Result<()> {
        self.missing.first().map_or(Ok(()), |path| Err(missing_disk(path)))
    }

    /// Refuses disks that a machine cannot start with: one that guests write to and that is in use, or was cut off.
    #[cfg(feature = "command")]
    pub(crate) fn check_written(&self) -> Result<()> {
        for (of, disk) in self.records.iter().zip(&self.disks.files).filter(|(of, _)| of.writable) {
            let at = |e: Error| e.with_context("path", disk.path.display());
            let file =
                regular_file::open(parent(&disk.path), &of.name)?.ok_or_else(|| missing_disk(&disk.path))?;
            super::snapshot::writable::startable(&file, of).map_err(at)?;
        }
        Ok(())
    }

    /// Whether a folder has a set, by the name of its record.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(RECORD).is_file()
    }
}
