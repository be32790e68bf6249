//! `inspect` of a file that is a disk.

use std::fs::File;
use std::path::Path;

use crate::blocking::blocking;
use crate::disk_file::{self, DiskBytes, DiskFormat, format_of, format_within};
use crate::materializers::disk::{DiskFault, PartitionTable};
use crate::materializers::vmdk::{Descriptor, SparseDisk, SparseSummary};
use crate::{Beneath, Error, Result, Slice, printable};
use serde_json::json;

use super::args::Inspect;
use super::inspect_file_system::{Place, of_content};
use super::inspect_partitions::{of_partitions, of_table};
use super::program;
use super::shown::{Shown, or_none};
use super::size::Size;
use super::terminal::{Terminal, table};
use super::vmdk_parts::{descriptor_of, with_descriptor};

/// Shows what the file says of itself, and what is in it.
pub(crate) async fn show(path: &Path, options: &Inspect, terminal: Terminal) -> Result<()> {
    let shown_path = path.display().to_string();
    if options.raw {
        let error = Error::config("--raw writes the manifest of an image, and a disk has none");
        return Err(error.with_context("path", shown_path));
    }
    let owned = path.to_owned();
    let read = blocking(move |_| read(&owned)).await;
    let mut shown =
        read.map_err(|e| with_descriptor(e, path, "inspect").with_context("path", &shown_path))?;
    shown.document["path"] = shown_path.clone().into();
    shown.lines.insert(0, ("file", shown_path));
    terminal.show(&shown.document, || shown.text())
}

fn read(path: &Path) -> Result<Shown> {
    match format_of(path)? {
        Some(DiskFormat::Gpt) => match content(path) {
            // The tables alone are a part of a VMDK.
            Err(e) if matches!(e.detail(), Some(DiskFault::Short(..))) => {
                let Some(descriptor) = descriptor_of(path) else { return Err(e) };
                let table = PartitionTable::of_start(open(path)?)?;
                let mut shown = of_table(&table, Vec::new());
                let descriptor = descriptor.display().to_string();
                let verb = program::named("`plyfold inspect` shows");
                let says = format!("{descriptor}, which {verb} with what is in the partitions");
                shown.set("part_of", "part of", descriptor, says);
                Ok(shown)
            }
            shown => shown,
        },
        Some(DiskFormat::Vmdk) => {
            let shown = of_vmdk(&disk_file::descriptor(path)?, path)?;
            Ok(shown.with_disk(content(path)))
        }
        Some(DiskFormat::SparseVmdk) => {
            Ok(of_sparse(SparseDisk::new(open(path)?)?.summary()).with_disk(content(path)))
        }
        Some(_) => content(path),
        None => Err(Error::corrupt("the file is no disk any more: it has changed")),
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| Error::io("reading a disk", e))
}

/// What a guest finds on the disk.
fn content(path: &Path) -> Result<Shown> {
    let disk = DiskBytes::open(path)?;
    let whole = Slice::whole(&disk).map_err(|e| Error::io("reading a disk", e))?;
    match format_within(whole)? {
        Some(DiskFormat::Gpt) => of_partitions(whole, path),
        _ => of_content(whole, Place { path, partition: None }),
    }
}

fn of_vmdk(descriptor: &Descriptor, path: &Path) -> Result<Shown> {
    let folder = Beneath::new(path.parent().unwrap_or(Path::new("")));
    let folder = folder.map_err(|e| Error::io("opening the folder of a VMDK", e))?;
    let mut rows = Vec::new();
    let mut extents = Vec::new();
    for extent in descriptor.extents() {
        let (size, offset) = (extent.size(), extent.start());
        let state = match extent.file_size(&folder)? {
            None => "missing",
            Some(length) if length < offset + size => "too short",
            Some(_) => "present",
        };
        extents.push(json!({ "path": extent.path(), "offset": offset, "size": size, "file": state }));
        let is_present = state == "present";
        let note = if is_present { String::new() } else { state.to_owned() };
        rows.push([printable(extent.path()), offset.to_string(), Size(size).to_string(), note]);
    }
    let mut shown = Shown::default();
    shown.set("format", "format", "vmdk", "VMDK descriptor");
    shown.set("size", "size", descriptor.size(), Size(descriptor.size()));
    let cid = format!("{:08x}", descriptor.cid());
    shown.set("cid", "cid", cid.as_str(), &cid);
    shown.set("extents", "extents", extents, rows.len());
    shown.table = format!("\n{}", table(["FILE", "OFFSET", "SIZE", ""], &rows));
    Ok(shown)
}

fn of_sparse(summary: &SparseSummary) -> Shown {
    let cid = summary.cid.map(|cid| format!("{cid:08x}"));
    let form = if summary.is_compressed { "VMDK in one file, compressed" } else { "VMDK in one file" };
    let mut shown = Shown::default();
    shown.set("format", "format", "vmdk-sparse", form);
    shown.set("size", "size", summary.size, Size(summary.size));
    shown.set("file_size", "file size", summary.file_size, Size(summary.file_size));
    shown.set("grain_size", "grain size", summary.grain_size, summary.grain_size);
    shown.set("cid", "cid", cid.clone(), or_none(cid.unwrap_or_default()));
    shown.document["compressed"] = summary.is_compressed.into();
    shown
}
