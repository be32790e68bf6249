//! Moves damaged content to `quarantine/`, where the user can inspect it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use plyfold_core::cache::DamagedPart;
use plyfold_core::durable::{parent, sync_folder};
use plyfold_core::{Digest, Error, ErrorKind, Result};

use super::artifact::{self, ArtifactPath};
use super::items::{Item, identity};
use super::paths::name_of;
use crate::durable::{self, Temp};
use crate::files;
use crate::root::{PathKind, Root};

/// Moves what stands where a blob belongs to `quarantine/`.
pub(super) fn quarantine(root: &Root, digest: &Digest) -> Result<()> {
    if root.stat_blob(digest)? == PathKind::Absent {
        return Ok(());
    }
    if let Some(target) = move_away(root, &root.blob_path(digest), &name_of(digest))? {
        tracing::warn!("{digest} is damaged and was moved to {}", target.display());
    }
    Ok(())
}

/// What was done with a damaged item.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Removal {
    /// Another process is writing it again: it is left alone.
    Busy,
    /// It was moved or removed.
    Done,
    /// The file was replaced or removed meanwhile.
    Replaced,
}

/// Removes a damaged item: a blob is moved to `quarantine/`, an artifact is deleted, because it can be made
/// again. Safe with concurrent writers: a file that was published after the item was read is left alone.
pub(super) fn remove(root: &Root, item: &Item) -> Result<Removal> {
    let name = match &item.part {
        DamagedPart::Artifact(format, content) => {
            let extension = item.path.extension().and_then(|extension| extension.to_str());
            ArtifactPath::new(format, content, extension.unwrap_or_default())?.temp()
        }
        DamagedPart::Blob(digest) => name_of(digest),
        _ => return Ok(Removal::Replaced),
    };
    // The right to write it: while it is held, no other process publishes a file in its place.
    let Some(mut turn) = Temp::claim(root, &name)? else { return Ok(Removal::Busy) };
    let is_there = files::look(&item.path)?.is_some_and(|found| identity(&found) == item.identity);
    if is_there && item.kind.is_file() && matches!(item.part, DamagedPart::Artifact(..)) {
        artifact::remove(&item.path)?;
    } else if is_there {
        move_away(root, &item.path, &name)?;
    }
    // Keep a partial download that is there.
    let partial = turn.file().metadata().is_ok_and(|metadata| metadata.len() > 0);
    if partial {
        turn.keep();
    }
    Ok(if is_there { Removal::Done } else { Removal::Replaced })
}

/// Whether an error of [`Root::index`] is about what the file says, and not about reading it.
pub(super) fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Ambiguous | ErrorKind::Corrupt | ErrorKind::Limit)
}

/// Hard-links a file into `quarantine/`, so that it is never missing. If linking fails, it is moved.
pub(super) fn keep(root: &Root, from: &Path, name: &str) -> Result<Option<PathBuf>> {
    let folder = durable::folder(root, &["quarantine"], true)?;
    for count in 0..u32::MAX {
        let target = folder.join(format!("{name}.{count}"));
        match fs::hard_link(from, &target) {
            Ok(()) => {
                sync_folder(&folder)?;
                return Ok(Some(target));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_) => return move_away(root, from, name),
        }
    }
    Ok(None)
}

/// Moves whatever stands at `from` to `quarantine/`, beside what is there of the same name; where it is now. `None`
/// when another process has moved it.
fn move_away(root: &Root, from: &Path, name: &str) -> Result<Option<PathBuf>> {
    let folder = durable::folder(root, &["quarantine"], true)?;
    let target = |count: u32| -> PathBuf { folder.join(format!("{name}.{count}")) };
    let free = (0..u32::MAX)
        .map(target)
        .find(|path| fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound));
    let Some(target) = free else { return Ok(None) };
    match fs::rename(from, &target) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("moving {} away", from.display()), e)),
    }
    // First where it is, then where it was: a power cut may leave both names, never none.
    sync_folder(&folder)?;
    sync_folder(parent(from))?;
    Ok(Some(target))
}
