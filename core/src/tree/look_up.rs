//! From a path as a user writes it to a node.

use crate::Result;
use crate::layer::ImagePath;

use super::fault::TreeFault;
use super::{Kind, NodeId, Tree};

/// Symbolic links followed for one path: as many as Linux follows (`path_resolution(7)`).
const LINKS: usize = 40;

impl<C> Tree<C> {
    /// The node under a path that a user writes: from the root, with a slash in front or without one, `.` and `..` taken
    /// as a kernel takes them, the root's parent being the root. Symbolic links on the way are followed inside the tree. One
    /// at the end is followed if `follow` says so or a slash stands behind it. `None` when there is no such file.
    ///
    /// ```
    /// use plyfold_core::layer::{Entry, EntryKind, FileKind, ImagePath, Metadata};
    /// use plyfold_core::tree::{LayerTreeBuilder, NodeId, Tree};
    ///
    /// let mut layer = LayerTreeBuilder::<()>::new();
    /// let kind = EntryKind::Node(FileKind::Symlink { target: b"/.."[..].into() });
    /// layer.insert(Entry { path: ImagePath::ROOT.join(b"up"), kind, metadata: Metadata::default() }, |_, _| Ok(()))?;
    /// let image = Tree::from_layers([layer.finish()])?;
    /// assert_eq!(image.look_up(b"up/up", true)?, Some(NodeId::ROOT));
    /// assert_eq!(image.look_up(b"/up/", false)?, Some(NodeId::ROOT));
    /// assert_ne!(image.look_up(b"/up", false)?, Some(NodeId::ROOT));
    /// assert_eq!(image.look_up(b"up/none", true)?, None);
    /// # Ok::<(), plyfold_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when more than 40 symbolic links lie on the way.
    pub fn look_up(&self, path: &[u8], follow: bool) -> Result<Option<NodeId>> {
        let mut way = vec![NodeId::ROOT];
        let mut pending: Vec<&[u8]> = path.split(|byte| *byte == b'/').rev().collect();
        let mut links = 0;
        while let Some(component) = pending.pop() {
            let here = way.last().copied().unwrap_or(NodeId::ROOT);
            if self.node(here).directory().is_none() {
                // Also for `file/`, which a kernel refuses, too.
                return Ok(None);
            }
            match component {
                b"" | b"." => continue,
                b".." => {
                    way.truncate((way.len() - 1).max(1));
                    continue;
                }
                _ => {}
            }
            let Some(child) = self.child(here, component) else { return Ok(None) };
            match &self.node(child).kind {
                Kind::Symlink { target } if follow || !pending.is_empty() => {
                    links += 1;
                    if links > LINKS {
                        return Err(TreeFault::Links(ImagePath::from_clean(path.to_vec()), LINKS).into());
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    pending.extend(target.split(|byte| *byte == b'/').rev());
                }
                _ => way.push(child),
            }
        }
        Ok(way.pop())
    }
}
