//! Disks of an image as JSON: the same fields in every verb.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::block_sums::Checksum;
use crate::disk_file::DiskBytes;
use crate::materializers::ext4::Summary;
use crate::snapshot::SnapshotImage;
use crate::{Digest, Disk, Disks, HashedPartition, Role, VerifiedFile};
use serde::Serialize;
use serde_json::{Value, json};

use super::hash_tree::TreeDocument;
use super::hints;

/// A file. What it does not have is null.
#[derive(Serialize)]
struct FileDocument<'a> {
    path: String,
    role: Role,
    format: &'a str,
    key: &'a str,
    /// Of one that is missing it is not known.
    size: Option<u64>,
    checksum: Option<Checksum>,
    diff_id: Option<&'a Digest>,
    writable: bool,
    /// Of a disk that guests write to, and of one that is missing.
    state: Option<&'static str>,
    hash_tree: Option<TreeDocument>,
    partitions: Vec<PartitionDocument<'a>>,
}

/// A partition whose image has a hash tree.
#[derive(Serialize)]
struct PartitionDocument<'a> {
    name: &'a str,
    diff_id: Option<&'a Digest>,
    number: u32,
    start: u64,
    size: u64,
    hash_tree: TreeDocument,
}

impl<'a> FileDocument<'a> {
    fn of(disk: &'a Disk, trees: &[VerifiedFile<'_>], missing: &[PathBuf]) -> Self {
        let is_missing = missing.contains(&disk.path);
        let tree = trees.iter().find(|tree| tree.disk == disk);
        let bytes = (!disk.partitions.is_empty()).then(|| DiskBytes::open(&disk.path).ok()).flatten();
        let partition = |of: &'a HashedPartition| PartitionDocument {
            name: &of.name,
            diff_id: of.diff_id.as_ref(),
            number: of.image.number,
            start: of.image.start,
            size: of.image.size,
            hash_tree: TreeDocument::of_partition(of, &disk.path, bytes.as_ref()),
        };
        Self {
            path: shown(&disk.path),
            role: disk.role,
            format: &disk.format,
            key: &disk.key,
            size: (!is_missing).then_some(disk.size),
            checksum: disk.checksum,
            diff_id: disk.diff_id.as_ref(),
            writable: disk.writable,
            state: if is_missing { Some("missing") } else { state(disk) },
            hash_tree: tree.map(TreeDocument::of_file),
            partitions: disk.partitions.iter().map(partition).collect(),
        }
    }
}

/// JSON has no paths that are not UTF-8.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// What is to be said of a disk that guests write to.
pub(crate) fn state(disk: &Disk) -> Option<&'static str> {
    let file = disk.writable.then(|| File::open(&disk.path).ok()).flatten()?;
    let Ok(found) = Summary::read(file) else { return Some("no sound ext4 file system") };
    Some(match (found.is_clean, found.needs_recovery) {
        _ if found.blocks.saturating_mul(found.block_size.into()) > disk.size => {
            "shorter than its file system"
        }
        (_, true) => "the journal has to be replayed",
        (true, false) => "clean",
        (false, false) => "not clean",
    })
}

/// What disks are, as JSON.
pub(crate) fn disks_document(disks: &Disks) -> Value {
    document(disks, &[])
}

/// The same without what needs those that are missing.
fn document(disks: &Disks, missing: &[PathBuf]) -> Value {
    let is_complete = missing.is_empty();
    let examples = disks.overlay_differences.examples.iter();
    let examples: Vec<Value> = examples
        .map(|found| json!({ "path": found.path.to_string(), "shown": found.fault.to_string() }))
        .collect();
    let path = |path: &Option<_>| path.as_deref().map(shown);
    let trees: Vec<VerifiedFile> = disks.verified().collect();
    let mount = (is_complete && disks.is_mountable()).then(|| disks.mount_script());
    let is_mounted = mount.as_ref().is_some_and(Result::is_ok);
    let refusal = mount.as_ref().and_then(|script| script.as_ref().err());
    json!({
        "files": disks.files.iter().map(|disk| FileDocument::of(disk, &trees, missing)).collect::<Vec<_>>(),
        "kernel": disks.kernel,
        "notes": disks.notes,
        "layers": disks.layers.iter().map(|path| shown(path)).collect::<Vec<_>>(),
        "ext4": path(&disks.ext4),
        "flat": path(&disks.flat),
        "merged": path(&disks.merged),
        "vmdk": path(&disks.vmdk),
        "partitions": path(&disks.partitions),
        "raw": path(&disks.raw),
        "gpt": path(&disks.gpt),
        "upper": path(&disks.upper),
        "mount_refused": refusal.map(hints::on_one_line),
        "mount": mount.and_then(Result::ok),
        "mount_verified": disks.verified_mount_script().filter(|_| is_complete),
        "unmount": is_mounted.then(|| disks.unmount_script()),
        "boot": is_complete.then(|| disks.boot_lines().map(Value::from_iter)).flatten(),
        "overlay_differences": {
            "count": disks.overlay_differences.count,
            "examples": examples,
        },
    })
}

/// The same of disks that were made before: what overlayfs shows otherwise of layers is not looked for again.
pub(crate) fn disks_document_there(disks: &Disks, image: &SnapshotImage, missing: &[PathBuf]) -> Value {
    let mut document = document(disks, missing);
    if !disks.layers.is_empty() {
        document["overlay_differences"] = Value::Null;
    }
    document["image"] = json!({
        "reference": image.reference,
        "manifest": image.digest,
        "platform": image.platform,
        "process": image.process,
    });
    document
}
