//! Disks that guests write to, looked at before they are saved.

use std::fs::File;

use plyfold_core::snapshot::{SetFile, SnapshotFault};
use plyfold_core::{Error, Result};
use plyfold_ext4::Summary;

use crate::in_use::DiskUser;

/// The bytes before the end of the superblock of an ext4 file system.
const SUPERBLOCK: u64 = 2048;

/// Refuses a disk that is in use, unless it is saved `live`, and one that was cut off. What the user has to know of another one:
/// what comes back of it is what a power cut leaves.
pub(super) fn judged(disk: &File, of: &SetFile, live: bool) -> Result<Option<String>> {
    let user = DiskUser::of_read(disk);
    if let Some(user) = user.as_ref().filter(|_| !live) {
        return Err(SnapshotFault::InUse(user.to_string()).into());
    }
    let (name, found) = (&of.name, uncut(disk, of)?);
    let is_clean = found.as_ref().map(|found| found.is_clean && !found.needs_recovery);
    Ok(match (user, is_clean) {
        (Some(user), Some(_)) => Some(format!("{name}: {user}; it is saved as a power cut would leave it")),
        (Some(user), None) => {
            Some(format!("{name} has no sound ext4 file system; it is saved as it is. {user}"))
        }
        (None, Some(true)) => None,
        (None, Some(false)) => {
            Some(format!("{name} was not unmounted; it is saved as it is, as after a power cut"))
        }
        (None, None) => Some(format!("{name} has no sound ext4 file system; it is saved as it is")),
    })
}

/// Refuses a disk that no machine can start with: one that is in use, or was cut off.
#[cfg(feature = "command")]
pub(in super::super) fn startable(disk: &File, of: &SetFile) -> Result<()> {
    match DiskUser::of_read(disk) {
        Some(user) => Err(user.refusal()),
        None => uncut(disk, of).map(drop),
    }
}

/// What the disk has, if that is ext4: a guest may have made another file system. A disk with none is no shorter than it
/// was at first.
fn uncut(disk: &File, of: &SetFile) -> Result<Option<Summary>> {
    let size = disk.metadata().map_err(|e| Error::io("looking at a disk", e))?.len();
    let found = disk.try_clone().ok().and_then(|disk| Summary::read(disk).ok());
    let needed = match (&found, &of.empty) {
        (Some(found), _) => found.blocks.saturating_mul(found.block_size.into()),
        (None, Some(empty)) => empty.size,
        (None, None) => SUPERBLOCK,
    };
    if size < needed { Err(SnapshotFault::Short(of.name.clone(), size, needed).into()) } else { Ok(found) }
}
