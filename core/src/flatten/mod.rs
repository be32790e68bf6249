//! An image as one tar: its layers stacked, whiteouts applied.
//!
//! Two passes over the layers, since a tar cannot say what a later layer removes: the first keeps metadata
//! only, the second passes on the content that is still there. Memory holds the metadata, never content, within the
//! [`TreeLimits`] of the layers.
//!
//! The order is fixed, so the same layers give the same bytes: directories, parents first, missing
//! ones as 0755 root:root (S 87); regular files, bottom layer first, in the order of its tar; links, devices and
//! FIFOs; at last the further names of files, behind the first one that they link to (S 84).

use std::io::Write;

use crate::files::{TarPlace, fingerprint, stacked};
use crate::layer::{DataExtent, EntryKind, FileKind, ImagePath, LayerTar};
use crate::tar_out::TarOut;
use crate::tree::{Kind, NodeId, Place, Tree};
use crate::{Error, Result};

mod writer;

use writer::{Item, Runs, header, zeros};

/// The first name of every file of an image, by its node.
struct FirstNames(Vec<Option<Place>>);

impl FirstNames {
    fn path(&self, tree: &Tree<TarPlace>, id: NodeId) -> ImagePath {
        match self.0[id.index()] {
            Some(place) => tree.path(place, |directory| self.0[directory.index()]),
            None => ImagePath::ROOT,
        }
    }
}

/// Writes the image of `layers` layers, bottom first, to `out` as one tar. `open` starts a layer from its
/// beginning and is asked for each twice.
///
/// Ustar, with PAX records where that is too narrow; sparse files stay sparse (GNU format 1.0). After an error
/// the bytes in `out` are not a complete tar: the end-of-archive blocks are missing.
///
/// # Contract
/// S 81 `flattened_tar_equals_overlay_of_layers`, S 83 `hardlink_to_overwritten_or_deleted_target`,
/// S 84 `hardlink_target_precedes_link_in_output`, S 87 `parent_dirs_before_children_or_synthesised`,
/// S 88 `file_replaces_dir_and_dir_replaces_file`.
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
    let tree = stacked(layers, &open)?;
    let mut names = FirstNames(vec![None; tree.capacity()]);
    let (mut files, mut specials, mut links) = (Vec::new(), Vec::new(), Vec::new());
    let mut tar = TarOut::new(out);
    let mut walk = tree.walk();
    while let Some((place, id)) = walk.step() {
        let node = tree.node(id);
        if names.0[id.index()].is_some() {
            links.extend(place.map(|place| (place, id)));
            continue;
        }
        names.0[id.index()] = place;
        match &node.kind {
            Kind::Directory(_) => header(&mut tar, &walk.path(), node, Item::Node(None))?,
            Kind::File { content, .. } => files.push((*content, id)),
            // No tar has sockets, so none came in by one.
            Kind::Socket => {}
            _ => specials.push(id),
        }
    }
    files.sort_unstable();
    for files in files.chunk_by(|(one, _), (other, _)| one.layer == other.layer) {
        let layer = files.first().map_or(0, |(content, _)| content.layer as usize);
        copy_files(&mut tar, &tree, &names, files, open(layer)?)?;
    }
    for id in specials {
        header(&mut tar, &names.path(&tree, id), tree.node(id), Item::Node(None))?;
    }
    for (place, id) in links {
        let path = tree.path(place, |directory| names.0[directory.index()]);
        let target = names.path(&tree, id);
        header(&mut tar, &path, tree.node(id), Item::HardLink(target.as_bytes()))?;
    }
    tar.end()
}

/// The second pass over a layer: the files that are still there, in the order of their entries.
fn copy_files(
    out: &mut TarOut<impl Write>,
    tree: &Tree<TarPlace>,
    names: &FirstNames,
    files: &[(TarPlace, NodeId)],
    mut tar: LayerTar,
) -> Result<()> {
    let changed = || Error::corrupt("a layer changed between the two passes");
    let mut files = files.iter().peekable();
    let mut number = 0;
    while let Some(entry) = tar.next_entry()? {
        let wanted = files.next_if(|(content, _)| u64::from(content.entry) == number);
        number += 1;
        let Some((content, id)) = wanted else { continue };
        let node = tree.node(*id);
        let (Kind::File { size, .. }, EntryKind::Node(FileKind::File { size: again, content: extents })) =
            (&node.kind, entry.kind)
        else {
            return Err(changed());
        };
        if again != *size || fingerprint(extents.as_deref()) != content.extents {
            return Err(changed());
        }
        let whole = [DataExtent { offset: 0, length: *size }];
        let runs = Runs::new(*size, extents.as_deref().unwrap_or(&whole));
        let path = names.path(tree, *id);
        header(out, &path, node, Item::Node(extents.is_some().then_some(&runs)))?;
        for (gap, length) in runs.pieces {
            zeros(out, gap)?;
            tar.copy_data(length, |bytes| out.data(bytes))?;
        }
        out.pad()?;
    }
    tar.finish()?;
    if files.next().is_none() { Ok(()) } else { Err(changed()) }
}
