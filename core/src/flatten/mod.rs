//! An image as one tar: its layers stacked, whiteouts applied.
//!
//! The order is fixed, and what is written depends on the image alone, not on where its content lies: every name, a
//! directory before what is in it, siblings in the order of their names' bytes (S 87); a file with several names is a
//! hard link at all but the first of them (S 84). A run of 1 MiB of zeros or more, from a multiple of 4,096 on, is a hole,
//! however the layer's tar has it.

use std::io::BufWriter;

use crate::Result;
use crate::range_write::RangeWrite;
use crate::tar_out::TarOut;
use crate::tree::{Kind, MergedTree, NodeId, Places};

mod holes;
mod writer;

use holes::data_of;
use writer::{Item, header};

/// Bytes of headers and small files that are written at once.
const BUFFER: usize = 256 << 10;

/// Writes an image to `out` as one tar. Content is copied where it lies, so no layer is read.
///
/// Ustar, with PAX records where that is too narrow; sparse files are of GNU format 1.0. After an error, which may
/// be that content was [changed](MergedTree::check_unchanged) meanwhile, the bytes in `out` are not a complete tar: the
/// end-of-archive blocks are missing.
///
/// Read the image by [`MergedTree::with_every_xattr`]: the tar has the attributes that the tree has.
///
/// # Contract
/// S 81 `flattened_tar_equals_overlay_of_layers`, S 83 `hardlink_to_overwritten_or_deleted_target`,
/// S 84 `hardlink_target_precedes_link_in_output`, S 87 `parent_dirs_before_children_or_synthesised`,
/// S 88 `file_replaces_dir_and_dir_replaces_file`.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) of the content and of `out`; those of [`MergedTree::check_unchanged`].
///
/// ```
/// use plyfold_core::layer::{LayerOptions, LayerTar, TreeLimits};
/// use plyfold_core::tree::MergedTree;
///
/// let scratch = tempfile::tempdir()?;
/// let layer = LayerTar::new(&[0; 1024][..], LayerOptions::default())?;
/// let image = MergedTree::with_every_xattr([Ok(layer.into())], TreeLimits::default(), scratch.path())?;
/// let mut out = Vec::new();
/// plyfold_core::flatten(&image, &mut out)?;
/// assert_eq!(out.len(), 1536, "the root directory and the end");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn flatten(image: &MergedTree, out: &mut dyn RangeWrite) -> Result<()> {
    let tree = image.tree();
    let mut first = Places::new(tree);
    let mut tar = TarOut::new(BufWriter::with_capacity(BUFFER, out));
    let mut walk = tree.walk();
    while let Some((place, id)) = walk.step() {
        let node = tree.node(id);
        if let Some(target) = first.get(id) {
            let target = tree.path(target, |directory| first.get(directory));
            header(&mut tar, &walk.path(), node, Item::HardLink(target.as_bytes()))?;
            continue;
        }
        // Of others no second name comes, and none below them.
        if let Some(place) = place
            && (node.directory().is_some() || tree.links(id) > 1)
        {
            first.set(id, place);
        }
        match &node.kind {
            // No tar has sockets, so none came in by one.
            Kind::Socket => {}
            Kind::File { size, .. } => {
                let runs = data_of(image, id, *size)?;
                header(&mut tar, &walk.path(), node, Item::Node(runs.as_deref()))?;
                copy(&mut tar, image, id, runs.as_deref().unwrap_or(&[(0, *size)]))?;
            }
            _ => header(&mut tar, &walk.path(), node, Item::Node(None))?,
        }
    }
    image.check_unchanged()?;
    tar.end()
}

/// The data of a file.
fn copy(
    tar: &mut TarOut<BufWriter<&mut dyn RangeWrite>>,
    image: &MergedTree,
    id: NodeId,
    runs: &[(u64, u64)],
) -> Result<()> {
    for (offset, length) in runs {
        tar.data_by(*length, |out| image.copy_to(id, *offset, *length, out))?;
    }
    tar.pad()
}
