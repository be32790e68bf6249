//! Nodes in an arena, and directories that name them.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::sync::Arc;

use crate::layer::{ImagePath, Metadata, Timestamp};

/// Extended attributes with their full names, sorted by name. Files with the same set share it.
pub type Xattrs = Arc<[(Vec<u8>, Vec<u8>)]>;

/// A node of one [`Tree`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeId(u32);

impl NodeId {
    /// The root directory of every tree.
    pub const ROOT: Self = Self(0);

    /// The node's place in the arena: unique, below [`Tree::capacity`].
    pub fn index(self) -> usize {
        self.0 as usize
    }

    pub(super) fn shifted(self, by: u32) -> Self {
        Self(self.0 + by)
    }
}

/// What a node is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Kind<C> {
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A directory.
    Directory(Directory),
    /// A named pipe.
    Fifo,
    /// A regular file.
    File {
        /// Its size in bytes, holes included.
        size: u64,
        /// Where its bytes lie.
        content: C,
    },
    /// A Unix socket.
    Socket,
    /// A symbolic link.
    Symlink {
        /// The link's text.
        target: Box<[u8]>,
    },
}

/// The names in a directory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Directory {
    pub(super) children: BTreeMap<Box<[u8]>, NodeId>,
    pub(super) whiteouts: BTreeSet<Box<[u8]>>,
    /// Hides all that lower layers have in it; always false in a finished image.
    pub opaque: bool,
    /// No entry made it: it exists because something stands in it.
    pub implied: bool,
}

impl Directory {
    /// The children in the order of their names' bytes.
    pub fn children(&self) -> impl ExactSizeIterator<Item = (&[u8], NodeId)> + DoubleEndedIterator {
        self.children.iter().map(|(name, id)| (&**name, *id))
    }

    /// The child of that name.
    pub fn child(&self, name: &[u8]) -> Option<NodeId> {
        self.children.get(name).copied()
    }

    /// The names that are gone from the lower layers, in order; empty in a finished image.
    pub fn whiteouts(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.whiteouts.iter().map(|name| &**name)
    }
}

/// A file of any kind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node<C> {
    /// What it is.
    pub kind: Kind<C>,
    /// Permission bits with set-uid, set-gid and sticky.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Extended attributes.
    pub xattrs: Xattrs,
    pub(super) names: u32,
}

impl<C> Node<C> {
    /// A node without a name.
    pub fn new(kind: Kind<C>, metadata: Metadata) -> Self {
        let Metadata { mode, uid, gid, mtime, xattrs } = metadata;
        Self { kind, mode, uid, gid, mtime, xattrs: xattrs.into(), names: 0 }
    }

    /// An implied directory: 0755 root:root.
    pub fn implied_directory() -> Self {
        let directory = Directory { implied: true, ..Directory::default() };
        Self::new(Kind::Directory(directory), Metadata { mode: 0o755, ..Metadata::default() })
    }

    /// The names in it, if it is a directory.
    pub fn directory(&self) -> Option<&Directory> {
        match &self.kind {
            Kind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn take_metadata<D>(&mut self, other: Node<D>) {
        self.mode = other.mode;
        self.uid = other.uid;
        self.gid = other.gid;
        self.mtime = other.mtime;
        self.xattrs = other.xattrs;
    }
}

/// A root file system's metadata. See [the module](super).
#[derive(Clone, Debug)]
pub struct Tree<C> {
    pub(super) nodes: Vec<Node<C>>,
}

impl<C> Tree<C> {
    /// A tree of nothing but an implied root.
    pub fn new() -> Self {
        Self { nodes: vec![Node::implied_directory()] }
    }

    /// The number of nodes ever made, those included that no name leads to any more.
    pub fn capacity(&self) -> usize {
        self.nodes.len()
    }

    /// The node.
    ///
    /// # Panics
    /// When `id` is of another, larger tree.
    pub fn node(&self, id: NodeId) -> &Node<C> {
        &self.nodes[id.index()]
    }

    /// The node, to change.
    ///
    /// # Panics
    /// When `id` is of another, larger tree.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node<C> {
        &mut self.nodes[id.index()]
    }

    /// Puts a node into the arena, to be named by [`Tree::link`].
    pub fn push(&mut self, node: Node<C>) -> NodeId {
        // Entries are limited to far below 2^32 by whoever reads them.
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(node);
        id
    }

    /// Names `child` in `directory`, in place of what had that name. Nothing happens when `directory` is none.
    pub fn link(&mut self, directory: NodeId, name: &[u8], child: NodeId) {
        if let Some(directory) = self.directory_mut(directory) {
            directory.whiteouts.remove(name);
            directory.children.insert(name.into(), child);
        }
    }

    /// Takes the name out of `directory`.
    pub fn unlink(&mut self, directory: NodeId, name: &[u8]) {
        if let Some(directory) = self.directory_mut(directory) {
            directory.children.remove(name);
        }
    }

    /// Makes the name a whiteout: lower layers have no such file any more.
    pub fn hide(&mut self, directory: NodeId, name: &[u8]) {
        if let Some(directory) = self.directory_mut(directory) {
            directory.children.remove(name);
            directory.whiteouts.insert(name.into());
        }
    }

    /// Every node ever made, whether a name leads to it or not.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = NodeId> + use<C> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    /// Where the bytes of every regular file lie, to change.
    pub fn contents_mut(&mut self) -> impl Iterator<Item = &mut C> {
        self.nodes.iter_mut().filter_map(|node| match &mut node.kind {
            Kind::File { content, .. } => Some(content),
            _ => None,
        })
    }

    /// The child of that name, if `directory` is one and has it.
    pub fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.node(directory).directory()?.child(name)
    }

    pub(super) fn directory_mut(&mut self, id: NodeId) -> Option<&mut Directory> {
        match &mut self.node_mut(id).kind {
            Kind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// The link count that `stat` shows: names of a file, or 2 and the subdirectories of a directory.
    /// Counts what [`Tree::finish`] or [`LayerTreeBuilder::finish`](super::LayerTreeBuilder::finish) found.
    pub fn links(&self, id: NodeId) -> u32 {
        let node = self.node(id);
        let Some(directory) = node.directory() else { return node.names };
        let below = directory.children.values().filter(|child| self.node(**child).directory().is_some());
        2 + below.count() as u32
    }

    /// Counts every file's names, once the last change has been made.
    pub fn finish(&mut self) {
        for node in &mut self.nodes {
            node.names = 0;
        }
        self.node_mut(NodeId::ROOT).names = 1;
        let mut pending = vec![NodeId::ROOT];
        while let Some(id) = pending.pop() {
            let Some(directory) = self.directory_mut(id) else { continue };
            let children = std::mem::take(&mut directory.children);
            for child in children.values() {
                let node = self.node_mut(*child);
                node.names += 1;
                if node.names == 1 && node.directory().is_some() {
                    pending.push(*child);
                }
            }
            if let Some(directory) = self.directory_mut(id) {
                directory.children = children;
            }
        }
    }

    /// Whether a name leads to the node, as of [`Tree::finish`].
    pub fn is_named(&self, id: NodeId) -> bool {
        self.node(id).names > 0
    }

    /// Every name with its node, parents before children, siblings in the order of their names' bytes.
    /// The root comes first, with the empty path. A file with several names comes several times.
    pub fn walk(&self) -> Walk<'_, C> {
        Walk { tree: self, path: Vec::new(), root: Some(NodeId::ROOT), way: Vec::new() }
    }
}

impl<C> Default for Tree<C> {
    fn default() -> Self {
        Self::new()
    }
}

type Children<'a> = btree_map::Iter<'a, Box<[u8]>, NodeId>;

/// The names of a tree in order. See [`Tree::walk`].
#[derive(Debug)]
pub struct Walk<'a, C> {
    tree: &'a Tree<C>,
    path: Vec<u8>,
    /// The root, before the first step.
    root: Option<NodeId>,
    /// The directories on the way, each with the length of its path.
    way: Vec<(usize, Children<'a>)>,
}

impl<C> Walk<'_, C> {
    fn step(&mut self, id: NodeId) -> (ImagePath, NodeId) {
        if let Some(directory) = self.tree.node(id).directory() {
            self.way.push((self.path.len(), directory.children.iter()));
        }
        (ImagePath::from_clean(self.path.clone()), id)
    }
}

impl<C> Iterator for Walk<'_, C> {
    type Item = (ImagePath, NodeId);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(root) = self.root.take() {
            return Some(self.step(root));
        }
        loop {
            let (length, children) = self.way.last_mut()?;
            self.path.truncate(*length);
            if let Some((name, id)) = children.next() {
                if !self.path.is_empty() {
                    self.path.push(b'/');
                }
                self.path.extend_from_slice(name);
                return Some(self.step(*id));
            }
            self.way.pop();
        }
    }
}
