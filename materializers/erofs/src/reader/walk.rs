//! The tree of an image, and the data of its files.

use std::collections::HashMap;
use std::io::{Read, Seek};

use plyfold_core::Result;
use plyfold_core::tree::{Kind, Node, NodeId, Tree};

use super::image::Reader;
use super::node::block_names;
use crate::content::{Chunks, Content, DataLayout};
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
        let mut root = self.node(self.superblock.root_nid.into(), &mut Tree::new())?.0;
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
    /// [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for compressed files.
    pub fn tree(&mut self) -> Result<Tree<Content>> {
        self.claimed = 0;
        self.sets.clear();
        let mut tree = Tree::within(self.limits.clone());
        let root_nid = self.superblock.root_nid.into();
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
        tree.finish();
        Ok(tree)
    }

    /// The same with all data on one device.
    pub(crate) fn tree_on(&mut self, device: u16) -> Result<Tree<Content>> {
        let mut tree = self.tree()?;
        for content in tree.contents_mut() {
            content.put_on(device)?;
        }
        Ok(tree)
    }

    /// Reads the data of a regular file of `size` bytes from `offset` on, as much as lies in one piece. Yields
    /// the number of bytes read, 0 at the end of the file. Data on devices is read as if they followed the image.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) when the image has no such bytes, and
    /// [`Io`](plyfold_core::ErrorKind::Io).
    pub fn read(&mut self, content: &Content, size: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut count = size.saturating_sub(offset).min(buffer.len() as u64);
        if count == 0 {
            return Ok(0);
        }
        let block_size = self.superblock.block_size();
        let place = match &content.0 {
            DataLayout::Blocks { device, start } => Some((*device, u64::from(*start) * block_size + offset)),
            DataLayout::Inline { start, rest } => {
                let in_blocks = size - size % block_size;
                if offset < in_blocks {
                    count = count.min(in_blocks - offset);
                    Some((0, u64::from(*start) * block_size + offset))
                } else {
                    Some((0, rest + (offset - in_blocks)))
                }
            }
            DataLayout::Chunks(chunks) => {
                let Chunks { device, bits, runs } = &**chunks;
                let chunk = block_size << bits;
                let at = runs.partition_point(|run| run.first * chunk <= offset);
                let run = at.checked_sub(1).and_then(|at| runs.get(at));
                let run = run.filter(|run| offset < (run.first + run.count) * chunk);
                let end = match run {
                    Some(run) => (run.first + run.count) * chunk,
                    None => runs.get(at).map_or(size, |run| run.first * chunk),
                };
                count = count.min(end - offset);
                run.map(|run| (*device, u64::from(run.start) * block_size + offset - run.first * chunk))
            }
        };
        let buffer = &mut buffer[..count as usize];
        match place {
            None => buffer.fill(0),
            Some((device, at)) => {
                let flat = device.checked_sub(1).and_then(|device| self.devices.get(usize::from(device)));
                let base = flat.map_or(0, |device| u64::from(device.uniaddr) * block_size);
                self.source.data(base + at, buffer)?;
            }
        }
        Ok(buffer.len())
    }
}
