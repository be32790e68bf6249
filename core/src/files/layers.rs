//! Files of an image, out of its layers as they are asked for.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::layer::{DataExtent, EntryKind, FileKind, LayerTar, TreeLimits};
use crate::tree::{HeapSize, Kind, LayerTree, LayerTreeBuilder, NodeId, Tree};
use crate::{Error, Result};

use super::tree::TreeFiles;

/// Zeros of a hole that are handed over at once.
const ZEROS: [u8; 4096] = [0; 4096];

/// Where a file's bytes lie: the entry of a layer that brought them.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct TarPlace {
    layer: u32,
    entry: u32,
    /// A fingerprint of the runs of data: it differs only if the layer changed between two readings.
    extents: u64,
}

impl HeapSize for TarPlace {
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// The files of an image: names and metadata are held in memory, within the [`TreeLimits`] of the layers, and a file's
/// bytes are read from its layer when they are asked for. No file is written.
///
/// ```
/// use plyfold_core::files::{Files as _, LayerFiles};
/// use plyfold_core::layer::{LayerOptions, LayerTar};
///
/// let mut header = tar::Header::new_ustar();
/// header.set_path("etc/hello")?;
/// header.set_mode(0o644);
/// header.set_size(5);
/// header.set_cksum();
/// let mut layer = tar::Builder::new(Vec::new());
/// layer.append(&header, &b"world"[..])?;
/// let layer = layer.into_inner()?;
///
/// let open = |_| LayerTar::new(std::io::Cursor::new(layer.clone()), LayerOptions::default());
/// let mut files = LayerFiles::new(1, open)?;
/// assert_eq!(files.list(b"/etc")?[0].name, b"hello");
/// let mut content = Vec::new();
/// files.read(b"etc/hello", &mut |bytes| Ok(content.extend_from_slice(bytes)))?;
/// assert_eq!(content, b"world");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LayerFiles<O> {
    tree: Tree<TarPlace>,
    open: O,
}

impl<O: Fn(usize) -> Result<LayerTar>> LayerFiles<O> {
    /// The files of `layers` layers, bottom first, each read to its verified end. `open` starts a layer from its
    /// beginning, and is asked for it again when a file of it is read. Waits for layers, so it is for a thread that may
    /// wait.
    ///
    /// # Errors
    /// Those of [`LayerTar`] and [`Tree::from_layers`].
    pub fn new(layers: usize, open: O) -> Result<Self> {
        Ok(Self { tree: stacked(layers, &open)?, open })
    }
}

impl<O: Fn(usize) -> Result<LayerTar>> TreeFiles for LayerFiles<O> {
    type Content = TarPlace;

    fn tree(&self) -> &Tree<TarPlace> {
        &self.tree
    }

    /// The layer is read again, to its verified end.
    fn copy(&mut self, id: NodeId, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let Kind::File { size, content } = &self.tree.node(id).kind else { return Ok(()) };
        let changed = || Error::corrupt("a layer changed between two readings");
        let mut tar = (self.open)(content.layer as usize)?;
        let mut entry = None;
        for _ in 0..=content.entry {
            entry = tar.next_entry()?;
        }
        let kind = entry.map(|entry| entry.kind);
        let Some(EntryKind::Node(FileKind::File { size: again, content: extents })) = kind else {
            return Err(changed());
        };
        if again != *size || fingerprint(extents.as_deref()) != content.extents {
            return Err(changed());
        }
        let whole = [DataExtent { offset: 0, length: *size }];
        let mut at = 0;
        for extent in extents.as_deref().unwrap_or(&whole) {
            zeros(extent.offset - at, take)?;
            tar.copy_data(extent.length, &mut *take)?;
            at = extent.offset + extent.length;
        }
        zeros(size - at, take)?;
        tar.finish().map(drop)
    }
}

impl<O> fmt::Debug for LayerFiles<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerFiles").field("tree", &self.tree).finish_non_exhaustive()
    }
}

fn zeros(mut count: u64, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    while count > 0 {
        let piece = count.min(ZEROS.len() as u64);
        take(&ZEROS[..piece as usize])?;
        count -= piece;
    }
    Ok(())
}

/// The image of layers, each read to its verified end. It may take as much memory as a layer.
fn stacked(layers: usize, open: &impl Fn(usize) -> Result<LayerTar>) -> Result<Tree<TarPlace>> {
    let first = if layers == 0 { None } else { Some(open(0)?) };
    let limits = first.as_ref().map_or_else(TreeLimits::default, |tar| tar.limits().tree.clone());
    let mut first = first.into_iter();
    let trees = (0..layers).map(|layer| metadata(layer, first.next().map_or_else(|| open(layer), Ok)?));
    Tree::from_layers_within(trees, limits)
}

/// What a layer says, its files' bytes apart.
fn metadata(layer: usize, mut tar: LayerTar) -> Result<LayerTree<TarPlace>> {
    let counted =
        |number: usize| u32::try_from(number).map_err(|_| Error::limit("more than 2^32 layers or entries"));
    let layer = counted(layer)?;
    let mut builder = LayerTreeBuilder::within(tar.limits().tree.clone());
    let mut number = 0;
    while let Some(entry) = tar.next_entry()? {
        let entry_number = counted(number)?;
        builder.insert(entry, |_, extents: Option<&[DataExtent]>| {
            Ok(TarPlace { layer, entry: entry_number, extents: fingerprint(extents) })
        })?;
        number += 1;
    }
    tar.finish()?;
    builder.finish()
}

/// 0 for a file without holes.
fn fingerprint(extents: Option<&[DataExtent]>) -> u64 {
    extents.map_or(0, |extents| {
        let mut hasher = DefaultHasher::new();
        for extent in extents {
            (extent.offset, extent.length).hash(&mut hasher);
        }
        hasher.finish() | 1
    })
}
