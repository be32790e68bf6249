//! The directory that files appear in.

use std::io;
use std::path::{Path, PathBuf};

use plyfold_core::{Error, Result};

use crate::durable::{parent, sync_folder};

/// A directory, with what had to be created for it. Dropping it removes that again, unless it was
/// [kept](Self::keep).
#[derive(Debug)]
pub(super) struct Directory {
    /// What was created, outermost first.
    created: Vec<PathBuf>,
}

impl Directory {
    /// The directory at `path`, created with its parents if need be.
    pub(super) fn at(path: &Path) -> Result<Self> {
        let mut directory = Self { created: Vec::new() };
        let missing: Vec<&Path> = path
            .ancestors()
            .filter(|ancestor| !ancestor.as_os_str().is_empty())
            .take_while(|ancestor| !ancestor.exists())
            .collect();
        for path in missing.into_iter().rev() {
            match std::fs::create_dir(path) {
                Ok(()) => directory.created.push(path.to_owned()),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => {
                    let error = Error::io("creating the output directory", e);
                    return Err(error.with_context("path", path.display()));
                }
            }
        }
        if path.is_dir() {
            return Ok(directory);
        }
        Err(Error::config("the output is not a directory").with_context("path", path.display()))
    }

    /// Waits until what was created is on the disk by its name.
    pub(super) fn sync(&self) -> Result<()> {
        self.created.iter().rev().try_for_each(|path| sync_folder(parent(path)))
    }

    pub(super) fn keep(&mut self) {
        self.created.clear();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        for path in self.created.iter().rev() {
            // A directory with new files is kept.
            let _ = std::fs::remove_dir(path);
        }
    }
}
