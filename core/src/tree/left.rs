//! Directories that lose what a lower layer has under their name, after the layer has put something into them.
//!
//! Until then a symbolic link of a lower layer at that name was followed: what was put there stands where the link
//! points. A [`LayerTree`](super::LayerTree) does not hold that, so it lists the names, and the layer is refused
//! over an image that has such a link.

use crate::Result;
use crate::layer::ImagePath;

use super::builder::{LayerTreeBuilder, Left};
use super::names::{LinkId, NONE};
use super::node::path_up;
use super::{HeapSize, NodeId};

impl<C: HeapSize> LayerTreeBuilder<C> {
    /// Notes the directory of that name, if there is one, and those below it.
    pub(super) fn leave(&mut self, parent: NodeId, name: &[u8]) -> Result<()> {
        let Some(directory) = self.tree.node(parent).directory() else { return Ok(()) };
        match self.tree.names.find(directory.children, name) {
            Some(link) => self.leave_all(vec![(parent, link)]),
            None => Ok(()),
        }
    }

    /// Notes the directories below one that becomes opaque.
    pub(super) fn leave_children(&mut self, id: NodeId) -> Result<()> {
        let mut below = Vec::new();
        self.directories_below(id, &mut below);
        self.leave_all(below)
    }

    fn leave_all(&mut self, mut pending: Vec<(NodeId, LinkId)>) -> Result<()> {
        while let Some((parent, name)) = pending.pop() {
            let id = NodeId::new(self.tree.names.child(name));
            let Some(directory) = self.tree.node(id).directory() else { continue };
            let left = Left { directory: id, parent, name, followed: directory.implied || directory.late };
            self.tree.charge(size_of::<Left>())?;
            self.left.push(left);
            self.directories_below(id, &mut pending);
        }
        Ok(())
    }

    /// The directories in one that shows lower layers.
    fn directories_below(&self, id: NodeId, found: &mut Vec<(NodeId, LinkId)>) {
        if self.tree.node(id).directory().is_some_and(|directory| !directory.opaque) {
            found.extend(self.tree.subdirectories(id).map(|(link, _)| (id, link)));
        }
    }

    /// Adds a name at which no lower layer may have a symbolic link.
    pub(super) fn assume(&mut self, path: ImagePath) -> Result<()> {
        self.tree.charge(size_of::<ImagePath>() + path.as_bytes().len())?;
        self.assumed.push(path);
        Ok(())
    }

    /// Whether a path leads through a hard link to a lower file. If so, that file is no symbolic link.
    pub(super) fn assume_links(&mut self, path: &ImagePath) -> Result<bool> {
        if self.links.is_empty() {
            return Ok(false);
        }
        let (real, _) = self.tree.real_path(path)?;
        let mut here = NodeId::ROOT;
        for name in real.components() {
            if let Some(target) = self.links.target(here, name).cloned() {
                return self.assume(target).map(|()| true);
            }
            let Some(child) = self.tree.child(here, name) else { break };
            here = child;
        }
        Ok(false)
    }

    /// All such names.
    pub(super) fn assumed(&mut self) -> Result<Vec<ImagePath>> {
        let left = std::mem::take(&mut self.left);
        if left.iter().any(|left| left.followed) {
            let mut above = vec![(NodeId::ROOT, NONE); self.tree.capacity()];
            for Left { directory, parent, name, .. } in &left {
                above[directory.index()] = (*parent, *name);
            }
            let mut pending = vec![NodeId::ROOT];
            while let Some(id) = pending.pop() {
                for (link, child) in self.tree.subdirectories(id) {
                    above[child.index()] = (id, link);
                    pending.push(child);
                }
            }
            for Left { directory, .. } in left.iter().filter(|left| left.followed) {
                let mut names = Vec::new();
                let mut at = *directory;
                while let (parent, link) = above[at.index()]
                    && link != NONE
                {
                    names.push(self.tree.names.name(link));
                    at = parent;
                }
                // It stood below an opaque directory that is gone: no lower layer shows there.
                if at != NodeId::ROOT {
                    continue;
                }
                let path = path_up(names.into_iter());
                self.assume(path)?;
            }
        }
        let mut assumed = std::mem::take(&mut self.assumed);
        assumed.sort_unstable();
        assumed.dedup();
        Ok(assumed)
    }
}
