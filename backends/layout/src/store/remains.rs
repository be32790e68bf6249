//! Leftovers of killed writers. They are not damage.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use plyfold_core::cache::{PartialBlob, Remains};
use plyfold_core::{ErrorKind, Result};

use super::artifact::ArtifactPath;
use super::queue::{COLLECTOR, is_read_only};
use super::{checksum, items, paths};
use crate::durable::{self, Temp};
use crate::files::{self, for_each};
use crate::root::{PathKind, Root};

/// How long another tool may take between two writes to a temporary file.
const FOREIGN: Duration = Duration::from_secs(24 * 60 * 60);

/// What is done with remains.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// They are removed, and not only counted.
    pub(super) remove: bool,
    /// What was changed within this time stays.
    pub(super) grace: Duration,
}

/// The partial downloads, those that are being written included.
pub(super) fn partials(root: &Root) -> Result<Vec<PartialBlob>> {
    let mut partials = Vec::new();
    for_each(&root.path().join("ingest"), |entry, metadata| {
        partials.extend(entry.file_name().to_str().map(|name| partial(root, name, metadata)).transpose()?);
        Ok(())
    })?;
    Ok(partials.into_iter().flatten().collect())
}

/// The partial download with this name in `ingest/`, if it is one.
pub(super) fn partial(root: &Root, name: &str, metadata: &Metadata) -> Result<Option<PartialBlob>> {
    let Some(digest) = paths::digest_in(name).filter(|_| metadata.is_file() && metadata.len() > 0) else {
        return Ok(None);
    };
    // A partial download of a blob that is present is not resumed.
    if root.stat_blob(&digest)? != PathKind::Absent {
        return Ok(None);
    }
    let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Ok(Some(PartialBlob { digest, size: metadata.len(), used }))
}

/// Finds temporary files whose owner is gone, partial downloads aside, and parts of artifacts.
pub(super) fn all(root: &Root, policy: Policy) -> Result<Remains> {
    let mut remains = Remains::default();
    for_each(&root.path().join("ingest"), |entry, metadata| {
        let name = entry.file_name();
        match name.to_str().filter(|name| *name != COLLECTOR && metadata.is_file()) {
            Some(name) if partial(root, name, metadata)?.is_none() => {
                temporary(root, name, metadata, policy, &mut remains)
            }
            _ => Ok(()),
        }
    })?;
    companions(root, policy, &mut remains)?;
    Ok(remains)
}

/// A temporary file whose owner may be gone.
pub(super) fn temporary(
    root: &Root,
    name: &str,
    metadata: &Metadata,
    policy: Policy,
    remains: &mut Remains,
) -> Result<()> {
    if paths::is_foreign(name) && !is_older(metadata.modified(), FOREIGN.max(policy.grace)) {
        return Ok(());
    }
    if !policy.remove {
        if durable::is_free(&root.path().join("ingest").join(name))? == Some(true) {
            note(remains, metadata.len(), false);
        }
        return Ok(());
    }
    if let Some(temp) = claim(root, name)? {
        temp.remove()?;
        note(remains, metadata.len(), true);
    }
    Ok(())
}

/// The right to a temporary file; `None` for files of other users and of running processes, which are skipped.
fn claim(root: &Root, name: &str) -> Result<Option<Temp>> {
    match Temp::claim(root, name) {
        Err(e) if *e.kind() == ErrorKind::Corrupt || is_read_only(&e) => Ok(None),
        claimed => claimed,
    }
}

/// Checksums and sidecars whose artifact is gone: such a checksum would be taken for that of the next file of that name.
pub(super) fn companions(root: &Root, policy: Policy, remains: &mut Remains) -> Result<()> {
    for (place, path, metadata) in items::lone_companions(root)? {
        if !metadata.is_file() || !is_older(metadata.modified(), policy.grace) {
            continue;
        }
        let removed = policy.remove && remove_companion(root, &place, &path)?;
        note(remains, metadata.len(), removed);
    }
    Ok(())
}

/// Removes what stood beside an artifact under the right to make that, if that is still missing.
fn remove_companion(root: &Root, place: &ArtifactPath, path: &Path) -> Result<bool> {
    let Some(_turn) = claim(root, &place.temp())? else { return Ok(false) };
    let lone = fs::symlink_metadata(place.path(root)).is_err();
    if lone {
        files::remove(path)?;
    }
    Ok(lone)
}

/// Counts what was found.
pub(super) fn note(remains: &mut Remains, bytes: u64, removed: bool) {
    remains.count += 1;
    remains.bytes = remains.bytes.saturating_add(bytes);
    remains.removed += u64::from(removed);
}

/// Whether an artifact has no checksum and no owner.
pub(super) fn has_no_checksum(path: &Path) -> Result<bool> {
    if fs::symlink_metadata(checksum::path_of(path)).is_ok() {
        return Ok(false);
    }
    // Its maker holds its lock until it has a checksum.
    Ok(durable::is_free(path)? == Some(true) && fs::symlink_metadata(checksum::path_of(path)).is_err())
}

pub(super) fn is_older(time: io::Result<SystemTime>, age: Duration) -> bool {
    let since = SystemTime::now().checked_sub(age);
    matches!((time, since), (Ok(time), Some(since)) if time <= since)
}
