//! One layer's tree put over the image below it.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::Result;

use super::fault::TreeFault;
use super::names::{LinkId, NONE};
use super::order::Redirects;
use super::resolve::Missing;
use super::steps::Steps;
use super::{Directory, HeapSize, Kind, Node, NodeId, Tree};

/// What the layer has done to a directory of the image.
#[derive(Clone, Copy, Debug, Default)]
struct Merged {
    opaque: bool,
    /// It has the layer's metadata.
    explicit: bool,
}

/// A merge of the layer whose nodes are those from `first` on.
pub(super) struct Merge<'a, C> {
    image: &'a mut Tree<C>,
    first: NodeId,
    steps: Steps,
    /// Directories of both sides: step, lower, upper.
    pending: Vec<(u32, NodeId, NodeId)>,
    /// Implied directories over a symbolic link of a lower layer.
    redirected: VecDeque<(u32, NodeId)>,
    redirects: Redirects,
    /// Lower files that the layer's links are to.
    linked: HashSet<NodeId>,
    /// Lower directories that the layer has changed; not kept where nothing is redirected.
    merged: HashMap<NodeId, Merged>,
    /// Whether directories are merged under another name than their own.
    elsewhere: bool,
}

impl<'a, C: HeapSize> Merge<'a, C> {
    pub(super) fn new(
        image: &'a mut Tree<C>,
        first: NodeId,
        redirects: Redirects,
        linked: HashSet<NodeId>,
    ) -> Self {
        Self {
            image,
            first,
            steps: Steps::default(),
            pending: vec![(NONE, NodeId::ROOT, first)],
            redirected: VecDeque::new(),
            redirects,
            linked,
            merged: HashMap::new(),
            elsewhere: false,
        }
    }

    pub(super) fn run(mut self) -> Result<()> {
        self.merge()?;
        self.elsewhere = true;
        while let Some((step, directory)) = self.redirected.pop_front() {
            self.redirect(step, directory)?;
        }
        Ok(())
    }

    fn merge(&mut self) -> Result<()> {
        while let Some((step, lower, upper)) = self.pending.pop() {
            self.directory(step, lower, upper)?;
        }
        Ok(())
    }

    fn directory(&mut self, step: u32, lower: NodeId, upper: NodeId) -> Result<()> {
        let node = std::mem::replace(self.image.node_mut(upper), Node::implied_directory());
        let Kind::Directory(change) = &node.kind else { return Ok(()) };
        let Directory { children, whiteouts, opaque, implied, .. } = *change;
        let same = self.image.node(lower).has_metadata_of(&node);
        self.check_directory(step, lower, opaque, implied || same)?;
        let Some(below) = self.image.directory_mut(lower) else { return Ok(()) };
        let mut left = if opaque { NONE } else { below.children };
        let mut hidden = self.image.names.cursor(whiteouts);
        while let Some(link) = hidden.next(&self.image.names) {
            let name = self.image.names.name(link).to_vec();
            let Some(link) = self.image.names.remove(&mut left, &name) else { continue };
            let hidden = NodeId::new(self.image.names.child(link));
            if self.elsewhere && hidden >= self.first {
                // A whiteout hides what lower layers have.
                self.image.names.insert(&mut left, link);
            } else if self.is_of_layer(hidden) {
                return Err(self.conflict(step, &name));
            }
        }
        if !implied {
            self.image.node_mut(lower).take_metadata(node);
        }
        let mut cursor = self.image.names.cursor(children);
        while let Some(link) = cursor.next(&self.image.names) {
            self.child(step, &mut left, link)?;
        }
        if let Some(below) = self.image.directory_mut(lower) {
            below.children = left;
        }
        Ok(())
    }

    /// Puts an upper name among the lower ones that are `left`.
    fn child(&mut self, step: u32, left: &mut LinkId, link: LinkId) -> Result<()> {
        let child = NodeId::new(self.image.names.child(link));
        let below = self.image.names.find(*left, self.image.names.name(link));
        let lower = below.map(|below| NodeId::new(self.image.names.child(below)));
        if let Some(directory) = self.image.node(child).directory() {
            let implied = directory.implied;
            match lower.map(|id| (id, &self.image.node(id).kind)) {
                Some((id, Kind::Directory(_))) => {
                    let step = self.steps.push(step, link);
                    self.pending.push((step, id, child));
                    return Ok(());
                }
                Some((_, Kind::Symlink { .. })) if implied => {
                    let step = self.steps.push(step, link);
                    self.redirected.push_back((step, child));
                    return Ok(());
                }
                // Marks below a file hide nothing.
                Some(_) if implied && self.has_marks_alone(child) => return Ok(()),
                _ => self.image.settle(child),
            }
        }
        if lower.is_some_and(|id| self.is_of_layer(id)) {
            let name = self.image.names.name(link).to_vec();
            return Err(self.conflict(step, &name));
        }
        match below {
            Some(below) => self.image.names.set_child(below, child.number()),
            None => self.image.names.insert(left, link),
        }
        Ok(())
    }

    /// Merges an implied directory into the one that a symbolic link names. A link to nothing leads to a new
    /// directory; a link to another kind of file is replaced, as overlayfs does.
    fn redirect(&mut self, step: u32, directory: NodeId) -> Result<()> {
        let path = self.steps.path(step, &self.image.names);
        let place = NodeId::new(directory.number() - self.first.number());
        let before = self.redirects.get(&place).copied().flatten();
        // Marks alone hide something, and make nothing.
        let holds = !self.has_marks_alone(directory);
        let missing = if holds { Missing::Imply } else { Missing::Absent };
        let target = self.image.directory_at(&path, missing);
        if before.is_some() && !target.as_ref().is_ok_and(|target| *target == before) {
            return Err(TreeFault::Order(
                path,
                "changes what stands behind this symbolic link, and where it leads",
            )
            .into());
        }
        if let Some(target) = target? {
            self.pending.push((step, target, directory));
            self.merge()?;
        } else if !holds {
            return Ok(());
        } else if let Some(parent) = self.image.parent_of(&path, Missing::Imply)? {
            self.image.settle(directory);
            self.image.link(parent, path.name(), directory)?;
        }
        Ok(())
    }

    /// Whether there is nothing in and below an implied directory but whiteouts and opaque marks.
    fn has_marks_alone(&self, directory: NodeId) -> bool {
        let mut pending = vec![directory];
        while let Some(id) = pending.pop() {
            if self.image.node(id).directory().is_none_or(|directory| !directory.implied) {
                return false;
            }
            pending.extend(self.image.children(id).map(|(_, child)| child));
        }
        true
    }

    /// Notes that a directory is merged, and refuses one in which the order of changes decides.
    fn check_directory(&mut self, step: u32, lower: NodeId, opaque: bool, implied: bool) -> Result<()> {
        if self.redirects.is_empty() {
            return Ok(());
        }
        if self.elsewhere {
            let of_layer = lower >= self.first;
            let before = self.merged.get(&lower).copied().unwrap_or_default();
            let own = self.image.node(lower).directory().filter(|_| of_layer);
            let explicit = before.explicit || own.is_some_and(|directory| !directory.implied);
            if before.opaque || (explicit && !implied) || (opaque && self.is_of_layer(lower)) {
                return Err(self.conflict(step, b""));
            }
        }
        let merged = self.merged.entry(lower).or_default();
        merged.opaque |= opaque;
        merged.explicit |= !implied;
        Ok(())
    }

    /// Whether a file that is replaced or hidden is the layer's own, or has something of the layer in it, or is what
    /// a link of the layer is to. Each directory is looked at once: it is gone then.
    fn is_of_layer(&self, id: NodeId) -> bool {
        if !self.elsewhere {
            return false;
        }
        let mut pending = vec![id];
        while let Some(id) = pending.pop() {
            if id >= self.first || self.linked.contains(&id) || self.merged.contains_key(&id) {
                return true;
            }
            let children = self.image.children(id).map(|(_, child)| child);
            pending.extend(children);
        }
        false
    }

    fn conflict(&self, step: u32, name: &[u8]) -> crate::Error {
        let mut path = self.steps.path(step, &self.image.names);
        if !name.is_empty() {
            path = path.join(name);
        }
        TreeFault::Order(path, "changes this file under two names, through a symbolic link of a lower layer")
            .into()
    }
}
