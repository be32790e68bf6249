//! Descriptors, which name other files: in a snapshot only its own.

use std::io::Read;

#[cfg(feature = "vmdk")]
use plyfold_core::snapshot::SnapshotFault;
use plyfold_core::snapshot::{Snapshot, SnapshotFile};
use plyfold_core::{Result, Role};

use super::super::options::{VMDK, VMDK_GPT};
use super::stored::reading;

/// The bytes of a descriptor that are read.
const LONGEST: u64 = 1 << 20;

/// Whether it is a VMDK descriptor.
pub(super) fn is_one(file: &SnapshotFile) -> bool {
    file.file.role == Role::Descriptor && [VMDK, VMDK_GPT].contains(&&*file.file.format)
}

/// The text of a descriptor.
pub(super) fn read(content: &mut dyn Read) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    content.take(LONGEST + 1).read_to_end(&mut text).map_err(reading)?;
    Ok(text)
}

/// Refuses a descriptor that is none, or that names files that are not the snapshot's.
#[cfg(feature = "vmdk")]
pub(super) fn check(file: &SnapshotFile, text: &[u8], snapshot: &Snapshot) -> Result<()> {
    use plyfold_core::Error;
    use plyfold_vmdk::Descriptor;

    let at = |e: Error| e.with_context("file", &file.file.name);
    let text =
        std::str::from_utf8(text).map_err(|_| at(Error::corrupt("the VMDK descriptor is not UTF-8")))?;
    let descriptor = Descriptor::parse(text).map_err(at)?;
    let is_own = |path: &str| snapshot.files.iter().any(|file| file.file.name == path);
    match descriptor.extents().iter().find(|extent| !is_own(extent.path())) {
        None => Ok(()),
        Some(extent) => {
            let why = format!("{} names {:?}, which is no file of it", file.file.name, extent.path());
            Err(SnapshotFault::Invalid(why).into())
        }
    }
}

#[cfg(not(feature = "vmdk"))]
#[expect(clippy::unnecessary_wraps, reason = "the signature of the other one")]
pub(super) fn check(_: &SnapshotFile, _: &[u8], _: &Snapshot) -> Result<()> {
    Ok(())
}
