//! The state of a [`LayerTree`](super::LayerTree) under construction.

use crate::layer::{ImagePath, TreeLimits};

use super::names::LinkId;
use super::pending::PendingLinks;
use super::{HeapSize, NodeId, Tree};

/// Builds a [`LayerTree`](super::LayerTree). See [the module](super) for the rules.
#[derive(Debug)]
pub struct LayerTreeBuilder<C> {
    pub(super) tree: Tree<C>,
    /// Hard links whose target has not been seen yet.
    pub(super) links: PendingLinks,
    /// Directories that were hidden from the lower layers after something was put into them.
    pub(super) left: Vec<Left>,
    pub(super) assumed: Vec<ImagePath>,
    /// The parent of the last entry: the next one mostly has the same.
    pub(super) last_parent: Option<(Vec<u8>, NodeId)>,
}

/// A directory by the name that it had.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    pub(super) directory: NodeId,
    pub(super) parent: NodeId,
    pub(super) name: LinkId,
    /// Whether a symbolic link of a lower layer would have been followed here.
    pub(super) followed: bool,
}

impl<C: HeapSize> LayerTreeBuilder<C> {
    /// A builder for an empty layer, within the default limits.
    pub fn new() -> Self {
        Self::within(TreeLimits::default())
    }

    /// As [`LayerTreeBuilder::new`], within other limits: mostly those of the layer
    /// ([`LayerTar::limits`](crate::layer::LayerTar::limits)).
    pub fn within(limits: TreeLimits) -> Self {
        Self {
            tree: Tree::within(limits),
            links: PendingLinks::default(),
            left: Vec::new(),
            assumed: Vec::new(),
            last_parent: None,
        }
    }
}

impl<C: HeapSize> Default for LayerTreeBuilder<C> {
    fn default() -> Self {
        Self::new()
    }
}
