//! Where overlayfs, given the images of an image's layers, does not show what the image is.
//!
//! Overlayfs cannot express some content of tars. It shows a directory that no entry made with the metadata that its
//! image has, and in place of a lower symbolic link; it merges the root of every layer, also an opaque one; it has no
//! hard links across layers. Only images of such layers are stacked twice and compared.

use std::cmp::Ordering;
use std::fmt;

use plyfold_core::layer::{ImagePath, TreeLimits};
use plyfold_core::tree::{Kind, LayerTree, Node, NodeId, Tree};
use plyfold_core::{ArtifactReader, Result};

use crate::content::Content;
use crate::overlay;
use crate::reader::Reader;

/// What overlayfs shows otherwise than an image says. See
/// [`ErofsMerged::overlay_differences`](crate::ErofsMerged::overlay_differences).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct OverlayDifferences {
    /// How many names are concerned. A directory that is missing or too much counts once.
    pub count: u64,
    /// The first of them, a directory's before those of its subdirectories, at most [`OverlayDifferences::EXAMPLES`];
    /// the last is one of the [worst](Self::worst) where these come behind so many others.
    pub examples: Vec<OverlayDifference>,
}

impl OverlayDifferences {
    /// How many examples are given.
    pub const EXAMPLES: usize = 100;

    fn add(&mut self, path: impl FnOnce() -> ImagePath, fault: OverlayFault) {
        self.count += 1;
        if self.examples.len() == Self::EXAMPLES {
            if self.worst().is_some_and(|worst| worst.fault >= fault) {
                return;
            }
            self.examples.pop();
        }
        self.examples.push(OverlayDifference { path: path(), fault });
    }

    /// The first example of the worst kind that there is.
    pub fn worst(&self) -> Option<&OverlayDifference> {
        self.examples.iter().rev().max_by_key(|example| example.fault)
    }
}

/// One name that overlayfs shows otherwise than the image says.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct OverlayDifference {
    /// The name.
    pub path: ImagePath,
    /// What is wrong with it.
    pub fault: OverlayFault,
}

impl fmt::Display for OverlayDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path, self.fault)
    }
}

/// How a name is shown wrongly: the worse, the greater.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum OverlayFault {
    /// Mode, owner, time or extended attributes are others.
    Metadata,
    /// The image has no such name.
    Extra,
    /// The image has the name, overlayfs does not show it.
    Missing,
    /// It is a hard link to a file of a lower layer, and cannot be opened.
    Unreadable,
    /// The file under the name is another one.
    Content,
}

impl fmt::Display for OverlayFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Content => "is shown as another file",
            Self::Extra => "is shown and is not in the image",
            Self::Metadata => "is shown with another mode, owner, time or extended attributes",
            Self::Missing => "is not shown",
            Self::Unreadable => "is a hard link to a file of a lower layer and cannot be opened",
        })
    }
}

/// Compares what overlayfs shows of layers with the image that they are. `open` opens a layer; `stacked` says
/// whether they are mounted by overlayfs even if there is only one.
pub(crate) fn differences(
    layers: usize,
    open: impl Fn(usize) -> Result<Reader<ArtifactReader>>,
    limits: &TreeLimits,
    stacked: bool,
) -> Result<OverlayDifferences> {
    let stacked = stacked || layers > 1;
    let tree = |at: usize| open(at)?.tree_of_layer(at);
    let mut doubtful = false;
    let mut root_is_explicit = false;
    for at in 0..layers {
        let LayerTree { tree, lower_links, .. } = overlay::from_overlay(tree(at)?)?;
        doubtful |= !lower_links.is_empty();
        for id in tree.ids() {
            let Some(directory) = tree.node(id).directory() else { continue };
            doubtful |= !stacked && tree.whiteouts(id).next().is_some();
            doubtful |= at > 0
                && if id == NodeId::ROOT {
                    directory.opaque || (directory.implied && root_is_explicit)
                } else {
                    directory.implied
                };
        }
        root_is_explicit |= tree.node(NodeId::ROOT).directory().is_some_and(|root| !root.implied);
    }
    let mut found = OverlayDifferences::default();
    if doubtful {
        let layered = (0..layers).map(|at| overlay::from_overlay(tree(at)?));
        let image = Tree::from_layers_within(layered, limits.clone())?;
        let layered = (0..layers).map(|at| overlay::as_shown(tree(at)?, stacked));
        let shown = Tree::from_layers_within(layered, limits.clone())?;
        compare(&image, &shown, &mut found);
    }
    Ok(found)
}

/// A directory of both trees: the one above, and its name. Paths are built from these when one is reported.
struct Step<'a> {
    above: usize,
    name: &'a [u8],
}

fn path(steps: &[Step<'_>], mut step: usize, name: &[u8]) -> ImagePath {
    let mut names = vec![name];
    while let Some(Step { above, name }) = steps.get(step) {
        names.push(name);
        step = *above;
    }
    names.into_iter().rev().fold(ImagePath::ROOT, |path, name| path.join(name))
}

fn compare(image: &Tree<Content>, shown: &Tree<Content>, found: &mut OverlayDifferences) {
    let (root, none) = (NodeId::ROOT, usize::MAX);
    if !same_metadata(image.node(root), shown.node(root)) {
        found.add(|| ImagePath::ROOT, OverlayFault::Metadata);
    }
    let mut steps: Vec<Step<'_>> = Vec::new();
    let mut pending = vec![(none, root, root)];
    while let Some((step, here, there)) = pending.pop() {
        let first = pending.len();
        let (mut ours, mut theirs) = (image.children(here).peekable(), shown.children(there).peekable());
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(our), Some(their)) => our.0.cmp(their.0),
            };
            let our = ours.next_if(|_| order.is_le());
            let their = theirs.next_if(|_| order.is_ge());
            let fault = match (our, their) {
                (Some((name, our)), Some((_, their))) => {
                    let (our_node, their_node) = (image.node(our), shown.node(their));
                    if our_node.directory().is_some() && their_node.directory().is_some() {
                        steps.push(Step { above: step, name });
                        pending.push((steps.len() - 1, our, their));
                    }
                    fault(our_node, their_node)
                }
                (Some(_), None) => Some(OverlayFault::Missing),
                (None, Some(_)) => Some(OverlayFault::Extra),
                (None, None) => None,
            };
            if let (Some(fault), Some((name, _))) = (fault, our.or(their)) {
                found.add(|| path(&steps, step, name), fault);
            }
        }
        pending[first..].reverse();
    }
}

fn fault(image: &Node<Content>, shown: &Node<Content>) -> Option<OverlayFault> {
    let is_same = match (&image.kind, &shown.kind) {
        (Kind::File { size, content }, Kind::File { size: other_size, content: other }) => {
            if overlay::is_lower_link(&shown.xattrs) {
                return Some(OverlayFault::Unreadable);
            }
            size == other_size && (*size == 0 || content == other)
        }
        (Kind::Directory(_), Kind::Directory(_)) => true,
        (image, shown) => image == shown,
    };
    if !is_same {
        return Some(OverlayFault::Content);
    }
    (!same_metadata(image, shown)).then_some(OverlayFault::Metadata)
}

fn same_metadata(image: &Node<Content>, shown: &Node<Content>) -> bool {
    let of = |node: &Node<Content>| (node.mode, node.uid, node.gid, node.mtime);
    of(image) == of(shown) && image.xattrs == shown.xattrs
}
