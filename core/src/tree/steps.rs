//! The ways to directories of a tree.

use crate::layer::ImagePath;

use super::names::{LinkId, Names};
use super::node::path_up;

/// Directories on the way, each by the step to the one above and the name in it. Paths are made of these where one
/// is needed.
#[derive(Debug, Default)]
pub(super) struct Steps(Vec<(u32, LinkId)>);

impl Steps {
    pub(super) fn push(&mut self, above: u32, link: LinkId) -> u32 {
        self.0.push((above, link));
        self.0.len() as u32 - 1
    }

    pub(super) fn path(&self, step: u32, names: &Names) -> ImagePath {
        let at = |step: u32| self.0.get(step as usize);
        let way = std::iter::successors(at(step), |(above, _)| at(*above));
        path_up(way.map(|(_, link)| names.name(*link)))
    }
}
