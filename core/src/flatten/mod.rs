//! An image as one tar: its layers stacked, whiteouts applied.
//!
//! Two passes over the layers, since a tar cannot say what a later layer takes away: the first keeps metadata
//! only, the second passes on the content that is still there. Memory holds the metadata, never content.
//!
//! The order is fixed, so the same layers give the same bytes (rule S 91): directories, parents first, missing
//! ones as 0755 root:root (S 87); regular files, bottom layer first, in the order of its tar; links, devices and
//! FIFOs; at last the further names of files, behind the first one that they link to (S 84).

use std::collections::BTreeMap;
use std::io::Write;

use crate::layer::{DataExtent, EntryKind, ImagePath, LayerTar};
use crate::tree::{Kind, LayerTree, LayerTreeBuilder, NodeId, Tree};
use crate::{Error, Result};

mod writer;

use writer::{Item, Runs, TarWriter};

/// Where a file's bytes lie: the entry of a layer that brought them.
#[derive(Clone, Debug)]
struct Content {
    layer: usize,
    entry: u64,
    extents: Option<Vec<DataExtent>>,
}

/// A layer's surviving files: their first names, by the number of their entry.
type Files = BTreeMap<u64, (ImagePath, NodeId)>;

/// Writes the image of `layers` layers, bottom first, to `out` as one tar. `open` starts a layer from its
/// beginning and is asked for each twice.
///
/// Ustar, with PAX records where that is too narrow; sparse files stay sparse (GNU format 1.0). After an error
/// what `out` got is no tar, and never looks like one: its end is missing.
///
/// # Contract
/// S 81 `flattened_tar_equals_overlay_of_layers`, S 83 `hardlink_to_overwritten_or_deleted_target`,
/// S 84 `hardlink_target_precedes_link_in_output`, S 87 `parent_dirs_before_children_or_synthesised`,
/// S 88 `file_replaces_dir_and_dir_replaces_file`, S 91 `tar_output_byte_reproducible`.
///
/// # Errors
/// Those of [`LayerTar`] and [`Tree::from_layers`]; [`Io`](crate::ErrorKind::Io) from `out`;
/// [`Corrupt`](crate::ErrorKind::Corrupt) when a layer's second reading is not like its first.
///
/// ```
/// use plyfold_core::layer::{LayerOptions, LayerTar};
///
/// let layers: [&'static [u8]; 2] = [&[0; 1024], &[]];
/// let mut out = Vec::new();
/// plyfold_core::flatten(2, |at| LayerTar::new(layers[at], LayerOptions::default()), &mut out)?;
/// assert_eq!(out.len(), 1536, "the root directory and the end");
/// # Ok::<(), plyfold_core::Error>(())
/// ```
pub fn flatten(layers: usize, open: impl Fn(usize) -> Result<LayerTar>, out: impl Write) -> Result<()> {
    let tree = Tree::from_layers((0..layers).map(|layer| metadata(layer, open(layer)?)))?;
    let mut files: Vec<Files> = vec![Files::new(); layers];
    let mut first_names: BTreeMap<NodeId, ImagePath> = BTreeMap::new();
    let (mut specials, mut links) = (Vec::new(), Vec::new());
    let mut tar = TarWriter::new(out);
    for (path, id) in tree.walk() {
        let node = tree.node(id);
        if let Kind::Directory(_) = node.kind {
            tar.header(&path, node, Item::Directory)?;
            continue;
        }
        if tree.links(id) > 1 {
            if first_names.contains_key(&id) {
                links.push((path, id));
                continue;
            }
            first_names.insert(id, path.clone());
        }
        match &node.kind {
            Kind::File { content, .. } => drop(files[content.layer].insert(content.entry, (path, id))),
            _ => specials.push((path, id)),
        }
    }
    for (layer, files) in files.into_iter().enumerate().filter(|(_, files)| !files.is_empty()) {
        copy_files(&mut tar, &tree, files, open(layer)?)?;
    }
    for (path, id) in specials {
        let node = tree.node(id);
        tar.header(
            &path,
            node,
            match &node.kind {
                Kind::BlockDevice { major, minor } => Item::BlockDevice(*major, *minor),
                Kind::CharDevice { major, minor } => Item::CharDevice(*major, *minor),
                Kind::Fifo => Item::Fifo,
                Kind::Symlink { target } => Item::Symlink(target),
                // No tar has sockets, so none came in by one; the others were dealt with above.
                Kind::Directory(_) | Kind::File { .. } | Kind::Socket => continue,
            },
        )?;
    }
    for (path, id) in links {
        if let Some(target) = first_names.get(&id) {
            tar.header(&path, tree.node(id), Item::HardLink(target.as_bytes()))?;
        }
    }
    tar.end()
}

/// The first pass over a layer, to its verified end.
fn metadata(layer: usize, mut tar: LayerTar) -> Result<LayerTree<Content>> {
    let mut builder = LayerTreeBuilder::new();
    let mut number = 0;
    while let Some(entry) = tar.next_entry()? {
        let content = |_, extents: Option<&[DataExtent]>| {
            Ok(Content { layer, entry: number, extents: extents.map(<[DataExtent]>::to_vec) })
        };
        builder.insert(entry, content)?;
        number += 1;
    }
    tar.finish()?;
    builder.finish()
}

/// The second pass over a layer: the files that are still there.
fn copy_files(
    out: &mut TarWriter<impl Write>,
    tree: &Tree<Content>,
    mut files: Files,
    mut tar: LayerTar,
) -> Result<()> {
    let changed = || Error::corrupt("a layer changed between two readings");
    let mut number = 0;
    while let Some(entry) = tar.next_entry()? {
        let Some((path, id)) = files.remove(&number) else {
            number += 1;
            continue;
        };
        number += 1;
        let node = tree.node(id);
        let (Kind::File { size, content }, EntryKind::File { size: again, extents }) =
            (&node.kind, entry.kind)
        else {
            return Err(changed());
        };
        if again != *size || extents != content.extents {
            return Err(changed());
        }
        let whole = [DataExtent { offset: 0, length: *size }];
        let runs = Runs::new(*size, extents.as_deref().unwrap_or(&whole));
        out.header(&path, node, Item::File { size: *size, runs: extents.is_some().then_some(&runs) })?;
        for (zeros, mut length) in runs.pieces {
            out.zeros(zeros)?;
            while length > 0 {
                let bytes = tar.data()?;
                let count = bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX));
                if count == 0 {
                    return Err(changed());
                }
                out.data(&bytes[..count])?;
                tar.consume(count);
                length -= count as u64;
            }
        }
        out.pad()?;
    }
    tar.finish()?;
    if files.is_empty() { Ok(()) } else { Err(changed()) }
}
