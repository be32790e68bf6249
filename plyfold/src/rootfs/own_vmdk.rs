//! VMDKs of a set. A machine monitor opens what a VMDK names, so one that a monitor gets has to be exactly what is written
//! here, and its extents files of the set.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};

use plyfold_core::snapshot::SetFile;
use plyfold_core::{Error, Result, Role};

use super::options::{VMDK, VMDK_GPT, VMDK_STREAM};

/// The bytes of a descriptor that are read.
const LONGEST: u64 = 1 << 20;
/// The first and the last bytes of a VMDK in one file that are read: 21 sectors, and 3.
const FIRST: u64 = 21 * 512;
const LAST: u64 = 3 * 512;

/// Whether a machine monitor gets the file as a VMDK.
pub(super) fn is_one(file: &SetFile) -> bool {
    [Role::Descriptor, Role::Image].contains(&file.role)
        && [VMDK, VMDK_GPT, VMDK_STREAM].contains(&&*file.format)
}

/// What is to be checked of one of `size` bytes: the text, or the first bytes and the last ones of a VMDK in one file. `skip`
/// passes over so many bytes.
pub(super) fn read<R: Read>(
    file: &SetFile,
    content: &mut R,
    size: u64,
    skip: impl FnOnce(&mut R, u64) -> io::Result<()>,
) -> Result<Vec<u8>> {
    let read = move || {
        let mut bytes = Vec::new();
        if file.format != VMDK_STREAM {
            content.by_ref().take(LONGEST + 1).read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
        content.by_ref().take(FIRST).read_to_end(&mut bytes)?;
        skip(content, size.saturating_sub(FIRST + LAST))?;
        content.by_ref().take(LAST).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|e| Error::io("reading a VMDK", e))
}

/// Refuses one that is not exactly what is written here, or that names what is not one of the `files`, or is written to.
#[cfg(feature = "vmdk")]
pub(super) fn check<'a>(
    file: &SetFile,
    bytes: &[u8],
    files: impl Iterator<Item = &'a SetFile>,
) -> Result<()> {
    use std::collections::HashSet;

    use plyfold_core::snapshot::SnapshotFault;
    use plyfold_vmdk::{Descriptor, check_stream};

    let foreign = |why: &str| Error::from(SnapshotFault::ForeignDisk(file.name.clone(), why.to_owned()));
    if file.format == VMDK_STREAM {
        let (first, last) = bytes.split_at(bytes.len().min(FIRST as usize));
        return check_stream(first, last).map_err(|e| foreign(e.message()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| foreign("it is not UTF-8"))?;
    let descriptor = Descriptor::parse_exactly(text).map_err(|e| foreign(e.message()))?;
    let own = files.filter(|of| of.name != file.name && !of.writable).map(|of| of.name.as_str());
    let own: HashSet<&str> = own.collect();
    match descriptor.extents().iter().find(|extent| !own.contains(extent.path())) {
        None => Ok(()),
        Some(extent) => {
            Err(foreign(&format!("it names {:?}, which is no read-only file of the set", extent.path())))
        }
    }
}

#[cfg(not(feature = "vmdk"))]
pub(super) fn check<'a>(file: &SetFile, _: &[u8], _: impl Iterator<Item = &'a SetFile>) -> Result<()> {
    let error = Error::unsupported("a VMDK cannot be checked by a build without VMDKs");
    Err(error.with_context("file", &file.name))
}

/// The same of a file of a folder.
pub(super) fn check_file<'a>(
    file: &SetFile,
    mut content: &File,
    files: impl Iterator<Item = &'a SetFile>,
) -> Result<()> {
    let failed = |e| Error::io("looking at a VMDK", e);
    let size = content.seek(SeekFrom::End(0)).map_err(failed)?;
    content.seek(SeekFrom::Start(0)).map_err(failed)?;
    let skip = |content: &mut &File, bytes: u64| {
        content.seek(SeekFrom::Current(i64::try_from(bytes).map_err(io::Error::other)?)).map(drop)
    };
    check(file, &read(file, &mut content, size, skip)?, files)
}

/// Passes over bytes by reading them.
pub(super) fn read_over<R: Read>(content: &mut R, bytes: u64) -> io::Result<()> {
    io::copy(&mut content.by_ref().take(bytes), &mut io::sink()).map(drop)
}
