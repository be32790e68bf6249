//! Trees with other content.

use crate::Result;

use super::pages::Pages;
use super::{HeapSize, Kind, LayerTree, Node, Tree};

impl<C: HeapSize> LayerTree<C> {
    /// As [`Tree::map_contents`].
    ///
    /// # Errors
    /// As [`Tree::map_contents`].
    pub fn map_contents<D: HeapSize>(self, map: impl FnMut(u64, C) -> Result<D>) -> Result<LayerTree<D>> {
        let Self { tree, lower_links, assumed } = self;
        Ok(LayerTree { tree: tree.map_contents(map)?, lower_links, assumed })
    }
}

impl<C: HeapSize> Tree<C> {
    /// The same tree with something else for where the bytes of files lie: `map` gets the size of each and what is known.
    ///
    /// # Errors
    /// Those of `map`; [`Limit`](crate::ErrorKind::Limit) beyond [`TreeLimits::metadata`](crate::layer::TreeLimits::metadata).
    pub fn map_contents<D: HeapSize>(self, mut map: impl FnMut(u64, C) -> Result<D>) -> Result<Tree<D>> {
        let Self { nodes, names, limits, bytes, grant, sets } = self;
        let (mut before, mut after) = (0, 0);
        let mut mapped = Pages::new();
        for node in nodes {
            let Node { kind, mode, uid, gid, mtime, xattrs, names } = node;
            let kind = match kind {
                Kind::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
                Kind::CharDevice { major, minor } => Kind::CharDevice { major, minor },
                Kind::Directory(directory) => Kind::Directory(directory),
                Kind::Fifo => Kind::Fifo,
                Kind::File { size, content } => {
                    before += content.heap_bytes();
                    let content = map(size, content)?;
                    after += content.heap_bytes();
                    Kind::File { size, content }
                }
                Kind::Socket => Kind::Socket,
                Kind::Symlink { target } => Kind::Symlink { target },
            };
            mapped.push(Node { kind, mode, uid, gid, mtime, xattrs, names });
        }
        let bytes = bytes.saturating_sub(before as u64);
        let mut tree = Tree { nodes: mapped, names, limits, bytes, grant, sets };
        tree.charge(after)?;
        Ok(tree)
    }
}
