//! Files of a folder that others may write to.

use std::fs::File;
use std::io;
use std::path::Path;

use plyfold_core::{Error, Result};
use rustix::fs::{CWD, Mode, OFlags};

/// Opens a regular file; `None` when there is none. A link is not followed, and a pipe not waited for.
pub(crate) fn open(folder: &Path, name: &str) -> Result<Option<File>> {
    let path = folder.join(name);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, &path, flags, Mode::empty()).map(File::from);
    let at = |e: Error| e.with_context("path", path.display());
    match opened.map_err(io::Error::from) {
        Ok(file) if file.metadata().is_ok_and(|found| found.is_file()) => Ok(Some(file)),
        Ok(_) => Err(at(Error::config("it is not a regular file"))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            Err(at(Error::config("it is a symbolic link, and not a regular file")))
        }
        Err(e) => Err(at(Error::io("opening a file", e))),
    }
}
