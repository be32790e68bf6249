//! What is where a set is to appear.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use plyfold_core::{Error, Result};

use super::names::SetNames;
use crate::atomic_file::left;
use crate::durable::parent;

/// Where a set is to appear.
#[derive(Clone, Debug)]
pub(super) enum OutputState {
    /// Nothing, in a folder that may be new too.
    Nothing { parent: PathBuf },
    /// A folder with an older set and nothing else, which can be exchanged for another.
    Older(PathBuf),
    /// Another folder.
    Other(PathBuf),
}

impl OutputState {
    pub(super) fn of(out: &Path) -> Result<Self> {
        if fs::symlink_metadata(out).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
            && out.file_name().is_some()
        {
            return Ok(Self::Nothing { parent: parent(out).to_owned() });
        }
        // Links on the way stay what they are.
        let folder = fs::canonicalize(out).unwrap_or_else(|_| out.to_owned());
        if folder.exists() && !folder.is_dir() {
            return Err(Error::config("the output is not a directory").with_context("path", out.display()));
        }
        Ok(if can_be_exchanged(&folder) { Self::Older(folder) } else { Self::Other(folder) })
    }

    /// The folder that must be there first, and that the set's files wait in: on the same file system.
    pub(super) fn parent(&self) -> &Path {
        match self {
            Self::Nothing { parent } => parent,
            Self::Older(folder) => parent(folder),
            Self::Other(folder) => folder,
        }
    }
}

/// Whether this folder may be exchanged for another: not if it is the current directory or a mount
/// point.
fn can_be_exchanged(folder: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let is_here = std::env::current_dir().is_ok_and(|here| here.starts_with(folder));
    folder.parent().is_some_and(|parent| device(parent) == device(folder)) && !is_here && is_a_set(folder)
}

/// Whether a folder has files of a set, and nothing else.
pub(super) fn is_a_set(folder: &Path) -> bool {
    let Ok(names) = names(folder) else { return false };
    let set = SetNames::listed_in(folder);
    let is_file =
        |name: &OsString| fs::symlink_metadata(folder.join(name)).is_ok_and(|found| found.is_file());
    let (own, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| set.has(name) && is_file(name));
    // A folder in which another set waits stays where it is.
    !own.is_empty() && others.iter().all(|name| left::is_temporary(name))
}

/// The names in a folder.
pub(super) fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
}

/// Gives a new folder the owner and the mode of another; whether it differs in nothing else.
pub(super) fn like(new: &Path, old: &Path) -> bool {
    let (Ok(there), Ok(found)) = (fs::metadata(old), fs::metadata(new)) else { return false };
    let is_owner = (there.uid(), there.gid()) == (found.uid(), found.gid())
        || chown(new, Some(there.uid()), Some(there.gid())).is_ok();
    let mode = fs::Permissions::from_mode(there.mode() & 0o7777);
    is_owner && fs::set_permissions(new, mode).is_ok() && xattrs(new) == xattrs(old)
}

/// The extended attributes of a folder: labels, access lists. `None` where they cannot be read.
fn xattrs(path: &Path) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::listxattr(path, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOSYS) => 0,
        Err(_) => return None,
    };
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut found = Vec::new();
    for name in names {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::getxattr(path, name, &mut value).ok()?;
        value.truncate(length);
        found.push((name.to_vec(), value));
    }
    found.sort();
    Some(found)
}
