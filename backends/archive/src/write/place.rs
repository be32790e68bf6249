//! Where an archive is, and the file beside it that it is written to.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plyfold_core::blocking::Stop;
use plyfold_core::durable::parent;
use plyfold_core::{Error, ErrorKind, Result};
use rustix::fs::{Access, AtFlags, CWD, OFlags};
use rustix::io::Errno;

use crate::spool;

/// How long another writer of the archive is waited for, and how long one wait takes.
const WAIT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(20);
/// The mode of a file before it is the archive, which may hold what other users may not read.
pub(super) const SECRET: u32 = 0o600;

/// The locked file that an archive is written to, and its path.
///
/// # Errors
/// `Unavailable` while another writer has it; those of [`check`].
pub(super) fn locked(target: &Path, stop: &Stop) -> Result<(PathBuf, File)> {
    check(target)?;
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".plyfold-part");
    let place = parent(target).join(name);
    let began = Instant::now();
    loop {
        stop.check()?;
        if let Some(file) = try_lock(&place, target)? {
            return Ok((place, file));
        }
        if began.elapsed() > WAIT {
            let error = Error::new(ErrorKind::Unavailable, "another writer has the archive");
            return Err(error.with_context("path", place.display()));
        }
        std::thread::sleep(PAUSE);
    }
}

/// What is at the archive's path.
///
/// # Errors
/// `Config` for what is no regular file.
pub(super) fn there_is(path: &Path) -> Result<Option<Metadata>> {
    let at = |e: Error| e.with_context("path", path.display());
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_file() => Ok(Some(there)),
        Ok(_) => Err(at(Error::config("the archive to write to is not a regular file")
            .with_hint("choose the name of a file; devices and links are never written through"))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(at(Error::io("looking at the archive", e))),
    }
}

/// Looks whether an archive can be written at this path, and writes nothing.
///
/// # Errors
/// `Config` where no archive can be, `NotFound` in a folder that is not there, `Unsupported` for one that is compressed, `Io` in a folder
/// that cannot be written to.
pub(crate) fn check(path: &Path) -> Result<()> {
    let at = |e: Error| e.with_context("path", path.display());
    if path.as_os_str() == "-" {
        let error = Error::config("standard output is no archive that images can be added to");
        return Err(error.with_hint("name a file; one that is called - is ./-"));
    }
    if path.as_os_str().as_bytes().ends_with(b"/") {
        let error = Error::config("the archive to write to has the name of a directory");
        return Err(at(error.with_hint("name a file, without a slash at the end")));
    }
    if there_is(path)?.is_some() && spool::is_packed(path)? {
        let error = Error::unsupported("an archive that is compressed as a whole is not written to");
        return Err(at(error.with_hint("decompress it first")));
    }
    let folder = parent(path);
    if !folder.is_dir() {
        return Err(no_folder(path));
    }
    match rustix::fs::accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        // Where the kernel does not say, a write does.
        Ok(()) | Err(Errno::INVAL | Errno::NOSYS) => Ok(()),
        Err(e) => Err(at(Error::io("writing the archive", e.into()))),
    }
}

fn no_folder(target: &Path) -> Error {
    let error = Error::not_found("the archive's folder does not exist");
    error.with_context("path", target.display()).with_hint("make the folder first")
}

/// Opens and locks the file; `None` while another writer has it.
fn try_lock(place: &Path, target: &Path) -> Result<Option<File>> {
    let failed = |e: io::Error| Error::io("writing the archive", e).with_context("path", place.display());
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let opened =
        OpenOptions::new().read(true).write(true).create(true).mode(SECRET).custom_flags(flags).open(place);
    let file = match opened {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(no_folder(target));
        }
        opened => opened.map_err(failed)?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(e)) => return Err(failed(e)),
    }
    let own = file.metadata().map_err(failed)?;
    // Its writer may have made it the archive, or removed it, between the two calls.
    let named = match fs::symlink_metadata(place) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        named => named.map_err(failed)?,
    };
    if (own.dev(), own.ino()) != (named.dev(), named.ino()) {
        return Ok(None);
    }
    let refused = if !own.is_file() || own.nlink() != 1 {
        "is no regular file, or has a second name"
    } else if own.uid() != rustix::process::geteuid().as_raw() {
        "is another user's"
    } else {
        hide(&file);
        return Ok(Some(file));
    };
    let error = Error::new(ErrorKind::Denied, format!("the file that the archive is written to {refused}"));
    Err(error.with_context("path", place.display()).with_hint("remove it"))
}

/// Lets no other user read a file. Best effort: a file system may have no modes.
pub(super) fn hide(file: &File) {
    if file.metadata().is_ok_and(|there| there.mode() & 0o777 & !SECRET != 0) {
        let _ = file.set_permissions(Permissions::from_mode(SECRET));
    }
}
