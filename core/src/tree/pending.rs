//! Hard links that are read before a file of their target's name.
//!
//! Such a link is to a lower layer's file, if one has it: an extraction in order finds that one. Only if none has, it
//! is to the file that its own layer brings later.

use std::collections::BTreeMap;

use crate::Result;
use crate::layer::ImagePath;

use super::resolve::Missing;
use super::{HeapSize, NodeId, Tree};

/// A hard link that was read before the layer had a file of its target's name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LowerLink {
    /// The directory that it stands in.
    pub directory: NodeId,
    /// Its name there. When the layer has no file of the target's name, the directory has no child of this name.
    /// Otherwise the child is that file, and the link's file only if no lower layer has the target.
    pub name: Box<[u8]>,
    /// The file, as the lower layers name it.
    pub target: ImagePath,
}

/// Bytes that a link takes besides its name and target, while it is settled and as the file that an image has for it.
const LINK_BYTES: usize = 320;

/// Links by their directory and name.
#[derive(Debug, Default)]
pub(super) struct PendingLinks(BTreeMap<NodeId, BTreeMap<Box<[u8]>, ImagePath>>);

impl PendingLinks {
    /// Bytes that one link takes.
    pub(super) fn bytes(name: &[u8], target: &ImagePath) -> usize {
        // The target is kept twice where an image says it in an extended attribute.
        LINK_BYTES + 2 * (name.len() + target.as_bytes().len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, directory: NodeId, name: &[u8], target: ImagePath) {
        self.0.entry(directory).or_default().insert(name.into(), target);
    }

    pub(super) fn contains(&self, directory: NodeId, name: &[u8]) -> bool {
        self.target(directory, name).is_some()
    }

    pub(super) fn remove(&mut self, directory: NodeId, name: &[u8]) {
        if let Some(links) = self.0.get_mut(&directory) {
            links.remove(name);
        }
    }

    /// The target of an earlier link of that name.
    pub(super) fn target(&self, directory: NodeId, name: &[u8]) -> Option<&ImagePath> {
        self.0.get(&directory)?.get(name)
    }
}

/// Where following links ends: at a file of the layer, or at none. That is a name that the layer does not have, or a link
/// that is being followed: links in a circle are to lower files.
type Ends<'a> = BTreeMap<(NodeId, &'a [u8]), Option<NodeId>>;

impl PendingLinks {
    /// Gives links the files of the layer that they may be to, and lists them all.
    pub(super) fn settle<C: HeapSize>(mut self, tree: &mut Tree<C>) -> Result<Vec<LowerLink>> {
        // A directory in a link's place: something was put below it.
        for (directory, links) in &mut self.0 {
            links.retain(|name, _| tree.child(*directory, name).is_none());
        }
        let mut ends = Ends::new();
        for (directory, links) in &self.0 {
            for name in links.keys() {
                self.follow(tree, *directory, name, &mut ends);
            }
        }
        for ((directory, name), end) in ends {
            if let Some(id) = end {
                tree.link(directory, name, id)?;
            }
        }
        // The lower file is that of the name which the link stands for in the tar, whatever that name becomes later.
        let mut lower = Vec::with_capacity(self.0.values().map(BTreeMap::len).sum());
        for (directory, links) in self.0 {
            lower.extend(links.into_iter().map(|(name, target)| LowerLink { directory, name, target }));
        }
        Ok(lower)
    }

    /// Finds the ends of a link and of those on its way.
    fn follow<'a, C: HeapSize>(
        &'a self,
        tree: &mut Tree<C>,
        directory: NodeId,
        name: &'a [u8],
        ends: &mut Ends<'a>,
    ) {
        let mut way: Vec<(NodeId, &[u8])> = Vec::new();
        let mut at = (directory, name);
        let end = loop {
            let Some(target) = self.target(at.0, at.1) else { break None };
            if let Some(end) = ends.get(&at) {
                break *end;
            }
            ends.insert(at, None);
            way.push(at);
            // Symbolic links that stand there now may lead nowhere: the link was read before them.
            let Ok(Some(parent)) = tree.parent_of(target, Missing::Absent) else { break None };
            if let Some(id) = tree.child(parent, target.name()) {
                let is_directory = tree.node(id).directory().is_some();
                break Some(id).filter(|_| !is_directory);
            }
            at = (parent, target.name());
        };
        ends.extend(way.into_iter().map(|at| (at, end)));
    }
}
