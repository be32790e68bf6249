//! From paths to nodes, following symbolic links inside the tree.

use std::borrow::Cow;

use crate::Result;
use crate::layer::ImagePath;

use super::fault::TreeFault;
use super::node::path_of;
use super::{HeapSize, Kind, Node, NodeId, Tree};

/// Symbolic links followed for one path: as many as Linux follows (`path_resolution(7)`).
const LINKS: usize = 40;
/// Bytes of the path that a resolved one may have: links could otherwise nest directories without end.
const PATH: usize = 4096;

/// What to do where a path's directory is missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Missing {
    /// Stop: there is no such directory.
    Absent,
    /// Make it, implied; a file or a whiteout that stands there in its place stops the search.
    Imply,
    /// Make it, implied and opaque where it replaces a file.
    Replace,
}

impl<C: HeapSize> Tree<C> {
    /// The node under a path, a symbolic link at its end not followed.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when more than 40 symbolic links lie on the way,
    /// [`Limit`](crate::ErrorKind::Limit) when they lead to a path of more than 4,096 bytes.
    pub fn find(&mut self, path: &ImagePath) -> Result<Option<NodeId>> {
        if path.is_root() {
            return Ok(Some(NodeId::ROOT));
        }
        let parent = self.parent_of(path, Missing::Absent)?;
        Ok(parent.and_then(|parent| self.child(parent, path.name())))
    }

    /// The directory that holds a path's last component.
    pub(super) fn parent_of(&mut self, path: &ImagePath, missing: Missing) -> Result<Option<NodeId>> {
        let mut components = path.components();
        components.next_back();
        self.resolve(path, components, missing)
    }

    /// The directory under a path, symbolic links followed to the end.
    pub(super) fn directory_at(&mut self, path: &ImagePath, missing: Missing) -> Result<Option<NodeId>> {
        self.resolve(path, path.components(), missing)
    }

    /// The path without symbolic links of this tree, one at its end apart. Names that the tree does not have stay as
    /// they are. Also yields the names that `..` leaves although only a lower layer knows what they are: the path
    /// holds unless one is a symbolic link there.
    pub(super) fn real_path(&self, path: &ImagePath) -> Result<(ImagePath, Vec<ImagePath>)> {
        let mut components = path.components();
        let Some(last) = components.next_back() else { return Ok((ImagePath::ROOT, Vec::new())) };
        let mut pending: Vec<&[u8]> = components.rev().collect();
        let mut way: Vec<(Option<NodeId>, &[u8])> = Vec::new();
        let mut assumed = Vec::new();
        let mut links = 0;
        while let Some(component) = pending.pop() {
            let here = way.last().map_or(Some(NodeId::ROOT), |(id, _)| *id);
            match component {
                b"" | b"." => continue,
                b".." => {
                    let is_known = here.and_then(|id| self.node(id).directory()).is_some_and(|d| !d.implied);
                    if !is_known && !way.is_empty() {
                        assumed.push(path_of(way.iter().map(|(_, name)| *name)));
                    }
                    way.pop();
                    continue;
                }
                _ => {}
            }
            let child = here.and_then(|id| self.child(id, component));
            if let Some(Kind::Symlink { target }) = child.map(|id| &self.node(id).kind) {
                links += 1;
                if links > LINKS {
                    return Err(TreeFault::Links(path.clone(), LINKS).into());
                }
                if target.starts_with(b"/") {
                    way.clear();
                }
                pending.extend(target.split(|byte| *byte == b'/').rev());
            } else {
                way.push((child, component));
            }
        }
        let real = path_of(way.iter().map(|(_, name)| *name).chain([last]));
        if real.as_bytes().len() > PATH {
            return Err(TreeFault::PathLong(path.clone(), PATH).into());
        }
        Ok((real, assumed))
    }

    fn resolve<'a>(
        &mut self,
        path: &ImagePath,
        components: impl DoubleEndedIterator<Item = &'a [u8]>,
        missing: Missing,
    ) -> Result<Option<NodeId>> {
        // The directories on the way, each with the length of its path.
        let mut way = vec![(NodeId::ROOT, 0)];
        // Only the rare path through a symbolic link owns its components.
        let mut pending: Vec<Cow<'_, [u8]>> = components.rev().map(Cow::Borrowed).collect();
        let mut links = 0;
        while let Some(component) = pending.pop() {
            let (here, length) = way.last().copied().unwrap_or((NodeId::ROOT, 0));
            let length = length + 1 + component.len();
            if length > PATH {
                return Err(TreeFault::PathLong(path.clone(), PATH).into());
            }
            match &*component {
                b"" | b"." => continue,
                b".." => {
                    if way.len() > 1 {
                        way.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let found = self.child(here, &component);
            match found.map(|id| (id, &self.node(id).kind)) {
                Some((id, Kind::Directory(_))) => way.push((id, length)),
                Some((_, Kind::Symlink { target })) => {
                    links += 1;
                    if links > LINKS {
                        return Err(TreeFault::Links(path.clone(), LINKS).into());
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    pending.extend(target.split(|byte| *byte == b'/').rev().map(|part| part.to_vec().into()));
                }
                Some(_) if missing != Missing::Replace => return Ok(None),
                None if missing == Missing::Absent => return Ok(None),
                None if missing == Missing::Imply && self.is_hidden(here, &component) => return Ok(None),
                replaced => {
                    // In place of a file of this layer or a whiteout, it is new and hides what lies below.
                    let fresh = replaced.is_some() || self.is_hidden(here, &component);
                    let id = self.push(Node::implied_directory())?;
                    // An entry pays for its own name; this one would be free, and one path has many.
                    self.charge(component.len() + path.name().len())?;
                    if let Some(directory) = self.directory_mut(id) {
                        directory.opaque = fresh;
                        directory.implied = !fresh;
                    }
                    self.link(here, &component, id)?;
                    way.push((id, length));
                }
            }
        }
        Ok(way.pop().map(|(id, _)| id))
    }
}
