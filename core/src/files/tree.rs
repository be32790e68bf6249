//! Files of a tree, for readers that hold one.

use crate::Result;
use crate::tree::{Kind, NodeId, Tree};

use super::info::{FileInfo, FileType, Files, FilesFault, shown};

/// A tree, and what reads the bytes of its files: that makes it [`Files`].
pub trait TreeFiles {
    /// Where the bytes of a regular file lie.
    type Content;

    /// Names and metadata.
    fn tree(&self) -> &Tree<Self::Content>;

    /// Hands the bytes of a regular file to `take`, piece by piece, holes as zeros.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Io`](crate::ErrorKind::Io),
    /// [`Unsupported`](crate::ErrorKind::Unsupported); those of `take`.
    fn copy(&mut self, file: NodeId, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>;
}

impl<T: TreeFiles> Files for T {
    fn file(&mut self, path: &[u8], follow: bool) -> Result<FileInfo> {
        let name = path.rsplit(|byte| *byte == b'/').find(|name| !name.is_empty()).unwrap_or_default();
        Ok(info(self.tree(), name, find(self.tree(), path, follow)?))
    }

    fn list(&mut self, directory: &[u8]) -> Result<Vec<FileInfo>> {
        let tree = self.tree();
        let id = find(tree, directory, true)?;
        if tree.node(id).directory().is_none() {
            return Err(FilesFault::NoDirectory(shown(directory)).into());
        }
        Ok(tree.children(id).map(|(name, child)| info(tree, name, child)).collect())
    }

    fn read(&mut self, path: &[u8], take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let id = find(self.tree(), path, true)?;
        match file_type(&self.tree().node(id).kind) {
            FileType::Regular => self.copy(id, take),
            FileType::Directory => Err(FilesFault::Directory(shown(path)).into()),
            other => Err(FilesFault::Special(shown(path), other).into()),
        }
    }
}

fn find<C>(tree: &Tree<C>, path: &[u8], follow: bool) -> Result<NodeId> {
    tree.look_up(path, follow)?.ok_or_else(|| FilesFault::Missing(shown(path)).into())
}

/// What a tree knows of a node under a name.
fn info<C>(tree: &Tree<C>, name: &[u8], id: NodeId) -> FileInfo {
    let node = tree.node(id);
    let name = if id == NodeId::ROOT { b"/" } else { name };
    let mut info = FileInfo::new(name.to_vec(), file_type(&node.kind));
    match &node.kind {
        Kind::BlockDevice { major, minor } | Kind::CharDevice { major, minor } => {
            info.device = Some((*major, *minor));
        }
        Kind::File { size, .. } => info.size = *size,
        Kind::Symlink { target } => {
            info.size = target.len() as u64;
            info.target = Some(target.clone());
        }
        Kind::Directory(_) | Kind::Fifo | Kind::Socket => {}
    }
    FileInfo {
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        mtime: node.mtime,
        links: Some(tree.links(id)),
        xattrs: Some(node.xattrs.clone()),
        ..info
    }
}

fn file_type<C>(kind: &Kind<C>) -> FileType {
    match kind {
        Kind::BlockDevice { .. } => FileType::BlockDevice,
        Kind::CharDevice { .. } => FileType::CharDevice,
        Kind::Directory(_) => FileType::Directory,
        Kind::Fifo => FileType::Fifo,
        Kind::File { .. } => FileType::Regular,
        Kind::Socket => FileType::Socket,
        Kind::Symlink { .. } => FileType::Symlink,
    }
}
