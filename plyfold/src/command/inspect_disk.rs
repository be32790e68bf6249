//! `inspect` of a file that is a disk.

use std::fs::File;
use std::path::Path;

use crate::blocking::blocking;
use crate::disk_file::{self, DiskFormat, format_of};
use crate::materializers::disk::{PartitionInfo, Partitions};
use crate::materializers::verity::TreeLayout;
use crate::materializers::vmdk::{Descriptor, SparseDisk, SparseSummary};
use crate::materializers::{erofs, ext4};
use crate::{Beneath, Error, Result, printable};
use serde_json::{Value, json};
use uuid::Uuid;

use super::args::Inspect;
use super::listed::{escaped, utc};
use super::size::Size;
use super::terminal::{Terminal, table};

/// What is shown: a document, and the same as lines of a name and a value, with a table behind them.
struct Shown {
    document: Value,
    lines: Vec<(&'static str, String)>,
    table: String,
}

/// Shows what the file says of itself.
pub(crate) async fn show(path: &Path, options: &Inspect, terminal: Terminal) -> Result<()> {
    let shown_path = path.display().to_string();
    if options.raw {
        let error = Error::config("--raw writes the manifest of an image, and a disk has none");
        return Err(error.with_context("path", shown_path));
    }
    let owned = path.to_owned();
    let read = blocking(move |_| read(&owned)).await;
    let Shown { mut document, lines, table } = read.map_err(|e| e.with_context("path", &shown_path))?;
    document["path"] = shown_path.clone().into();
    terminal.show(&document, || {
        let lines = [("file", shown_path)].into_iter().chain(lines);
        let lines = lines.map(|(name, value)| format!("{name:<12}  {}", printable(&value)));
        lines.collect::<Vec<_>>().join("\n") + "\n" + &table
    })
}

fn read(path: &Path) -> Result<Shown> {
    let open = || File::open(path).map_err(|e| Error::io("reading a disk", e));
    match format_of(path)? {
        Some(DiskFormat::Erofs) => with_hash_tree(of_erofs(&erofs::Summary::read(open()?)?), &open()?),
        Some(DiskFormat::Ext4) => with_hash_tree(of_ext4(&ext4::Summary::read(open()?)?), &open()?),
        Some(DiskFormat::Gpt) => {
            let size = std::fs::metadata(path).map_or(0, |found| found.len());
            Ok(of_gpt(Partitions::new(open()?)?.list(), size))
        }
        Some(DiskFormat::Vmdk) => of_vmdk(&disk_file::descriptor(path)?, path),
        Some(DiskFormat::SparseVmdk) => Ok(of_sparse(SparseDisk::new(open()?)?.summary())),
        None => Err(Error::corrupt("the file is no disk any more: it has changed")),
    }
}

/// Adds the hash tree that the file ends with, if it has one. What it says is not verified.
fn with_hash_tree(mut shown: Shown, file: &File) -> Result<Shown> {
    let is_file = file.metadata().is_ok_and(|found| found.is_file());
    let found = if is_file { TreeLayout::find(file)? } else { None };
    let Some((layout, _)) = found else { return Ok(shown) };
    let parameters = layout.parameters();
    shown.document["hash_tree"] = json!({
        "salt": parameters.salt_text(),
        "data_size": layout.data_size(),
        "data_block_size": parameters.data_block_size(),
        "hash_block_size": parameters.hash_block_size(),
        "hash_offset": layout.hash_offset(),
    });
    let place = format!("behind {}, from byte {} on", Size(layout.data_size()), layout.hash_offset());
    shown.lines.push(("hash tree", place));
    Ok(shown)
}

fn of_erofs(summary: &erofs::Summary) -> Shown {
    let device = |device: &erofs::DeviceSummary| {
        json!({
            "tag": String::from_utf8_lossy(&device.tag),
            "start": device.start,
            "blocks": device.blocks,
        })
    };
    let image = summary.blocks * u64::from(summary.block_size);
    let document = json!({
        "format": "erofs",
        "size": summary.size,
        "block_size": summary.block_size,
        "blocks": summary.blocks,
        "inodes": summary.inodes,
        "features": summary.features,
        "time": { "seconds": summary.time.seconds, "nanos": summary.time.nanos },
        "uuid": uuid(summary.uuid),
        "label": String::from_utf8_lossy(&summary.label),
        "devices": summary.devices.iter().map(device).collect::<Vec<_>>(),
    });
    let lines = vec![
        ("format", "EROFS".to_owned()),
        ("size", sizes(summary.size, image)),
        ("block size", summary.block_size.to_string()),
        ("blocks", summary.blocks.to_string()),
        ("inodes", summary.inodes.to_string()),
        ("features", words(&summary.features)),
        ("time", utc(summary.time)),
        ("uuid", uuid(summary.uuid)),
        ("label", or_none(escaped(&summary.label))),
    ];
    let row = |device: &erofs::DeviceSummary| {
        let size = Size(u64::from(device.blocks) * u64::from(summary.block_size)).to_string();
        [device.start.to_string(), device.blocks.to_string(), size, escaped(&device.tag)]
    };
    let rows: Vec<_> = summary.devices.iter().map(row).collect();
    let table = match *rows {
        [] => String::new(),
        _ => format!("\n{}", table(["START", "BLOCKS", "SIZE", "DEVICE"], &rows)),
    };
    Shown { document, lines, table }
}

fn of_ext4(summary: &ext4::Summary) -> Shown {
    let document = json!({
        "format": "ext4",
        "size": summary.size,
        "block_size": summary.block_size,
        "blocks": summary.blocks,
        "free_blocks": summary.free_blocks,
        "groups": summary.groups,
        "inodes": summary.inodes,
        "free_inodes": summary.free_inodes,
        "inode_size": summary.inode_size,
        "features": summary.features,
        "uuid": uuid(summary.uuid),
        "label": String::from_utf8_lossy(&summary.label),
        "clean": summary.is_clean,
        "needs_recovery": summary.needs_recovery,
    });
    let state = match (summary.is_clean, summary.needs_recovery) {
        (true, false) => "clean",
        (_, true) => "the journal has to be replayed",
        (false, false) => "not clean",
    };
    let lines = vec![
        ("format", "ext4".to_owned()),
        ("size", sizes(summary.size, summary.blocks.saturating_mul(summary.block_size.into()))),
        ("block size", summary.block_size.to_string()),
        ("blocks", format!("{}, {} free", summary.blocks, summary.free_blocks)),
        (
            "inodes",
            format!("{}, {} free, of {} bytes", summary.inodes, summary.free_inodes, summary.inode_size),
        ),
        ("groups", summary.groups.to_string()),
        ("features", words(&summary.features)),
        ("uuid", uuid(summary.uuid)),
        ("label", or_none(escaped(&summary.label))),
        ("state", state.to_owned()),
    ];
    Shown { document, lines, table: String::new() }
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
    let document = json!({
        "format": "vmdk",
        "size": descriptor.size(),
        "cid": format!("{:08x}", descriptor.cid()),
        "extents": extents,
    });
    let lines = vec![
        ("format", "VMDK descriptor".to_owned()),
        ("size", Size(descriptor.size()).to_string()),
        ("cid", format!("{:08x}", descriptor.cid())),
        ("extents", rows.len().to_string()),
    ];
    let table = format!("\n{}", table(["FILE", "OFFSET", "SIZE", ""], &rows));
    Ok(Shown { document, lines, table })
}

fn of_gpt(partitions: &[PartitionInfo], size: u64) -> Shown {
    let partition = |of: &PartitionInfo| json!({ "number": of.number, "name": of.name, "start": of.start, "size": of.size });
    let document = json!({
        "format": "gpt",
        "size": size,
        "partitions": partitions.iter().map(partition).collect::<Vec<_>>(),
    });
    let lines = vec![
        ("format", "GUID partition table".to_owned()),
        ("size", Size(size).to_string()),
        ("partitions", partitions.len().to_string()),
    ];
    let row = |of: &PartitionInfo| {
        [of.number.to_string(), of.start.to_string(), Size(of.size).to_string(), printable(&of.name)]
    };
    let rows: Vec<_> = partitions.iter().map(row).collect();
    let table = format!("\n{}", table(["NUMBER", "START", "SIZE", "NAME"], &rows));
    Shown { document, lines, table }
}

fn of_sparse(summary: &SparseSummary) -> Shown {
    let cid = summary.cid.map(|cid| format!("{cid:08x}"));
    let document = json!({
        "format": "vmdk-sparse",
        "size": summary.size,
        "file_size": summary.file_size,
        "grain_size": summary.grain_size,
        "compressed": summary.is_compressed,
        "cid": cid,
    });
    let form = if summary.is_compressed { "VMDK in one file, compressed" } else { "VMDK in one file" };
    let lines = vec![
        ("format", form.to_owned()),
        ("size", Size(summary.size).to_string()),
        ("file size", Size(summary.file_size).to_string()),
        ("grain size", summary.grain_size.to_string()),
        ("cid", or_none(cid.unwrap_or_default())),
    ];
    Shown { document, lines, table: String::new() }
}

/// The size of the file, and that of what is in it where that is another.
fn sizes(file: u64, content: u64) -> String {
    if file == content {
        return Size(file).to_string();
    }
    format!("{} of {} in the file", Size(content), Size(file))
}

fn words(features: &[String]) -> String {
    or_none(features.join(" "))
}

fn or_none(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn uuid(bytes: [u8; 16]) -> String {
    Uuid::from_bytes(bytes).to_string()
}
