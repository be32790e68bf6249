//! Outputs that would replace what the same command reads or writes to.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use crate::durable::parent;
use crate::{Backends, Error, Location, Result};

/// Refuses an output that would replace its input; `-` is standard input.
pub(crate) fn refuse_same(input: &Path, out: &Path) -> Result<()> {
    let input = if input == Path::new("-") { Path::new("/dev/stdin") } else { input };
    let identity = |path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let is_same = identity(out).is_some_and(|out| identity(input) == Some(out));
    if is_same || resolved(out).is_some_and(|out| resolved(input) == Some(out)) {
        let error = Error::config("the output would replace what the command reads or writes to");
        return Err(refused(error, out));
    }
    Ok(())
}

/// The same of a place of images, written as a URI, which may be a directory, and one that is not there yet. Names in
/// registries, and what a daemon has, are no files.
pub(crate) fn refuse_in(place: &str, out: &Path, backends: &Backends) -> Result<()> {
    let Some(path) = path_of(place, backends) else { return Ok(()) };
    refuse_same(&path, out)?;
    let (Some(place), Some(file)) = (resolved(&path), resolved(out)) else { return Ok(()) };
    if file.starts_with(&place) {
        let error =
            Error::config("the output would be a file of the images that the command reads or writes");
        return Err(refused(error, out));
    }
    if file.parent() == place.parent() && file.file_name().and_then(of_part) == place.file_name() {
        let error = Error::config("the output would replace the file that the archive is written to");
        return Err(refused(error, out));
    }
    Ok(())
}

/// Refuses a target of a copy, written as a URI, that lies in the directory that it is copied from.
pub(crate) fn refuse_within(place: &str, target: &str, backends: &Backends) -> Result<()> {
    let (Some(from), Some(to)) = (path_of(place, backends), path_of(target, backends)) else { return Ok(()) };
    let (Some(within), Some(target)) = (resolved(&from), resolved(&to)) else { return Ok(()) };
    if !from.is_dir() || target == within || !target.starts_with(&within) {
        return Ok(());
    }
    let error = Error::config("the target lies in the directory that it is copied from");
    Err(error.with_context("path", to.display()).with_hint("name a target elsewhere"))
}

/// Where a place of images is on this machine.
fn path_of(place: &str, backends: &Backends) -> Option<PathBuf> {
    // A store in a folder that machines share.
    if let Some(folder) = place.strip_prefix("file://") {
        return Some(PathBuf::from(folder));
    }
    let is_elsewhere = |scheme: &&str| matches!(*scheme, "docker-daemon" | "registry");
    let backend = backends.of(place).filter(|backend| !backend.schemes.iter().any(is_elsewhere));
    let location = backend.and_then(|_| Location::parse(place).ok())?;
    Some(PathBuf::from(location.path_and_image().0))
}

fn refused(error: Error, out: &Path) -> Error {
    error.with_context("path", out.display()).with_hint("name a file elsewhere for the output")
}

/// The archive that a file of this name becomes.
fn of_part(name: &OsStr) -> Option<&OsStr> {
    name.to_str()?.strip_prefix('.')?.strip_suffix(".plyfold-part").map(OsStr::new)
}

/// A path without links and `..`, of what may not be there yet.
fn resolved(path: &Path) -> Option<PathBuf> {
    if let Ok(found) = path.canonicalize() {
        return Some(found);
    }
    match path.components().next_back()? {
        Component::Normal(name) => Some(resolved(parent(path))?.join(name)),
        // Of a directory that is made first.
        Component::ParentDir => resolved(parent(path))?.parent().map(Path::to_owned),
        _ => None,
    }
}
