//! `inspect` of a directory that has disks of an image.

use std::path::Path;

use crate::snapshot::Process;
use crate::{Digest, DiskSet, Error, Result, printable, shell};

use super::args::Inspect;
use super::disks_document::{disks_document_there, state};
use super::materialize::{files_text, usage_text};
use super::progress::short;
use super::terminal::Terminal;

/// Shows which image the disks are of, what each is, and how they are mounted and booted.
pub(crate) fn show(folder: &Path, options: &Inspect, terminal: Terminal) -> Result<()> {
    if options.raw {
        let error = Error::config("--raw writes the manifest of an image, and a directory of disks has none");
        return Err(error.with_context("path", folder.display()));
    }
    let set = DiskSet::open_incomplete(folder)?;
    let document = disks_document_there(&set.disks, &set.image, &set.missing);
    terminal.show(&document, || text(&set, options.no_trunc))?;
    set.check_complete()
}

fn text(set: &DiskSet, no_trunc: bool) -> String {
    let image = &set.image;
    let digest = |id: &Digest| if no_trunc { id.to_string() } else { short(id).to_owned() };
    let mut lines = vec![
        ("image", image.reference.clone()),
        ("manifest", digest(&image.digest)),
        ("platform", image.platform.clone()),
    ];
    lines.extend(image.process.as_ref().map(|process| ("command", command(process))));
    let lines = lines.into_iter().map(|(name, value)| format!("{name:<12}  {}\n", printable(&value)));
    let files = files_text(&set.disks, |index| {
        let disk = &set.disks.files[index];
        let layer = disk.diff_id.as_ref();
        let layer = layer.map(digest);
        let state = state(disk);
        let parts = [
            Some(format!("  {}", disk.format)),
            layer.map(|id| format!("diff_id {id}")),
            disk.writable.then(|| "guests write to it".to_owned()),
            state.map(str::to_owned),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    });
    let use_of = if set.missing.is_empty() { usage_text(&set.disks) } else { String::new() };
    lines.collect::<String>() + "\n" + &files + &use_of
}

/// The words of a shell.
fn command(process: &Process) -> String {
    let words: Vec<String> = process.args.iter().map(|word| shell::word(word)).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(" ") }
}
