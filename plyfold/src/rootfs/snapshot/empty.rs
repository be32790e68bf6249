//! Empty disks that deltas are of.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use plyfold_core::snapshot::EmptyDisk;
use plyfold_core::{Output, Result};

/// Makes an empty disk again, in a file that has nothing yet; whether this program can make it.
#[cfg(feature = "ext4")]
pub(super) fn write(empty: &EmptyDisk, mut out: &mut dyn Output) -> Result<bool> {
    use plyfold_core::{ErrorKind, Materializer as _};
    use plyfold_ext4::Ext4Upper;

    let upper = Ext4Upper::new(empty.size).and_then(|upper| upper.root(empty.root.clone()));
    let Ok(upper) = upper else { return Ok(false) };
    if !empty.is_of(&upper.format()) {
        return Ok(false);
    }
    match upper.join(&[], &mut out) {
        Ok(_) => Ok(true),
        // Options that no disk has.
        Err(e) if matches!(e.kind(), ErrorKind::Config | ErrorKind::Unsupported) => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(not(feature = "ext4"))]
#[expect(clippy::unnecessary_wraps, reason = "the signature of the other one")]
pub(super) fn write(_: &EmptyDisk, _: &mut dyn Output) -> Result<bool> {
    Ok(false)
}

/// Whether a disk is one that was made empty like this, whatever was written to it since: an ext4 keeps its UUID, at
/// byte 104 of the superblock at 1024.
pub(super) fn is_made_from(disk: &File, empty: &File) -> bool {
    let uuid = |file: &File| {
        let mut uuid = [0; 16];
        file.read_exact_at(&mut uuid, 1024 + 104).map(|()| uuid)
    };
    matches!((uuid(disk), uuid(empty)), (Ok(one), Ok(other)) if one == other)
}
