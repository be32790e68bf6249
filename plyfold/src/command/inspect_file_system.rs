//! `inspect`: file systems, and the hash trees behind them.

use std::path::Path;

use crate::disk_file::{DiskFormat, format_within};
use crate::layer::Timestamp;
use crate::materializers::verity::{self as tree, RootHash, TreeLayout};
use crate::materializers::{erofs, ext4};
use crate::{Error, ErrorKind, KernelVersion, ReadAt, Result, Slice};
use serde_json::{Value, json};
use uuid::Uuid;

use super::hash_tree::TreeDocument;
use super::hash_trees::behind;
use super::listed::{escaped, utc};
use super::shown::{Shown, or_none};
use super::size::Size;
use super::terminal::table;

/// Where a file system is.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) path: &'a Path,
    pub(crate) partition: Option<u32>,
}

/// Shows a disk, or a partition, that has no partitions.
pub(crate) fn of_content(part: Slice<'_>, at: Place<'_>) -> Result<Shown> {
    let behind = behind(&part);
    let shown = match format_within(part)? {
        Some(DiskFormat::Erofs) => {
            let summary = erofs::Summary::read(part)?;
            let data = behind.as_ref().ok().and_then(Option::as_ref).map(|(layout, _)| layout.data_size());
            of_erofs(&summary, kernel(&summary, data.unwrap_or(summary.size)))
        }
        Some(DiskFormat::Ext4) => of_ext4(&ext4::Summary::read(part)?),
        _ => {
            let size = part.size().map_err(|e| Error::io("reading a disk", e))?;
            let mut shown = Shown::default();
            shown.set("format", "format", Value::Null, "no file system that is known here");
            shown.set("size", "size", size, Size(size));
            shown
        }
    };
    match behind {
        Ok(None) => Ok(shown),
        Ok(Some((layout, uuid))) => {
            let root = layout.stated_root(&part, &part)?;
            let place = format!("behind {}, from byte {} on", Size(layout.data_size()), layout.hash_offset());
            Ok(with_tree(shown, (&layout, uuid), &root, at, place))
        }
        Err(e) if *e.kind() == ErrorKind::Io => Err(e),
        Err(e) => Ok(with_damaged_tree(shown, &e)),
    }
}

/// Adds a hash tree. What it says is not verified.
pub(crate) fn with_tree(
    mut shown: Shown,
    (layout, uuid): (&TreeLayout, tree::Uuid),
    root: &RootHash,
    at: Place<'_>,
    place: String,
) -> Shown {
    let document = TreeDocument::read(layout, root, Some(uuid));
    let document = document.at(at.path, at.partition, layout.hash_offset());
    shown.set("hash_tree", "hash tree", json!(document), place);
    shown.lines.push(("root hash", format!("{root}, not verified")));
    shown
}

/// Adds why a hash tree is not read.
pub(crate) fn with_damaged_tree(mut shown: Shown, error: &Error) -> Shown {
    shown.set("hash_tree_error", "hash tree", error.message(), format!("not read: {}", error.message()));
    shown
}

/// The oldest Linux that mounts the image in a disk of so many bytes: from 6.4 on it finds the devices of an image behind it
/// on the same disk.
fn kernel(summary: &erofs::Summary, disk: u64) -> KernelVersion {
    let is_here = |of: &erofs::DeviceSummary| {
        let end = u64::from(of.start) + u64::from(of.blocks);
        of.start > 0 && end * u64::from(summary.block_size) <= disk
    };
    let has_all = !summary.devices.is_empty() && summary.devices.iter().all(is_here);
    if has_all { summary.kernel.max(KernelVersion { major: 6, minor: 4 }) } else { summary.kernel }
}

fn of_erofs(summary: &erofs::Summary, kernel: KernelVersion) -> Shown {
    let device = |device: &erofs::DeviceSummary| {
        json!({
            "tag": String::from_utf8_lossy(&device.tag),
            "start": device.start,
            "blocks": device.blocks,
        })
    };
    let image = summary.blocks.saturating_mul(summary.block_size.into());
    let time = json!({ "seconds": summary.time.seconds, "nanos": summary.time.nanos });
    let devices: Vec<Value> = summary.devices.iter().map(device).collect();
    let kernel = kernel.to_string();
    let mut shown = Shown::default();
    shown.set("format", "format", "erofs", "EROFS");
    shown.set("size", "size", summary.size, sizes(summary.size, image));
    shown.set("block_size", "block size", summary.block_size, summary.block_size);
    shown.set("blocks", "blocks", summary.blocks, summary.blocks);
    shown.set("inodes", "inodes", summary.inodes, summary.inodes);
    shown.set("features", "features", summary.features.clone(), words(&summary.features));
    shown.set("algorithms", "compression", summary.algorithms.clone(), words(&summary.algorithms));
    shown.set("kernel", "kernel", kernel.as_str(), format!("Linux {kernel} or later"));
    shown.set("time", "time", time, utc(summary.time));
    shown.set("uuid", "uuid", uuid(summary.uuid), uuid(summary.uuid));
    shown.set("label", "label", lossy(&summary.label), or_none(escaped(&summary.label)));
    shown.document["devices"] = devices.into();
    let row = |device: &erofs::DeviceSummary| {
        let size = Size(u64::from(device.blocks) * u64::from(summary.block_size)).to_string();
        [device.start.to_string(), device.blocks.to_string(), size, escaped(&device.tag)]
    };
    let rows: Vec<_> = summary.devices.iter().map(row).collect();
    if !rows.is_empty() {
        shown.table = format!("\n{}", table(["START", "BLOCKS", "SIZE", "DEVICE"], &rows));
    }
    shown
}

fn of_ext4(summary: &ext4::Summary) -> Shown {
    let block_size = u64::from(summary.block_size);
    let bytes = |blocks: u64| blocks.saturating_mul(block_size);
    let has_journal = summary.features.iter().any(|feature| feature == "has_journal");
    let journal = match (has_journal, summary.needs_recovery) {
        (_, true) => ("needs-recovery", "has to be replayed: the numbers above are of before"),
        (true, false) => ("clean", "clean"),
        (false, false) => ("none", "none"),
    };
    let state = match (summary.is_clean, summary.has_errors) {
        (true, _) => "clean",
        (false, true) => "with errors",
        (false, false) => "not unmounted",
    };
    let free = bytes(summary.free_blocks);
    let inodes = format!("{}, {} free, of {} bytes", summary.inodes, summary.free_inodes, summary.inode_size);
    let mut shown = Shown::default();
    shown.set("format", "format", "ext4", "ext4");
    shown.set("size", "size", summary.size, sizes(summary.size, bytes(summary.blocks)));
    shown.set("free_size", "free space", free, free_space(free, bytes(summary.reserved_blocks)));
    shown.set("block_size", "block size", summary.block_size, summary.block_size);
    shown.set(
        "blocks",
        "blocks",
        summary.blocks,
        format!("{}, {} free", summary.blocks, summary.free_blocks),
    );
    shown.set("inodes", "inodes", summary.inodes, inodes);
    shown.set("groups", "groups", summary.groups, summary.groups);
    shown.set("features", "features", summary.features.clone(), words(&summary.features));
    shown.set("uuid", "uuid", uuid(summary.uuid), uuid(summary.uuid));
    shown.set("label", "label", lossy(&summary.label), or_none(escaped(&summary.label)));
    shown.set("journal", "journal", journal.0, journal.1);
    shown.set("state", "state", state, state);
    shown.set("made", "made", summary.made.map(|time| time.seconds), when(summary.made));
    shown.set("mounted", "last mounted", summary.mounted.map(|time| time.seconds), last_mounted(summary));
    shown.set("written", "last written", summary.written.map(|time| time.seconds), when(summary.written));
    for (key, value) in [
        ("free_blocks", json!(summary.free_blocks)),
        ("reserved_blocks", json!(summary.reserved_blocks)),
        ("free_inodes", json!(summary.free_inodes)),
        ("inode_size", json!(summary.inode_size)),
        ("clean", json!(summary.is_clean)),
        ("errors", json!(summary.has_errors)),
        ("needs_recovery", json!(summary.needs_recovery)),
        ("mounted_on", json!(lossy(&summary.last_mounted))),
        ("mounts", json!(summary.mounts)),
    ] {
        shown.document[key] = value;
    }
    shown
}

fn free_space(free: u64, reserved: u64) -> String {
    match reserved {
        0 => Size(free).to_string(),
        kept => format!("{}, of which {} for the superuser", Size(free), Size(kept)),
    }
}

fn last_mounted(summary: &ext4::Summary) -> String {
    let place = match &*summary.last_mounted {
        [] => String::new(),
        path => format!(", at {}", escaped(path)),
    };
    match summary.mounts {
        0 => format!("{}{place}", when(summary.mounted)),
        1 => format!("{}{place}, once since it was checked", when(summary.mounted)),
        many => format!("{}{place}, {many} times since it was checked", when(summary.mounted)),
    }
}

fn when(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), utc)
}

/// The size of the file, the disk or the partition, and that of what is in it where that is another.
fn sizes(whole: u64, content: u64) -> String {
    if whole == content {
        return Size(whole).to_string();
    }
    format!("{} of {}", Size(content), Size(whole))
}

fn words(features: &[String]) -> String {
    or_none(features.join(" "))
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

pub(crate) fn uuid(bytes: [u8; 16]) -> String {
    Uuid::from_bytes(bytes).to_string()
}
