//! Mutants of how layers are read and stacked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use plyfold_conformance::tree::{LayerEntry, read_layer};
use plyfold_conformance::{Client, CoreClient};
use plyfold_core::layer::{Entry, EntryKind, FileKind, ImagePath, LayerOptions, LayerTar, Metadata};
use plyfold_core::{BlobRange, Error, ErrorKind, ImageSource, ImageSourceExt, Result};

use super::base::Fault;

/// A layer as the mutant reads it.
pub(super) async fn broken(fault: Fault, source: &dyn ImageSource, index: usize) -> Result<Vec<LayerEntry>> {
    match fault {
        Fault::DiffIdIgnored => return without_diff_id(source, index).await,
        Fault::MediaTypeTrusted => check_type(source, index).await?,
        _ => {}
    }
    let entries = match CoreClient.layer(source, index).await {
        Err(e) if fault == Fault::ErrorsEndTheLayer && *e.kind() == ErrorKind::Corrupt => Vec::new(),
        outcome => outcome?,
    };
    Ok(match fault {
        Fault::ForwardLinksLost => without_forward_links(entries),
        Fault::HardLinksCopied => copied_links(entries),
        Fault::LinksLast => {
            let is_link = |item: &LayerEntry| matches!(item.entry.kind, EntryKind::HardLink { .. });
            let (links, mut rest): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_link);
            rest.extend(links);
            rest
        }
        Fault::ParentsForced => entries.into_iter().flat_map(with_parents).collect(),
        Fault::WhiteoutsByOrder => hidden_by_order(entries),
        Fault::WhiteoutsLast => {
            let (marks, mut rest): (Vec<_>, Vec<_>) =
                entries.into_iter().partition(|entry| hidden(&entry.entry).is_some());
            rest.extend(marks);
            rest
        }
        Fault::WhiteoutsIgnored => {
            entries.into_iter().filter(|entry| hidden(&entry.entry).is_none()).collect()
        }
        Fault::XattrsLost => entries.into_iter().map(without_xattrs).collect(),
        _ => entries,
    })
}

/// Drops what has another kind than the same name in a lower layer.
pub(super) fn keep_first_kinds(layers: &mut [Vec<LayerEntry>]) {
    let mut kinds: HashMap<ImagePath, bool> = HashMap::new();
    for layer in layers {
        layer.retain(|LayerEntry { entry, .. }| {
            let directory = entry.kind == EntryKind::Node(FileKind::Directory(()));
            *kinds.entry(entry.path.clone()).or_insert(directory) == directory
        });
    }
}

/// The entries of a tar of plain headers and PAX records, last first.
pub(super) fn reversed(tar: &[u8]) -> Vec<u8> {
    let (mut entries, mut start, mut at) = (Vec::new(), 0, 0);
    while tar[at] != 0 {
        let size = std::str::from_utf8(&tar[at + 124..at + 135]).unwrap();
        let size = usize::from_str_radix(size.trim_matches(['\0', ' ']), 8).unwrap();
        let extension = tar[at + 156] == b'x';
        at += 512 + size.next_multiple_of(512);
        if !extension {
            entries.push(&tar[start..at]);
            start = at;
        }
    }
    entries.reverse();
    [entries.concat(), tar[at..].to_vec()].concat()
}

/// The tar with a number of zero blocks at its end that differs from run to run.
pub(super) fn padded(mut tar: Vec<u8>) -> Vec<u8> {
    static RUN: AtomicUsize = AtomicUsize::new(0);
    tar.resize(tar.len() + 512 * RUN.fetch_add(1, Ordering::SeqCst), 0);
    tar
}

async fn without_diff_id(source: &dyn ImageSource, index: usize) -> Result<Vec<LayerEntry>> {
    let blob = source.blob(&source.layers()?[index], BlobRange::FULL).await?;
    let mut tar = LayerTar::new(blob.into_reader(), LayerOptions::default())?;
    tokio::task::spawn_blocking(move || read_layer(&mut tar)).await.unwrap()
}

async fn check_type(source: &dyn ImageSource, index: usize) -> Result<()> {
    let layer = &source.layers()?[index];
    let content = source.blob(layer, BlobRange::FULL).await?.bytes(u64::MAX).await?;
    let declared = layer.media_type().to_string();
    let gzip = content.starts_with(&[0x1f, 0x8b]);
    if declared.ends_with("gzip") == gzip { Ok(()) } else { Err(Error::corrupt("not of its declared type")) }
}

fn without_forward_links(entries: Vec<LayerEntry>) -> Vec<LayerEntry> {
    let mut seen = Vec::new();
    let mut kept = entries;
    kept.retain(|LayerEntry { entry, .. }| {
        seen.push(entry.path.clone());
        !matches!(&entry.kind, EntryKind::HardLink { target } if !seen.contains(target))
    });
    kept
}

/// Every hard link becomes a copy of what its target's name ends up with.
fn copied_links(mut entries: Vec<LayerEntry>) -> Vec<LayerEntry> {
    let last: HashMap<_, _> = entries.iter().map(|item| (item.entry.path.clone(), item.clone())).collect();
    for item in &mut entries {
        if let EntryKind::HardLink { target } = &item.entry.kind
            && let Some(file) = last.get(target)
        {
            item.entry.kind = file.entry.kind.clone();
            item.content.clone_from(&file.content);
        }
    }
    entries
}

fn with_parents(item: LayerEntry) -> Vec<LayerEntry> {
    let mut items = Vec::new();
    let mut path = ImagePath::ROOT;
    let depth = item.entry.path.components().count();
    for component in item.entry.path.components().take(depth.saturating_sub(1)) {
        path = path.join(component);
        let metadata = Metadata { mode: 0o777, ..Metadata::default() };
        let entry = Entry { path: path.clone(), kind: EntryKind::Node(FileKind::Directory(())), metadata };
        items.push(LayerEntry { entry, content: String::new() });
    }
    items.push(item);
    items
}

/// A whiteout also hides what its own layer had before it.
fn hidden_by_order(entries: Vec<LayerEntry>) -> Vec<LayerEntry> {
    let mut kept: Vec<LayerEntry> = Vec::new();
    for item in entries {
        if let Some(name) = hidden(&item.entry) {
            kept.retain(|other| !other.entry.path.as_bytes().starts_with(&name));
        }
        kept.push(item);
    }
    kept
}

/// The name that a whiteout hides.
fn hidden(entry: &Entry) -> Option<Vec<u8>> {
    let name = entry.path.name().strip_prefix(b".wh.")?;
    let parent = &entry.path.as_bytes()[..entry.path.as_bytes().len() - entry.path.name().len()];
    Some([parent, name].concat())
}

fn without_xattrs(mut item: LayerEntry) -> LayerEntry {
    item.entry.metadata.xattrs.clear();
    item
}
