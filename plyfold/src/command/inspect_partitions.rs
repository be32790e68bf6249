//! `inspect`: partitions, and what is in each.

use std::path::Path;

use crate::disk_file::format_within;
use crate::materializers::disk::{PartitionInfo, PartitionTable, Partitions};
use crate::{Error, ErrorKind, Result, Slice, printable};
use serde_json::{Value, json};

use super::hash_trees::{Role, role, slice};
use super::inspect_file_system::{Place, of_content, uuid, with_damaged_tree, with_tree};
use super::shown::Shown;
use super::size::Size;
use super::terminal::table;

/// The most devices of images in partitions that are shown, of all partitions together: an image lists up to 65,535, in 8 MiB.
const DEVICES: usize = 1 << 16;

/// Types of partitions by their GUIDs: those that systems for containers and machines have (UEFI Specification 2.10, section
/// 5.3.3; Discoverable Partitions Specification).
const TYPES: [(&str, &str); 12] = [
    ("0fc63daf-8483-4772-8e79-3d69d8477de4", "Linux file system"),
    ("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "Linux swap"),
    ("21686148-6449-6e6f-744e-656564454649", "BIOS boot"),
    ("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5", "Linux root verity (x86-64)"),
    ("4d21b016-b534-45c2-a9fb-5c16e091fd2d", "Linux /var"),
    ("4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "Linux root (x86-64)"),
    ("8da63339-0007-60c0-c436-083ac8230908", "Linux reserved"),
    ("b921b045-1df0-41c3-af44-4c6f280d3fae", "Linux root (arm64)"),
    ("bc13c2ff-59e6-4262-a352-b275fd6f7172", "Linux extended boot"),
    ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "EFI system"),
    ("df3300ce-d69f-4c92-978c-9bfb0f38d820", "Linux root verity (arm64)"),
    ("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "basic data"),
];

/// Shows the partitions of a disk, and what is in them.
pub(crate) fn of_partitions(disk: Slice<'_>, path: &Path) -> Result<Shown> {
    let partitions = Partitions::new(disk)?;
    let (list, mut devices) = (partitions.list(), 0);
    let mut contents = Vec::with_capacity(list.len());
    for (index, partition) in list.iter().enumerate() {
        let shown = match content(disk, list, index, path) {
            Ok(shown) => shown,
            Err(e) if *e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => {
                let mut shown = Shown::default();
                shown.set("error", "format", e.message(), format!("not read: {}", e.message()));
                shown
            }
        };
        devices += shown.document["devices"].as_array().map_or(0, Vec::len);
        if devices > DEVICES {
            let error =
                Error::limit(format!("the images in the partitions have more than {DEVICES} devices"));
            return Err(error.with_context("partition", partition.number));
        }
        contents.push(shown);
    }
    Ok(of_table(partitions.table(), contents))
}

/// What is in one partition.
fn content(disk: Slice<'_>, list: &[PartitionInfo], index: usize, path: &Path) -> Result<Shown> {
    let Some(partition) = list.get(index) else { return Ok(Shown::default()) };
    let at = Place { path, partition: Some(partition.number) };
    let found = role(&disk, list, index);
    match &found {
        // A file system may begin as a tree does: its own superblock comes later.
        Ok(Role::Tree(None)) if format_within(slice(&disk, partition))?.is_some() => {
            of_content(slice(&disk, partition), at)
        }
        Ok(Role::Tree(image)) => {
            let image = image.and_then(|image| list.get(image));
            let of = image.map_or_else(
                || "no partition that is here".to_owned(),
                |of| format!("partition {}, {}", of.number, printable(&of.name)),
            );
            let mut shown = Shown::default();
            shown.set("format", "format", "verity", format!("dm-verity hash tree of {of}"));
            shown.document["hash_tree_of"] = image.map(|of| of.number).into();
            Ok(shown)
        }
        Ok(Role::Hashed(hashed)) if hashed.holder != index => {
            let shown = of_content(slice(&disk, partition), at)?;
            let holder = list.get(hashed.holder);
            let place =
                holder.map_or_else(String::new, |of| format!("in partition {}, {}", of.number, of.name));
            let root = hashed.layout.stated_root(&hashed.data, &hashed.tree)?;
            let at = Place { partition: holder.map(|of| of.number), ..at };
            Ok(with_tree(shown, (&hashed.layout, hashed.uuid), &root, at, place))
        }
        Err(e) if *e.kind() != ErrorKind::Io => {
            let mut shown = of_content(slice(&disk, partition), at)?;
            if shown.document["hash_tree_error"].is_null() {
                shown = with_damaged_tree(shown, e);
            }
            Ok(shown)
        }
        _ => of_content(slice(&disk, partition), at),
    }
}

/// Shows a table, with what is in each partition as far as that is known.
pub(crate) fn of_table(table_of: &PartitionTable, contents: Vec<Shown>) -> Shown {
    let list = &table_of.partitions;
    let mut shown = Shown::default();
    shown.set("format", "format", "gpt", "GUID partition table");
    shown.set("size", "size", table_of.disk_size, Size(table_of.disk_size));
    shown.set("guid", "guid", uuid(table_of.guid), uuid(table_of.guid));
    let mut documents: Vec<Value> = list.iter().map(document).collect();
    let mut contents = contents.into_iter();
    let mut rows = Vec::with_capacity(list.len());
    for (partition, document) in list.iter().zip(&mut documents) {
        let mut content = contents.next();
        let format = content.as_ref().and_then(|content| content.document["format"].as_str());
        rows.push([
            partition.number.to_string(),
            partition.start.to_string(),
            Size(partition.size).to_string(),
            format.unwrap_or("-").to_owned(),
            printable(&partition.name),
        ]);
        if let Some(content) = &mut content {
            document["content"] = content.document.take();
        }
        shown.parts.extend(content.map(|content| of_partition(partition, content)));
    }
    shown.set("partitions", "partitions", documents, list.len());
    shown.table = format!("\n{}", table(["NUMBER", "START", "SIZE", "FORMAT", "NAME"], &rows));
    shown
}

fn document(of: &PartitionInfo) -> Value {
    json!({
        "number": of.number,
        "name": of.name,
        "type": uuid(of.kind),
        "type_name": type_name(of),
        "guid": uuid(of.guid),
        "start": of.start,
        "size": of.size,
    })
}

/// The lines of a partition, and of what is in it.
fn of_partition(of: &PartitionInfo, mut content: Shown) -> Shown {
    let kind = uuid(of.kind);
    let kind = type_name(of).map_or_else(|| kind.clone(), |name| format!("{name}, {kind}"));
    let own = vec![
        ("partition", format!("{}, {}", of.number, of.name)),
        ("guid", uuid(of.guid)),
        ("type", kind),
        ("start", of.start.to_string()),
    ];
    content.lines.splice(0..0, own);
    content
}

fn type_name(of: &PartitionInfo) -> Option<&'static str> {
    let kind = uuid(of.kind);
    TYPES.iter().find(|(guid, _)| *guid == kind).map(|(_, name)| *name)
}
