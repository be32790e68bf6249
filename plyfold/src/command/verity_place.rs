//! Disks that a hash tree cannot stand behind.

use std::fs::File;
use std::path::Path;

use crate::disk_file::{DiskFormat, files, format_of};
use crate::durable::parent;
use crate::materializers::ext4;
use crate::materializers::vmdk::Descriptor;
use crate::{DiskSet, Error, Result, disk_file};

use super::vmdk_parts::descriptor_of;

/// What the hint of every refusal ends with.
const APART: &str = "`--hash-tree TREE` writes one of what is on it now to a file of its own";

/// Refuses a tree that would be no part of the disk, or that is of what the disk was.
pub(crate) fn check_append(path: &Path) -> Result<()> {
    let (why, hint) = match format_of(path)? {
        Some(DiskFormat::Vmdk) => {
            of_vmdk(if has_partitions(&disk_file::descriptor(path)?) { "vmdk-gpt" } else { "vmdk" })
        }
        Some(DiskFormat::SparseVmdk) => of_vmdk("vmdk-stream"),
        Some(DiskFormat::Gpt) => {
            // The tables alone are a part of a VMDK.
            let format = if descriptor_of(path).is_some() { "vmdk-gpt" } else { "gpt" };
            (
                "a hash tree would be behind the second partition table, which belongs at the end of the disk",
                format!("{} makes a disk with a tree for each partition", made(format)),
            )
        }
        Some(DiskFormat::Ext4) if is_upper(path) => (
            "guests write to the disk, and its hash tree would be of what it was",
            "`plyfold materialize IMAGE --as erofs -m verity=append` makes a tree of the image below it"
                .to_owned(),
        ),
        Some(DiskFormat::Ext4) if is_written(path) => (
            "guests write to the disk, and its hash tree would be of what it was",
            format!("{} makes a disk that no guest writes to", made("ext4")),
        ),
        _ => return Ok(()),
    };
    Err(Error::config(why).with_hint(format!("{hint}; {APART}")))
}

fn of_vmdk(format: &str) -> (&'static str, String) {
    ("a VMDK gets its hash tree when it is made", format!("{} makes one with a tree", made(format)))
}

fn made(format: &str) -> String {
    format!("`plyfold materialize IMAGE --as {format} -m verity=append`")
}

fn has_partitions(descriptor: &Descriptor) -> bool {
    descriptor.extents().iter().any(|extent| extent.path() == "partitions.gpt")
}

/// Whether it is the upper of an overlay, by its root.
fn is_upper(path: &Path) -> bool {
    let listed = files(path).and_then(|mut files| files.list(b"/"));
    listed.is_ok_and(|found| {
        [&b"upper"[..], b"work"].iter().all(|name| found.iter().any(|file| file.name.as_slice() == *name))
    })
}

/// Whether guests write to it, by the record of its set, or by a journal that has to be replayed.
fn is_written(path: &Path) -> bool {
    let file = File::open(path).map_err(|e| Error::io("reading a disk", e));
    if file.and_then(ext4::Summary::read).is_ok_and(|found| found.needs_recovery) {
        return true;
    }
    let (folder, Some(name)) = (parent(path), path.file_name()) else { return false };
    let set = DiskSet::is_in(folder).then(|| DiskSet::open(folder));
    set.is_some_and(|set| {
        set.is_ok_and(|set| set.records.iter().any(|of| of.writable && name == of.name.as_str()))
    })
}
