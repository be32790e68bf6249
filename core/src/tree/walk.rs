//! The names of a tree in order, and the paths that they make.

use crate::layer::{ImagePath, join};

use super::names::LinkId;
use super::node::{Children, path_up};
use super::{NodeId, Tree};

/// A name: the directory that it stands in, and its place there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    directory: NodeId,
    link: LinkId,
}

impl<C> Tree<C> {
    /// Every name with its node, parents before children, siblings in the order of their names' bytes.
    /// The root comes first, with the empty path. A file with several names comes several times.
    pub fn walk(&self) -> Walk<'_, C> {
        Walk { tree: self, path: Vec::new(), root: Some(NodeId::ROOT), way: Vec::new() }
    }

    /// The path of a name. `first` yields the place of each directory.
    pub(crate) fn path(&self, place: Place, first: impl Fn(NodeId) -> Option<Place>) -> ImagePath {
        let way = std::iter::successors(Some(place), |place| first(place.directory));
        path_up(way.map(|place| self.names.name(place.link)))
    }
}

/// The first places of nodes, in 8 bytes for each, which are taken when they are used.
#[derive(Debug)]
pub(crate) struct Places(Vec<u64>);

impl Places {
    pub(crate) fn new<C>(tree: &Tree<C>) -> Self {
        Self(vec![0; tree.capacity()])
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<Place> {
        let packed = self.0[id.index()].checked_sub(1)?;
        Some(Place { directory: NodeId::new((packed >> u32::BITS) as u32), link: packed as u32 })
    }

    pub(crate) fn set(&mut self, id: NodeId, place: Place) {
        let Place { directory, link } = place;
        self.0[id.index()] = (u64::from(directory.number()) << u32::BITS | u64::from(link)) + 1;
    }
}

/// The names of a tree in order. See [`Tree::walk`].
#[derive(Debug)]
pub struct Walk<'a, C> {
    tree: &'a Tree<C>,
    path: Vec<u8>,
    /// The root, before the first step.
    root: Option<NodeId>,
    /// The directories on the way, each with the length of its path.
    way: Vec<(usize, NodeId, Children<'a>)>,
}

impl<C> Walk<'_, C> {
    /// The next name, and where it stands; `None` for the root's place.
    pub(crate) fn step(&mut self) -> Option<(Option<Place>, NodeId)> {
        if let Some(root) = self.root.take() {
            self.enter(root);
            return Some((None, root));
        }
        loop {
            let (length, directory, children) = self.way.last_mut()?;
            self.path.truncate(*length);
            if let Some((link, id)) = children.next_link() {
                let place = Place { directory: *directory, link };
                join(&mut self.path, self.tree.names.name(link));
                self.enter(id);
                return Some((Some(place), id));
            }
            self.way.pop();
        }
    }

    /// The path of the name that the last step came to.
    pub(crate) fn path(&self) -> ImagePath {
        ImagePath::from_clean(self.path.clone())
    }

    fn enter(&mut self, id: NodeId) {
        if self.tree.node(id).directory().is_some() {
            self.way.push((self.path.len(), id, self.tree.children(id)));
        }
    }
}

impl<C> Iterator for Walk<'_, C> {
    type Item = (ImagePath, NodeId);

    fn next(&mut self) -> Option<Self::Item> {
        let (_, id) = self.step()?;
        Some((self.path(), id))
    }
}
