//! Layers over layers.

use std::collections::HashSet;

use crate::Result;
use crate::layer::TreeLimits;

use super::merge::Merge;
use super::names::{LinkId, NONE, Names};
use super::node::{check_names, too_many};
use super::pages::Pages;
use super::{HeapSize, Kind, LayerTree, Node, NodeId, Tree};

/// Unreachable nodes are counted again when the arena has grown by this many names.
const DEAD_NAMES: usize = 1 << 16;

impl<C: HeapSize> Tree<C> {
    /// What an image of these layers contains, bottom first: no whiteouts, nothing opaque, links counted.
    ///
    /// Takes time in proportion to the entries of each layer, whatever lies below it. Within the default limits.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for a hard link to a file that no layer has, and for directories
    /// behind more than 40 symbolic links; [`Unsupported`](crate::ErrorKind::Unsupported) where the order of a
    /// layer's entries decides, which a layer tree does not hold (see [the module](super#rules));
    /// [`Limit`](crate::ErrorKind::Limit) beyond the [`TreeLimits`]; what `layers` reports.
    pub fn from_layers(layers: impl IntoIterator<Item = Result<LayerTree<C>>>) -> Result<Self> {
        Self::from_layers_within(layers, TreeLimits::default())
    }

    /// As [`Tree::from_layers`], within other limits.
    ///
    /// # Errors
    /// As [`Tree::from_layers`].
    pub fn from_layers_within(
        layers: impl IntoIterator<Item = Result<LayerTree<C>>>,
        limits: TreeLimits,
    ) -> Result<Self> {
        let mut image = Self::within(limits);
        // Names of the image after the last removal of unreachable nodes.
        let mut living = None;
        for layer in layers {
            if living.is_some_and(|living| image.names.len() > 2 * living + DEAD_NAMES) {
                image.compact()?;
                living = Some(image.names.len());
            }
            image.stack(layer?, living.is_none())?;
            living.get_or_insert(image.names.len());
        }
        image.finish();
        Ok(image)
    }

    fn stack(&mut self, layer: LayerTree<C>, is_bottom: bool) -> Result<()> {
        let LayerTree { tree, lower_links, assumed } = layer;
        self.make_room(&tree)?;
        self.check_assumed(&assumed)?;
        // Found before anything changes: the layer may also hide what it links to or writes through.
        let mut links = Vec::with_capacity(lower_links.len());
        for link in lower_links {
            // Without one, the layer's own later file is meant.
            if let Some(id) = self.lower_file(&link, &tree)? {
                links.push((link.directory, link.name, id));
            }
        }
        if is_bottom {
            return self.become_bottom(tree);
        }
        let redirects = self.redirects(&tree)?;
        let upper = self.adopt(tree)?;
        let mut linked = HashSet::new();
        for (directory, name, id) in links {
            self.link(NodeId::new(directory.number() + upper.number()), &name, id)?;
            linked.insert(id);
        }
        Merge::new(self, upper, redirects, linked).run()
    }

    /// The bottom layer is the image, without its whiteouts and opaque marks. It is moved, not copied.
    fn become_bottom(&mut self, bottom: Self) -> Result<()> {
        let limits = std::mem::take(&mut self.limits);
        *self = Self { limits, sets: HashSet::new(), ..bottom };
        for node in self.nodes.iter_mut() {
            settle(node);
        }
        check_names(self.names.byte_count(), &self.limits)?;
        self.check_files(0)?;
        self.charge(0)
    }

    /// Checks that there is room for another tree's nodes.
    fn make_room(&mut self, other: &Self) -> Result<()> {
        let fits = |image: &Self| -> Result<bool> {
            image.check_files(other.nodes.len())?;
            check_names(image.names.byte_count() + other.names.byte_count(), &image.limits)?;
            Ok(image.bytes + other.bytes <= image.limits.metadata)
        };
        if !matches!(fits(self), Ok(true)) {
            // What lower layers had and no longer show does not count.
            self.compact()?;
            fits(self)?;
        }
        Ok(())
    }

    /// Moves another tree's nodes into this arena; yields where its root now is.
    fn adopt(&mut self, other: Self) -> Result<NodeId> {
        self.charge(usize::try_from(other.bytes).unwrap_or(usize::MAX))?;
        let root = self.check_files(other.nodes.len())?;
        let moved = self.names.append(other.names, root)?;
        let shift = |link: LinkId| if link == NONE { NONE } else { link + moved };
        for mut node in other.nodes {
            if let Kind::Directory(directory) = &mut node.kind {
                directory.children = shift(directory.children);
                directory.whiteouts = shift(directory.whiteouts);
            }
            self.nodes.push(node);
        }
        self.cover()?;
        Ok(NodeId::new(root))
    }

    /// The number of files, if there is room for so many more.
    fn check_files(&self, more: usize) -> Result<u32> {
        let all = (self.nodes.len() + more) as u64;
        u32::try_from(self.nodes.len())
            .ok()
            .filter(|_| all <= self.limits.files && all < NONE.into())
            .ok_or_else(|| too_many(self.limits.files))
    }

    /// Drops what no name leads to any more, and counts again.
    fn compact(&mut self) -> Result<()> {
        let mut old = std::mem::replace(&mut self.nodes, Pages::new());
        let names = std::mem::replace(&mut self.names, Names::new());
        let mut place = vec![NONE; old.len()];
        let mut moved = |id: u32, nodes: &mut Pages<Node<C>>| {
            let known = &mut place[id as usize];
            let fresh = *known == NONE;
            if fresh {
                *known = nodes.len() as u32;
                nodes.push(std::mem::replace(&mut old[id as usize], Node::implied_directory()));
            }
            (*known, fresh)
        };
        moved(0, &mut self.nodes);
        let mut pending = vec![0];
        while let Some(at) = pending.pop() {
            let Some(directory) = self.nodes[at as usize].directory() else { continue };
            let mut cursor = names.cursor(directory.children);
            let mut children = NONE;
            while let Some(link) = cursor.next(&names) {
                let (child, fresh) = moved(names.child(link), &mut self.nodes);
                let link = self.names.push(names.name(link), child)?;
                self.names.insert(&mut children, link);
                if fresh && self.nodes[child as usize].directory().is_some() {
                    pending.push(child);
                }
            }
            if let Kind::Directory(directory) = &mut self.nodes[at as usize].kind {
                directory.children = children;
            }
        }
        let mut sets = HashSet::new();
        self.bytes = 0;
        for id in self.ids() {
            let node = self.node(id);
            let is_new = node.xattrs.address().is_some_and(|address| sets.insert(address));
            let xattrs = if is_new { node.xattrs.heap_bytes() } else { 0 };
            self.bytes += (node.own_bytes() + self.implied_names(id) + xattrs) as u64;
        }
        Ok(())
    }

    /// Drops whiteouts and opaque marks from a directory that has no lower directory.
    pub(super) fn settle(&mut self, directory: NodeId) {
        let mut pending = vec![directory];
        while let Some(id) = pending.pop() {
            settle(self.node_mut(id));
            pending.extend(self.subdirectories(id).map(|(_, child)| child));
        }
    }
}

fn settle<C>(node: &mut Node<C>) {
    if let Kind::Directory(directory) = &mut node.kind {
        directory.whiteouts = NONE;
        directory.opaque = false;
    }
}
