//! The tree of an image.

use std::collections::HashMap;
use std::io::{Read, Seek};

use plyfold_core::Result;
use plyfold_core::tree::{Kind, Node, NodeId, Tree};

use super::image::Reader;
use super::node::block_names;
use crate::content::Content;
use crate::fault::ErofsFault;
use crate::overlay;

/// Bytes of a path. Layers have shorter ones; symbolic links can make somewhat longer ones of them.
const PATH: usize = 16 << 10;

/// A directory whose names are still to be read, with the length of its path.
struct Pending {
    id: NodeId,
    nid: u64,
    path: u32,
}

impl<R: Read + Seek> Reader<R> {
    /// The root directory's owner, mode, time and xattrs, without its names, and whether no entry made it.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt), [`Unsupported`](plyfold_core::ErrorKind::Unsupported).
    pub fn root(&mut self) -> Result<Node<Content>> {
        self.claimed = 0;
        self.find_packed()?;
        self.find_prefixes()?;
        let mut root = self.node(self.superblock.root(), &mut Tree::new())?.0;
        if let Kind::Directory(directory) = &mut root.kind {
            directory.implied = overlay::is_implied(&root.xattrs);
        }
        root.xattrs = overlay::without_marks(&root.xattrs);
        Ok(root)
    }

    /// All that the image contains. Overlayfs' marks are files and xattrs like any other.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for metadata that no writer makes,
    /// [`Limit`](plyfold_core::ErrorKind::Limit) for paths longer than any layer's,
    /// [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for clusters larger than Linux takes, and blocks beyond 2^32.
    pub fn tree(&mut self) -> Result<Tree<Content>> {
        let mut tree = self.unfinished_tree()?;
        tree.finish();
        Ok(tree)
    }

    /// The same, to be changed: links are not counted.
    pub(crate) fn unfinished_tree(&mut self) -> Result<Tree<Content>> {
        self.claimed = 0;
        self.sets.clear();
        let mut tree = Tree::within(self.limits.clone());
        self.find_packed()?;
        self.find_prefixes()?;
        let root_nid = self.superblock.root();
        let (root, _) = self.node(root_nid, &mut tree)?;
        if root.directory().is_none() {
            return Err(ErofsFault::Malformed("the root inode is not a directory").into());
        }
        *tree.node_mut(NodeId::ROOT) = root;
        // Directories, and files of several names.
        let mut known: HashMap<u64, NodeId> = HashMap::from([(root_nid, NodeId::ROOT)]);
        let mut pending = vec![Pending { id: NodeId::ROOT, nid: root_nid, path: 0 }];
        while let Some(directory) = pending.pop() {
            let mut names = self.names(directory.nid)?;
            while let Some(block) = self.next_names(&mut names)? {
                for (name, child_nid) in block_names(&block)? {
                    if !names.follows(name)? {
                        continue;
                    }
                    let child = match known.get(&child_nid) {
                        Some(id) if tree.node(*id).directory().is_some() => {
                            return Err(ErofsFault::DirectoryNames(child_nid).into());
                        }
                        Some(id) => *id,
                        None => {
                            let (node, inode) = self.node(child_nid, &mut tree)?;
                            let is_directory = node.directory().is_some();
                            let id = tree.push(node)?;
                            if is_directory || inode.nlink.get() > 1 {
                                known.insert(child_nid, id);
                            }
                            if is_directory {
                                let path = directory.path as usize + 1 + name.len();
                                if path > PATH {
                                    return Err(ErofsFault::PathLong(PATH).into());
                                }
                                pending.push(Pending { id, nid: child_nid, path: path as u32 });
                            }
                            id
                        }
                    };
                    tree.link(directory.id, name, child)?;
                }
            }
        }
        Ok(tree)
    }

    /// The same with all data on one device.
    pub(crate) fn tree_on(&mut self, device: u16) -> Result<Tree<Content>> {
        let mut tree = self.unfinished_tree()?;
        for content in tree.contents_mut() {
            content.put_on(device)?;
        }
        Ok(tree)
    }
}
