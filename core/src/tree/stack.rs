//! Layers over layers.

use std::collections::{HashSet, VecDeque};

use crate::layer::{ImagePath, TreeLimits};
use crate::{Error, Result};

use super::names::{LinkId, NONE, Names};
use super::node::{check_names, join, too_many};
use super::resolve::Missing;
use super::{Directory, HeapSize, Kind, LayerTree, Node, NodeId, Tree};

/// Names that may be dead before they are looked for.
const DEAD_NAMES: usize = 1 << 16;

impl<C: HeapSize> Tree<C> {
    /// What an image of these layers contains, bottom first: no whiteouts, nothing opaque, links counted.
    ///
    /// Takes time in proportion to the entries of each layer, whatever lies below it. Within the default limits.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for a hard link to a file that no layer has, and for directories
    /// behind more than 40 symbolic links; [`Limit`](crate::ErrorKind::Limit) beyond the [`TreeLimits`]; what
    /// `layers` reports.
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
        // Names of the image when it last had no dead ones.
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
        let LayerTree { tree, lower_links } = layer;
        self.make_room(&tree)?;
        // Found before anything changes: the layer may also hide the name that it links to.
        let mut links = Vec::with_capacity(lower_links.len());
        for link in lower_links {
            let found = self.find(&link.target)?.filter(|id| self.node(*id).directory().is_none());
            match found {
                Some(id) => links.push((link.directory, link.name, id)),
                // The layer's own later file is the one.
                None if tree.child(link.directory, &link.name).is_some() => {}
                None => {
                    let fault =
                        if self.find(&link.target)?.is_some() { "is a directory" } else { "is in no layer" };
                    let name = String::from_utf8_lossy(&link.name).into_owned();
                    let name = crate::printable(&name);
                    return Err(Error::corrupt(format!(
                        "{name} is a hard link to {}, which {fault}",
                        link.target
                    )));
                }
            }
        }
        if is_bottom {
            return self.become_bottom(tree);
        }
        let upper = self.adopt(tree)?;
        for (directory, name, id) in links {
            self.link(NodeId::new(directory.number() + upper.number()), &name, id)?;
        }
        let mut merge = Merge {
            image: self,
            steps: Vec::new(),
            pending: vec![(NONE, NodeId::ROOT, upper)],
            redirected: VecDeque::new(),
        };
        merge.run();
        while let Some((step, directory)) = merge.redirected.pop_front() {
            merge.redirect(step, directory)?;
        }
        Ok(())
    }

    /// The bottom layer is the image but for what speaks of lower ones. Nothing of it is copied.
    fn become_bottom(&mut self, bottom: Self) -> Result<()> {
        let limits = std::mem::take(&mut self.limits);
        *self = Self { limits, ..bottom };
        self.settle(NodeId::ROOT);
        check_names(self.names.byte_count(), &self.limits)?;
        self.check_files(0)?;
        self.charge(0)
    }

    /// Sees to it that there is room for another tree's nodes.
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
        self.nodes.extend(other.nodes.into_iter().map(|mut node| {
            if let Kind::Directory(directory) = &mut node.kind {
                directory.children = shift(directory.children);
                directory.whiteouts = shift(directory.whiteouts);
            }
            node
        }));
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
        let mut old = std::mem::take(&mut self.nodes);
        let names = std::mem::replace(&mut self.names, Names::new());
        let mut place = vec![NONE; old.len()];
        let mut moved = |id: u32, nodes: &mut Vec<Node<C>>| {
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
        for node in &self.nodes {
            let is_new = node.xattrs.address().is_some_and(|address| sets.insert(address));
            let xattrs = if is_new { node.xattrs.heap_bytes() } else { 0 };
            self.bytes += (node.own_bytes() + xattrs) as u64;
        }
        Ok(())
    }

    /// Drops what speaks of lower layers from a directory that has none below it.
    fn settle(&mut self, directory: NodeId) {
        let mut pending = vec![directory];
        while let Some(id) = pending.pop() {
            let Some(directory) = self.directory_mut(id) else { continue };
            directory.whiteouts = NONE;
            directory.opaque = false;
            let children = directory.children;
            let mut cursor = self.names.cursor(children);
            while let Some(link) = cursor.next(&self.names) {
                let child = NodeId::new(self.names.child(link));
                if self.node(child).directory().is_some() {
                    pending.push(child);
                }
            }
        }
    }
}

struct Merge<'a, C> {
    image: &'a mut Tree<C>,
    /// The directories that were merged: the step to the one above, and the name in it. Paths are made of these
    /// where one is needed.
    steps: Vec<(u32, LinkId)>,
    /// Directories of both sides: step, lower, upper.
    pending: Vec<(u32, NodeId, NodeId)>,
    /// Implied directories over a symbolic link of a lower layer.
    redirected: VecDeque<(u32, NodeId)>,
}

impl<C: HeapSize> Merge<'_, C> {
    fn run(&mut self) {
        while let Some((step, lower, upper)) = self.pending.pop() {
            self.directory(step, lower, upper);
        }
    }

    fn directory(&mut self, step: u32, lower: NodeId, upper: NodeId) {
        let node = std::mem::replace(self.image.node_mut(upper), Node::implied_directory());
        let Kind::Directory(change) = &node.kind else { return };
        let Directory { children, whiteouts, opaque, implied, .. } = *change;
        let Some(below) = self.image.directory_mut(lower) else { return };
        let mut left = if opaque { NONE } else { below.children };
        let names = &mut self.image.names;
        let mut hidden = names.cursor(whiteouts);
        while let Some(link) = hidden.next(names) {
            let name = names.name(link).to_vec();
            names.remove(&mut left, &name);
        }
        if !implied {
            self.image.node_mut(lower).take_metadata(node);
        }
        let mut cursor = self.image.names.cursor(children);
        while let Some(link) = cursor.next(&self.image.names) {
            self.child(step, &mut left, link);
        }
        if let Some(below) = self.image.directory_mut(lower) {
            below.children = left;
        }
    }

    /// Puts an upper name among the lower ones that are `left`.
    fn child(&mut self, step: u32, left: &mut LinkId, link: LinkId) {
        let child = NodeId::new(self.image.names.child(link));
        let below = self.image.names.find(*left, self.image.names.name(link));
        if let Some(directory) = self.image.node(child).directory() {
            let implied = directory.implied;
            let lower = below.map(|below| NodeId::new(self.image.names.child(below)));
            match lower.map(|id| (id, &self.image.node(id).kind)) {
                Some((id, Kind::Directory(_))) => {
                    let step = self.step(step, link);
                    self.pending.push((step, id, child));
                    return;
                }
                Some((_, Kind::Symlink { .. })) if implied => {
                    let step = self.step(step, link);
                    self.redirected.push_back((step, child));
                    return;
                }
                _ => self.image.settle(child),
            }
        }
        match below {
            Some(below) => self.image.names.set_child(below, child.number()),
            None => self.image.names.insert(left, link),
        }
    }

    fn step(&mut self, above: u32, link: LinkId) -> u32 {
        self.steps.push((above, link));
        self.steps.len() as u32 - 1
    }

    fn path(&self, mut step: u32) -> ImagePath {
        let mut links = Vec::new();
        while let Some((above, link)) = self.steps.get(step as usize) {
            links.push(*link);
            step = *above;
        }
        let mut path = Vec::new();
        for link in links.into_iter().rev() {
            join(&mut path, self.image.names.name(link));
        }
        ImagePath::from_clean(path)
    }

    /// Merges an implied directory into the one that a symbolic link names. A link to nothing leads to a new
    /// directory; a link to another kind of file is replaced, as overlayfs does.
    fn redirect(&mut self, step: u32, directory: NodeId) -> Result<()> {
        let path = self.path(step);
        if let Some(target) = self.image.directory_at(&path, Missing::Imply)? {
            self.pending.push((step, target, directory));
            self.run();
        } else if let Some(parent) = self.image.parent_of(&path, Missing::Imply)? {
            self.image.settle(directory);
            self.image.link(parent, path.name(), directory)?;
        }
        Ok(())
    }
}
