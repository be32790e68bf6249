//! Files of a folder that others may write to.

use std::fs::File;
use std::io;
use std::path::Path;

use plyfold_core::{Beneath, Error, Irregular, Result};

/// Opens a regular file; `None` when there is none. A link is not followed, and a pipe not waited for.
pub(crate) fn open(folder: &Path, name: &str) -> Result<Option<File>> {
    let opened = Beneath::new(folder).and_then(|folder| folder.open(name.as_ref()));
    opened.or_else(|e| {
        let error = match Irregular::of(&e) {
            Some(why) => Error::config(why.to_string()),
            None if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            None => Error::io("opening a file", e),
        };
        Err(error.with_context("path", folder.join(name).display()))
    })
}
