//! Nodes in an arena, and directories that name them.

use std::collections::HashSet;

use crate::layer::{self, FileKind, Grant, ImagePath, Metadata, Timestamp, TreeLimits};
use crate::{Advice, Error, Result, Size};

use super::Xattrs;
use super::fault::TreeFault;
use super::names::{Cursor, LinkId, NONE, Names};
use super::pages::Pages;

/// Bytes that a directory without an entry takes, its name's bytes apart.
const IMPLIED_BYTES: usize = 192;
/// The most that its own name and one in it count, where what implied it is not known.
const IMPLIED_NAMES: usize = 510;
/// Bytes that a node takes, here and in the plan of a writer: 64 or 72, and at most 36.
const NODE_BYTES: usize = 110;
/// Bytes that a name takes, its own bytes apart: 16, and its length.
const NAME_BYTES: usize = 17;
/// Bytes that a whiteout takes, its name apart.
const WHITEOUT_BYTES: usize = 64;

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

    pub(super) fn new(index: u32) -> Self {
        Self(index)
    }

    pub(super) fn number(self) -> u32 {
        self.0
    }
}

/// How many bytes a value keeps on the heap: what [`TreeLimits::metadata`] counts of where files' bytes lie.
pub trait HeapSize {
    /// Bytes on the heap, those of the value itself apart.
    fn heap_bytes(&self) -> usize;
}

impl HeapSize for () {
    fn heap_bytes(&self) -> usize {
        0
    }
}

impl HeapSize for Vec<u8> {
    fn heap_bytes(&self) -> usize {
        self.capacity()
    }
}

impl HeapSize for String {
    fn heap_bytes(&self) -> usize {
        self.capacity()
    }
}

/// What a node is.
pub type Kind<C> = FileKind<C, Directory>;

/// A directory. Its names are the tree's: [`Tree::children`], [`Tree::whiteouts`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Directory {
    pub(super) children: LinkId,
    pub(super) whiteouts: LinkId,
    /// As of [`Tree::finish`].
    pub(super) subdirectories: u32,
    /// Hides all that lower layers have in it; always false in a finished image.
    pub opaque: bool,
    /// No entry made it: it exists because something stands in it.
    pub implied: bool,
    /// Its entry stood behind entries below it, which would have followed a symbolic link of a lower layer here.
    pub late: bool,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            children: NONE,
            whiteouts: NONE,
            subdirectories: 0,
            opaque: false,
            implied: false,
            late: false,
        }
    }
}

/// A file of any kind.
#[derive(Clone, Debug)]
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

    /// The directory, if it is one.
    pub fn directory(&self) -> Option<&Directory> {
        match &self.kind {
            Kind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn has_metadata_of<D>(&self, other: &Node<D>) -> bool {
        let own = (self.mode, self.uid, self.gid, self.mtime, &self.xattrs);
        own == (other.mode, other.uid, other.gid, other.mtime, &other.xattrs)
    }

    pub(super) fn take_metadata<D>(&mut self, other: Node<D>) {
        self.mode = other.mode;
        self.uid = other.uid;
        self.gid = other.gid;
        self.mtime = other.mtime;
        self.xattrs = other.xattrs;
    }
}

impl<C: HeapSize> Node<C> {
    /// Bytes besides the node itself and its extended attributes.
    pub(super) fn own_bytes(&self) -> usize {
        match &self.kind {
            Kind::Directory(directory) if directory.implied => IMPLIED_BYTES,
            Kind::File { content, .. } => content.heap_bytes(),
            // As allocators round it.
            Kind::Symlink { target } => (target.len() + 8).next_multiple_of(16).max(32),
            _ => 0,
        }
    }
}

/// A root file system's metadata. See [the module](super).
#[derive(Clone, Debug)]
pub struct Tree<C> {
    pub(super) nodes: Pages<Node<C>>,
    pub(super) names: Names,
    pub(super) limits: TreeLimits,
    /// Bytes counted by [`TreeLimits::metadata`].
    pub(super) bytes: u64,
    /// What all of it may take of the memory that conversions share.
    pub(super) grant: Grant,
    /// Sets that [`Tree::share`] has seen, until [`Tree::finish`].
    pub(super) sets: HashSet<Xattrs>,
}

impl<C> Tree<C> {
    /// A tree of nothing but an implied root, within the default limits.
    pub fn new() -> Self {
        Self::within(TreeLimits::default())
    }

    /// As [`Tree::new`], within other limits.
    pub fn within(limits: TreeLimits) -> Self {
        let grant = Grant::new(limits.share.clone());
        let (mut nodes, names) = (Pages::new(), Names::new());
        nodes.push(Node::implied_directory());
        Self { nodes, names, limits, bytes: 0, grant, sets: HashSet::new() }
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

    /// Counts bytes that a caller keeps for the tree, such as a set of extended attributes.
    ///
    /// # Errors
    /// [`Limit`](crate::ErrorKind::Limit) beyond [`TreeLimits::metadata`].
    pub fn charge(&mut self, bytes: usize) -> Result<()> {
        self.bytes += bytes as u64;
        if self.bytes > self.limits.metadata {
            let fault = TreeFault::Metadata(Size(self.limits.metadata));
            return Err(Error::from(fault).with_advice(Advice::RaiseLimit { field: "metadata" }));
        }
        self.cover()
    }

    /// A set of extended attributes: the one that is equal, if there was one before. New ones are counted.
    ///
    /// # Errors
    /// [`Limit`](crate::ErrorKind::Limit) beyond [`TreeLimits::metadata`].
    pub fn share(&mut self, set: Xattrs) -> Result<Xattrs> {
        if let Some(known) = self.sets.get(&set) {
            return Ok(known.clone());
        }
        self.charge(set.heap_bytes())?;
        if !set.is_empty() {
            self.sets.insert(set.clone());
        }
        Ok(set)
    }

    /// Waits for memory that conversions share, if the tree needs more of it.
    pub(super) fn cover(&mut self) -> Result<()> {
        let names = self.names.len() * NAME_BYTES + self.names.byte_count();
        self.grant.cover((self.nodes.len() * NODE_BYTES + names) as u64 + self.bytes)
    }

    /// Names `child` in `directory`, in place of what had that name. Nothing happens when `directory` is not a
    /// directory.
    ///
    /// # Errors
    /// [`Limit`](crate::ErrorKind::Limit) beyond [`TreeLimits::names`].
    pub fn link(&mut self, directory: NodeId, name: &[u8], child: NodeId) -> Result<()> {
        let Kind::Directory(directory) = &mut self.nodes[directory.index()].kind else { return Ok(()) };
        self.names.remove(&mut directory.whiteouts, name);
        if let Some(link) = self.names.find(directory.children, name) {
            self.names.set_child(link, child.0);
            return Ok(());
        }
        let link = new_name(&mut self.names, &self.limits, name, child.0)?;
        self.names.insert(&mut directory.children, link);
        self.cover()
    }

    /// Takes the name out of `directory`.
    pub fn unlink(&mut self, directory: NodeId, name: &[u8]) {
        if let Kind::Directory(directory) = &mut self.nodes[directory.index()].kind {
            self.names.remove(&mut directory.children, name);
        }
    }

    /// Makes the name a whiteout: lower layers have no such file any more.
    ///
    /// # Errors
    /// [`Limit`](crate::ErrorKind::Limit) beyond [`TreeLimits::metadata`] and [`TreeLimits::names`].
    pub fn hide(&mut self, directory: NodeId, name: &[u8]) -> Result<()> {
        let Kind::Directory(directory) = &mut self.nodes[directory.index()].kind else { return Ok(()) };
        if self.names.find(directory.whiteouts, name).is_some() {
            return Ok(());
        }
        let link = match self.names.remove(&mut directory.children, name) {
            Some(link) => link,
            None => new_name(&mut self.names, &self.limits, name, NONE)?,
        };
        self.names.insert(&mut directory.whiteouts, link);
        self.charge(WHITEOUT_BYTES + name.len())
    }

    /// Makes whiteouts of the children of `directory` that `is_whiteout` knows as such.
    ///
    /// # Errors
    /// [`Limit`](crate::ErrorKind::Limit) beyond [`TreeLimits::metadata`].
    pub fn hide_children(
        &mut self,
        directory: NodeId,
        mut is_whiteout: impl FnMut(&Node<C>) -> bool,
    ) -> Result<()> {
        let Some(Directory { mut children, mut whiteouts, .. }) = self.node(directory).directory().cloned()
        else {
            return Ok(());
        };
        let mut cursor = self.names.cursor(children);
        let mut hidden = Vec::new();
        while let Some(link) = cursor.next(&self.names) {
            if is_whiteout(&self.nodes[self.names.child(link) as usize]) {
                self.charge(WHITEOUT_BYTES + self.names.name(link).len() + size_of::<LinkId>())?;
                hidden.push(link);
            }
        }
        for link in &hidden {
            let name = self.names.name(*link).to_vec();
            self.names.remove(&mut children, &name);
        }
        for link in hidden {
            self.names.insert(&mut whiteouts, link);
        }
        self.set_names(directory, children, whiteouts);
        Ok(())
    }

    /// Makes children of the whiteouts of `directory`: each is then a name of `child`.
    pub fn show_whiteouts(&mut self, directory: NodeId, child: NodeId) {
        let Some(Directory { mut children, whiteouts, .. }) = self.node(directory).directory().cloned()
        else {
            return;
        };
        let mut cursor = self.names.cursor(whiteouts);
        while let Some(link) = cursor.next(&self.names) {
            self.names.set_child(link, child.0);
            self.names.insert(&mut children, link);
        }
        self.set_names(directory, children, NONE);
    }

    fn set_names(&mut self, id: NodeId, children: LinkId, whiteouts: LinkId) {
        if let Some(directory) = self.directory_mut(id) {
            directory.children = children;
            directory.whiteouts = whiteouts;
        }
    }

    /// Says that no entry made the directory.
    ///
    /// # Errors
    /// [`Limit`](crate::ErrorKind::Limit) beyond [`TreeLimits::metadata`].
    pub fn imply(&mut self, directory: NodeId) -> Result<()> {
        if let Some(directory) = self.directory_mut(directory) {
            directory.implied = true;
        }
        self.charge(IMPLIED_BYTES + self.implied_names(directory))
    }

    /// What the names count that are there because of a directory that no entry made: its own and that of the file for
    /// which it was made, about as long as those in it.
    pub(super) fn implied_names(&self, directory: NodeId) -> usize {
        if !self.node(directory).directory().is_some_and(|directory| directory.implied) {
            return 0;
        }
        let mut bytes = 0;
        for (name, _) in self.children(directory) {
            bytes += name.len();
            if bytes >= IMPLIED_NAMES {
                return IMPLIED_NAMES;
            }
        }
        bytes
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

    /// The children of a directory in the order of their names' bytes; empty for other kinds of files.
    pub fn children(&self, directory: NodeId) -> Children<'_> {
        self.listed(self.node(directory).directory().map_or(NONE, |directory| directory.children))
    }

    /// The names that are gone from the lower layers, in order; none in a finished image.
    pub fn whiteouts(&self, directory: NodeId) -> impl Iterator<Item = &[u8]> {
        let root = self.node(directory).directory().map_or(NONE, |directory| directory.whiteouts);
        self.listed(root).map(|(name, _)| name)
    }

    /// The directories in a directory, each with its name's place.
    pub(super) fn subdirectories(&self, directory: NodeId) -> impl Iterator<Item = (LinkId, NodeId)> {
        let mut children = self.children(directory);
        std::iter::from_fn(move || children.next_link())
            .filter(move |(_, child)| self.node(*child).directory().is_some())
    }

    fn listed(&self, root: LinkId) -> Children<'_> {
        Children { names: &self.names, cursor: self.names.cursor(root) }
    }

    /// The child of that name, if `directory` is one and has it.
    pub fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        let link = self.names.find(self.node(directory).directory()?.children, name)?;
        Some(NodeId(self.names.child(link)))
    }

    /// Whether the name is a whiteout.
    pub(super) fn is_hidden(&self, directory: NodeId, name: &[u8]) -> bool {
        let directory = self.node(directory).directory();
        directory.is_some_and(|directory| self.names.find(directory.whiteouts, name).is_some())
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
        node.directory().map_or(node.names, |directory| 2 + directory.subdirectories)
    }

    /// Counts every file's names, once the last change has been made.
    pub fn finish(&mut self) {
        self.sets = HashSet::new();
        for node in self.nodes.iter_mut() {
            node.names = 0;
        }
        self.node_mut(NodeId::ROOT).names = 1;
        let mut pending = vec![NodeId::ROOT];
        while let Some(id) = pending.pop() {
            let Some(directory) = self.node(id).directory() else { continue };
            let mut cursor = self.names.cursor(directory.children);
            let mut subdirectories = 0;
            while let Some(link) = cursor.next(&self.names) {
                let child = NodeId(self.names.child(link));
                let node = self.node_mut(child);
                node.names += 1;
                if node.directory().is_some() {
                    subdirectories += 1;
                    if node.names == 1 {
                        pending.push(child);
                    }
                }
            }
            if let Some(directory) = self.directory_mut(id) {
                directory.subdirectories = subdirectories;
            }
        }
    }

    /// Whether a name leads to the node, as of [`Tree::finish`].
    pub fn is_named(&self, id: NodeId) -> bool {
        self.node(id).names > 0
    }
}

impl<C: HeapSize> Tree<C> {
    /// Puts a node into the arena, to be named by [`Tree::link`]. Its extended attributes are not counted: many
    /// nodes may share them.
    ///
    /// # Errors
    /// [`Limit`](crate::ErrorKind::Limit) beyond [`TreeLimits::files`] and [`TreeLimits::metadata`].
    pub fn push(&mut self, node: Node<C>) -> Result<NodeId> {
        self.charge(node.own_bytes())?;
        let id = u32::try_from(self.nodes.len()).ok().filter(|id| u64::from(*id) < self.limits.files);
        let id = id.filter(|id| *id < NONE).ok_or_else(|| too_many(self.limits.files))?;
        self.nodes.push(node);
        Ok(NodeId(id))
    }
}

pub(super) fn too_many(files: u64) -> Error {
    Error::from(TreeFault::Files(files)).with_advice(Advice::RaiseLimit { field: "files" })
}

fn new_name(names: &mut Names, limits: &TreeLimits, name: &[u8], child: u32) -> Result<LinkId> {
    check_names(names.byte_count() + name.len(), limits)?;
    names.push(name, child)
}

pub(super) fn check_names(bytes: usize, limits: &TreeLimits) -> Result<()> {
    if bytes as u64 > limits.names {
        let fault = TreeFault::Names(Size(limits.names));
        return Err(Error::from(fault).with_advice(Advice::RaiseLimit { field: "names" }));
    }
    Ok(())
}

impl<C> Default for Tree<C> {
    fn default() -> Self {
        Self::new()
    }
}

/// The names in a directory with their nodes. See [`Tree::children`].
#[derive(Clone, Debug)]
pub struct Children<'a> {
    names: &'a Names,
    cursor: Cursor,
}

impl Children<'_> {
    pub(super) fn next_link(&mut self) -> Option<(LinkId, NodeId)> {
        let link = self.cursor.next(self.names)?;
        Some((link, NodeId(self.names.child(link))))
    }
}

impl<'a> Iterator for Children<'a> {
    type Item = (&'a [u8], NodeId);

    fn next(&mut self) -> Option<Self::Item> {
        let (link, child) = self.next_link()?;
        Some((self.names.name(link), child))
    }
}

/// The path that these names make, the last one first.
pub(super) fn path_up<'a>(names: impl Iterator<Item = &'a [u8]>) -> ImagePath {
    path_of(names.collect::<Vec<_>>().into_iter().rev())
}

/// The path that these names make.
pub(super) fn path_of<'a>(names: impl Iterator<Item = &'a [u8]>) -> ImagePath {
    let mut path = Vec::new();
    for name in names {
        layer::join(&mut path, name);
    }
    ImagePath::from_clean(path)
}

#[cfg(test)]
mod tests {
    use super::{Kind, Node};

    /// 64 bytes and the 17 of a name are what most files take.
    #[test]
    fn a_node_is_small() {
        assert_eq!(size_of::<Kind<[u32; 2]>>(), 24);
        assert_eq!(size_of::<Node<[u32; 2]>>(), 64);
        assert_eq!(size_of::<Node<Option<Box<u64>>>>(), 64);
    }
}
