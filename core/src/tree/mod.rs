//! The metadata tree of a root file system: what a layer says ([`LayerTree`]), and what an image is once its
//! layers are stacked ([`Tree`]).
//!
//! The tree holds names, kinds, owners, times and xattrs; where a file's bytes lie is the parameter `C`, so one
//! tree serves every format: blocks of an EROFS image, offsets in a spool file, extents on a disk. A [`MergedTree`] is
//! the tree of a whole image with the bytes of its files: what most formats are written from.
//!
//! ```
//! use plyfold_core::layer::{Entry, EntryKind, FileKind, ImagePath, Metadata};
//! use plyfold_core::tree::{LayerTreeBuilder, Tree};
//!
//! let mut layer = LayerTreeBuilder::<()>::new();
//! let kind = EntryKind::Node(FileKind::Symlink { target: b"usr/lib"[..].into() });
//! let metadata = Metadata { mode: 0o777, ..Metadata::default() };
//! layer.insert(Entry { path: ImagePath::ROOT.join(b"lib"), kind, metadata }, |_, _| Ok(()))?;
//!
//! let image = Tree::from_layers([layer.finish()])?;
//! for (path, id) in image.walk() {
//!     println!("{path} {:o}", image.node(id).mode);
//! }
//! # Ok::<(), plyfold_core::Error>(())
//! ```
//!
//! # Rules
//!
//! Within one layer, where tools differ, these hold:
//!
//! - The last entry of a name wins. A directory over a directory keeps the children and takes the new metadata;
//!   any other replacement drops what was there. A directory that replaces something else is opaque, as it would
//!   be after an extraction in order.
//! - A parent without an entry is 0755 root:root with time 0, and *implied*: it neither replaces what a lower
//!   layer has under that name nor its metadata.
//! - An entry whose parent is a symbolic link stands where the link points, inside the image (`..` stops at the
//!   root); missing directories on the way are implied. More than 40 links on the way are an error, and so is a
//!   path that they make longer than 4,096 bytes.
//! - An entry whose parent is any other kind of file turns that file into an implied, opaque directory.
//! - A whiteout, and a character device 0:0, hides what *lower* layers have under the name, never an entry of
//!   its own layer, wherever it stands in the tar. `.wh.d` and `d/` in one layer: `d` is opaque.
//! - The parent of a whiteout or of an opaque mark is found when the mark is read, as by every extractor: a
//!   symbolic link is followed only if it stands before the mark.
//! - A hard link takes the file that its target names when the link is read: the layer's own, if that stands before
//!   the link, else a lower layer's, before this layer's changes ([`LowerLink`]). A target that no lower layer has
//!   and that the layer itself brings later is found, too. Its own metadata is ignored, as by `tar`. A link to
//!   itself, to a directory or to a whiteout is an error. If the layer has hidden the lower file before
//!   the link, by a whiteout, an opaque mark or another file in its place, that is an error, as for every extractor.
//!
//! Between layers ([`Tree::from_layers`]), the rules are overlayfs', but for two cases that overlayfs cannot
//! know: an implied directory over a symbolic link merges into the directory that the link names, and an
//! implied directory over a directory keeps the lower metadata.
//!
//! What a layer changes behind a symbolic link of a lower layer stands where the link points. A layer tree does not
//! hold the order of such changes and of those that the layer makes to the same files, or to the link, under other
//! names. Where the order decides what the image is, the layer is refused as
//! [`Unsupported`](crate::ErrorKind::Unsupported).
//!
//! # Memory
//!
//! A file takes 64 bytes, each of its names 17 and the name's own bytes. A tree grows by pages of 64 KiB, and nothing in
//! it is copied to a larger place. What else a tree holds (extended attributes,
//! targets of symbolic links, whiteouts, runs of sparse files, directories that no entry made) is counted as it
//! comes; [`TreeLimits`](crate::layer::TreeLimits) bounds it all. Nothing recurses, so a tree may be as deep as a
//! path may be long.

mod builder;
mod fault;
mod layer;
mod left;
mod look_up;
mod map;
mod merge;
mod merged;
mod names;
mod node;
mod order;
mod pages;
mod pending;
mod resolve;
mod stack;
mod steps;
#[cfg(test)]
mod tests;
mod walk;
mod xattrs;

pub use builder::LayerTreeBuilder;
pub use fault::TreeFault;
pub use layer::LayerTree;
pub(crate) use merged::Watched;
pub use merged::{Extent, FileData, LayerContent, LayerFile, LayerReader, LayerRun, LayerSource, MergedTree};
pub use node::{Children, Directory, HeapSize, Kind, Node, NodeId, Tree};
pub use pending::LowerLink;
pub(crate) use walk::Places;
pub use walk::Walk;
pub use xattrs::{
    DroppedXattrs, XATTR_PREFIXES, Xattrs, XattrsIter, is_kept_xattr, is_overlay_xattr, xattr_prefix,
};
