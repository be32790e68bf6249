//! Files that are parts of a VMDK, such as `partitions.gpt`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::disk_file::{self, DiskFormat, format_of};
use crate::durable::parent;
use crate::materializers::disk::DiskFault;
use crate::{Error, printable};

/// The most descriptors that are read to find one that names a file, of at most a MiB each.
const DESCRIPTORS: usize = 64;
/// The most names of a folder that are looked at.
const NAMES: usize = 1 << 16;

/// A descriptor in the same folder that names the file: the first by its name.
pub(crate) fn descriptor_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let names = fs::read_dir(parent(path)).ok()?.take(NAMES).filter_map(|entry| {
        let entry = entry.ok()?;
        // A link may lead out of the folder.
        entry.file_type().ok()?.is_file().then(|| entry.path())
    });
    let mut found: Vec<PathBuf> =
        names.filter(|name| name.extension().is_some_and(|end| end == "vmdk")).collect();
    found.sort();
    found.into_iter().take(DESCRIPTORS).find(|descriptor| {
        let is_descriptor = matches!(format_of(descriptor), Ok(Some(DiskFormat::Vmdk)));
        let read = if is_descriptor { disk_file::descriptor(descriptor).ok() } else { None };
        read.is_some_and(|read| read.extents().iter().any(|extent| extent.path() == name))
    })
}

/// The error with the descriptor that has the rest of the disk, if the file has the tables of partitions alone. `verb` is
/// what reads that.
pub(crate) fn with_descriptor(error: Error, path: &Path, verb: &str) -> Error {
    if !matches!(error.detail(), Some(DiskFault::Short(..))) {
        return error;
    }
    let Some(descriptor) = descriptor_of(path) else { return error };
    let descriptor = printable(&descriptor.to_string_lossy());
    error.with_better_hint(format!("it is a part of a VMDK: `plyfold {verb} {descriptor}` reads the disk"))
}
