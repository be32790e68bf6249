//! `inspect` of a directory that has disks of an image.

use std::fs::File;
use std::path::Path;

use crate::materializers::ext4::Summary;
use crate::snapshot::{Process, SetFile};
use crate::{Disk, DiskSet, Error, Result, printable, shell};
use serde_json::{Value, json};

use super::args::Inspect;
use super::materialize::{disks_document_there, disks_text};
use super::progress::short;
use super::terminal::Terminal;

/// Shows which image the disks are of, what each is, and how they are mounted and booted.
pub(crate) fn show(folder: &Path, options: &Inspect, terminal: Terminal) -> Result<()> {
    if options.raw {
        let error = Error::config("--raw writes the manifest of an image, and a directory of disks has none");
        return Err(error.with_context("path", folder.display()));
    }
    let set = DiskSet::open(folder)?;
    terminal.show(&document(&set), || text(&set, options.no_trunc))
}

fn document(set: &DiskSet) -> Value {
    let mut document = disks_document_there(&set.disks);
    for (at, (record, disk)) in set.records.iter().zip(&set.disks.files).enumerate() {
        let file = &mut document["files"][at];
        file["key"] = record.key.clone().into();
        file["diff_id"] = json!(record.diff_id);
        file["digest"] = json!(record.digest);
        file["writable"] = record.writable.into();
        file["state"] = state(record, disk).into();
    }
    let image = &set.image;
    document["image"] = json!({
        "reference": image.reference,
        "manifest": image.digest,
        "platform": image.platform,
        "process": image.process,
    });
    document
}

fn text(set: &DiskSet, no_trunc: bool) -> String {
    let image = &set.image;
    let mut lines = vec![
        ("image", image.reference.clone()),
        ("manifest", image.digest.to_string()),
        ("platform", image.platform.clone()),
    ];
    lines.extend(image.process.as_ref().map(|process| ("command", command(process))));
    let lines = lines.into_iter().map(|(name, value)| format!("{name:<12}  {}\n", printable(&value)));
    let files = disks_text(&set.disks, |index| {
        let (record, disk) = (&set.records[index], &set.disks.files[index]);
        let layer = record.diff_id.as_ref();
        let layer = layer.map(|id| if no_trunc { id.to_string() } else { short(id).to_owned() });
        let state = state(record, disk);
        let parts = [
            Some(format!("  {}", record.format)),
            layer.map(|id| format!("diff_id {id}")),
            record.writable.then(|| "guests write to it".to_owned()),
            state.map(str::to_owned),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    });
    lines.collect::<String>() + "\n" + &files
}

/// The words of a shell.
fn command(process: &Process) -> String {
    let words: Vec<String> = process.args.iter().map(|word| shell::word(word)).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(" ") }
}

/// What is to be said of a disk that guests write to.
fn state(record: &SetFile, disk: &Disk) -> Option<&'static str> {
    let file = record.writable.then(|| File::open(&disk.path).ok()).flatten()?;
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
