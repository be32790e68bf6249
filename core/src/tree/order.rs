//! What of a layer depends on symbolic links below it, found before the layer changes anything.

use std::collections::HashMap;

use crate::Result;
use crate::layer::ImagePath;

use super::fault::TreeFault;
use super::names::NONE;
use super::pending::LowerLink;
use super::resolve::Missing;
use super::steps::Steps;
use super::{HeapSize, Kind, NodeId, Tree};

/// Directories of a layer that stand over a symbolic link of a lower layer, by their place in the layer's tree, and
/// the directory where the link points, if there is one.
pub(super) type Redirects = HashMap<NodeId, Option<NodeId>>;

impl<C: HeapSize> Tree<C> {
    /// The file of this image that a layer's link is to; none if it is a file that the layer brings.
    pub(super) fn lower_file(&mut self, link: &LowerLink, layer: &Self) -> Result<Option<NodeId>> {
        let LowerLink { directory, name, target } = link;
        let found = self.find(target)?;
        if let Some(id) = found.filter(|id| self.node(*id).directory().is_none()) {
            let (real, _) = self.real_path(target)?;
            if real != *target && layer.hides(&real).unwrap_or(true) {
                return Err(TreeFault::Order(target.clone(), "links to this file").into());
            }
            return Ok(Some(id));
        }
        if layer.child(*directory, name).is_some() {
            return Ok(None);
        }
        let fault = if found.is_some() { "is a directory" } else { "is in no layer" };
        let name = crate::printable(&String::from_utf8_lossy(name));
        Err(TreeFault::HardLink(name, target.clone(), fault).into())
    }

    /// Whether this layer hides what lower layers have under a path without symbolic links; `None` when it has a file
    /// of that name instead.
    pub(super) fn hides(&self, path: &ImagePath) -> Option<bool> {
        let mut here = NodeId::ROOT;
        for name in path.components() {
            if self.node(here).directory().is_none_or(|directory| directory.opaque) {
                return Some(true);
            }
            let Some(child) = self.child(here, name) else { return Some(self.is_hidden(here, name)) };
            here = child;
        }
        None
    }

    /// Refuses a layer that takes the name of a symbolic link after it has followed the link.
    pub(super) fn check_assumed(&mut self, assumed: &[ImagePath]) -> Result<()> {
        for path in assumed {
            if let Some(id) = self.find(path)?
                && matches!(self.node(id).kind, Kind::Symlink { .. })
            {
                return Err(TreeFault::Order(path.clone(), FOLLOWED).into());
            }
        }
        Ok(())
    }

    /// The layer's directories that stand over a symbolic link of this image.
    pub(super) fn redirects(&mut self, layer: &Self) -> Result<Redirects> {
        let mut redirects = Redirects::new();
        let is_concerned = |id: NodeId| layer.node(id).directory().is_some_and(|d| d.implied || d.late);
        if !layer.ids().skip(1).any(is_concerned) {
            return Ok(redirects);
        }
        let mut steps = Steps::default();
        let mut pending = vec![(NONE, NodeId::ROOT, NodeId::ROOT)];
        while let Some((step, lower, upper)) = pending.pop() {
            for (link, child) in layer.subdirectories(upper) {
                let Some(directory) = layer.node(child).directory() else { continue };
                let Some(below) = self.child(lower, layer.names.name(link)) else { continue };
                let mut target = Some(below);
                let step = steps.push(step, link);
                if let Kind::Symlink { .. } = self.node(below).kind {
                    let path = steps.path(step, &layer.names);
                    if directory.late {
                        return Err(TreeFault::Order(path, FOLLOWED).into());
                    }
                    if !directory.implied {
                        continue;
                    }
                    target = self.directory_at(&path, Missing::Absent)?;
                    redirects.insert(child, target);
                }
                if let Some(target) = target.filter(|_| !directory.opaque) {
                    pending.push((step, target, child));
                }
            }
        }
        Ok(redirects)
    }
}

/// What a layer does that takes the name of a symbolic link after it has followed the link.
const FOLLOWED: &str = "changes what stands behind this symbolic link, and then the link";
