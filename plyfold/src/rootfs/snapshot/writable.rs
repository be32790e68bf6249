//! Disks that guests write to, looked at before they are saved.

use std::fs::File;

use plyfold_core::Result;
use plyfold_core::snapshot::SnapshotFault;
use plyfold_ext4::Summary;

use crate::in_use::DiskUser;

/// Refuses a disk that is in use, unless it is saved `live`, and one that was cut off. What the user has to know of another one:
/// what comes back of it is what a power cut leaves.
pub(super) fn judged(disk: &File, name: &str, live: bool) -> Result<Option<String>> {
    let user = DiskUser::of_read(disk);
    if let Some(user) = user.as_ref().filter(|_| !live) {
        return Err(SnapshotFault::InUse(user.to_string()).into());
    }
    // A guest may have made another file system.
    let found = disk.try_clone().ok().and_then(|disk| Summary::read(disk).ok());
    if let Some(found) = &found {
        let needed = found.blocks.saturating_mul(found.block_size.into());
        if needed > found.size {
            return Err(SnapshotFault::Short(name.to_owned(), found.size, needed).into());
        }
    }
    let is_clean = found.is_none_or(|found| found.is_clean && !found.needs_recovery);
    Ok(match user {
        Some(user) => Some(format!("{name}: {user}; it is saved as a power cut would leave it")),
        None if is_clean => None,
        None => Some(format!("{name} was not unmounted; it is saved as it is, as after a power cut")),
    })
}
