//! Layers over layers.

use std::collections::VecDeque;

use crate::layer::ImagePath;
use crate::{Error, Result};

use super::resolve::Missing;
use super::{Directory, Kind, LayerTree, Node, NodeId, Tree};

impl<C> Tree<C> {
    /// What an image of these layers contains, bottom first: no whiteouts, nothing opaque, links counted.
    ///
    /// Takes time in proportion to the entries of each layer, whatever lies below it.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for a hard link to a file that no layer has, and for directories
    /// behind more than 40 symbolic links; what `layers` reports.
    pub fn from_layers(layers: impl IntoIterator<Item = Result<LayerTree<C>>>) -> Result<Self> {
        let mut image = Self::new();
        for layer in layers {
            image.stack(layer?)?;
        }
        image.finish();
        Ok(image)
    }

    fn stack(&mut self, layer: LayerTree<C>) -> Result<()> {
        // Found before anything changes: the layer may also hide the name that it links to.
        let mut links = Vec::with_capacity(layer.lower_links.len());
        for link in layer.lower_links {
            match self.find(&link.target)? {
                Some(id) if self.node(id).directory().is_none() => {
                    links.push((link.directory, link.name, id));
                }
                found => {
                    let fault = if found.is_some() { "is a directory" } else { "is in no layer" };
                    let name = String::from_utf8_lossy(&link.name).into_owned();
                    let name = crate::printable(&name);
                    return Err(Error::corrupt(format!(
                        "{name} is a hard link to {}, which {fault}",
                        link.target
                    )));
                }
            }
        }
        let upper = self.adopt(layer.tree);
        for (directory, name, id) in links {
            self.link(directory.shifted(upper.index() as u32), &name, id);
        }
        let mut merge = Merge {
            image: self,
            pending: vec![(ImagePath::ROOT, NodeId::ROOT, upper)],
            redirected: VecDeque::new(),
        };
        merge.run();
        while let Some((path, directory)) = merge.redirected.pop_front() {
            merge.redirect(path, directory)?;
        }
        Ok(())
    }

    /// Moves another tree's nodes into this arena; yields where its root now is.
    fn adopt(&mut self, other: Self) -> NodeId {
        let root = NodeId::ROOT.shifted(self.nodes.len() as u32);
        self.nodes.extend(other.nodes.into_iter().map(|mut node| {
            if let Kind::Directory(directory) = &mut node.kind {
                for child in directory.children.values_mut() {
                    *child = child.shifted(root.index() as u32);
                }
            }
            node
        }));
        root
    }
}

struct Merge<'a, C> {
    image: &'a mut Tree<C>,
    /// Directories of both sides: path, lower, upper.
    pending: Vec<(ImagePath, NodeId, NodeId)>,
    /// Implied directories over a symbolic link of a lower layer.
    redirected: VecDeque<(ImagePath, NodeId)>,
}

impl<C> Merge<'_, C> {
    fn run(&mut self) {
        while let Some((path, lower, upper)) = self.pending.pop() {
            self.directory(&path, lower, upper);
        }
    }

    fn directory(&mut self, path: &ImagePath, lower: NodeId, upper: NodeId) {
        let mut node = std::mem::replace(self.image.node_mut(upper), Node::implied_directory());
        let Kind::Directory(change) = &mut node.kind else { return };
        let change = std::mem::take(change);
        if let Some(directory) = self.image.directory_mut(lower) {
            if change.opaque {
                directory.children.clear();
            }
            for name in &change.whiteouts {
                directory.children.remove(name);
            }
        }
        if !change.implied {
            self.image.node_mut(lower).take_metadata(node);
        }
        for (name, child) in change.children {
            self.child(path, lower, &name, child);
        }
    }

    fn child(&mut self, path: &ImagePath, lower: NodeId, name: &[u8], child: NodeId) {
        let below = self.image.child(lower, name);
        if let Some(directory) = self.image.node(child).directory() {
            match below.map(|id| (id, &self.image.node(id).kind)) {
                Some((id, Kind::Directory(_))) => {
                    self.pending.push((path.join(name), id, child));
                    return;
                }
                Some((_, Kind::Symlink { .. })) if directory.implied => {
                    self.redirected.push_back((path.join(name), child));
                    return;
                }
                _ => self.settle(child),
            }
        }
        self.image.link(lower, name, child);
    }

    /// Merges an implied directory into the one that a symbolic link names. A link to nothing leads to a new
    /// directory; a link to another kind of file is replaced, as overlayfs does.
    fn redirect(&mut self, path: ImagePath, directory: NodeId) -> Result<()> {
        if let Some(target) = self.image.directory_at(&path, Missing::Imply)? {
            self.pending.push((path, target, directory));
            self.run();
        } else if let Some(parent) = self.image.parent_of(&path, Missing::Imply)? {
            self.settle(directory);
            self.image.link(parent, path.name(), directory);
        }
        Ok(())
    }

    /// Drops what speaks of lower layers from a directory that has none below it.
    fn settle(&mut self, directory: NodeId) {
        let mut pending = vec![directory];
        while let Some(id) = pending.pop() {
            let Some(directory) = self.image.directory_mut(id) else { continue };
            let Directory { whiteouts, opaque, children, .. } = directory;
            whiteouts.clear();
            *opaque = false;
            pending.extend(children.values().copied());
        }
    }
}
