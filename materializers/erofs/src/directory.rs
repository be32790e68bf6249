//! Directory blocks: entries, then their names.
//!
//! Entries are sorted by the bytes of their names over the whole directory, `.` and `..` included: these stand
//! where they sort, after `!` and `-`.

use plyfold_core::Result;
use plyfold_core::tree::{NodeId, Tree};
use zerocopy::IntoBytes as _;

use crate::format::{DIRENT_SIZE, Dirent};

/// A directory's name on disk, and what it leads to.
pub(crate) type Entry<'a> = (&'a [u8], NodeId);

/// A directory's entries in the order on disk, `.` and `..` among them.
pub(crate) fn entries<C>(tree: &Tree<C>, this: NodeId, parent: NodeId) -> impl Iterator<Item = Entry<'_>> {
    let mut dots = [(&b"."[..], this), (&b".."[..], parent)].into_iter().peekable();
    let mut children = tree.children(this).peekable();
    std::iter::from_fn(move || match (dots.peek(), children.peek()) {
        (Some(dot), Some(child)) if dot.0 < child.0 => dots.next(),
        (_, Some(_)) => children.next(),
        _ => dots.next(),
    })
}

/// The size of a directory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DirectorySize {
    /// All blocks but the last.
    pub(crate) blocks: u32,
    /// Bytes that the last block's entries take.
    pub(crate) last: u32,
}

impl DirectorySize {
    /// One entry more.
    pub(crate) fn add(&mut self, name: &[u8], block_size: u32) {
        let size = (DIRENT_SIZE + name.len()) as u32;
        if self.last + size > block_size {
            self.blocks += 1;
            self.last = 0;
        }
        self.last += size;
    }

    pub(crate) fn bytes(self, block_size: u64) -> u64 {
        u64::from(self.blocks) * block_size + u64::from(self.last)
    }
}

/// Shows the entries of each block, and whether it is the last one.
pub(crate) fn for_each_block<'a, C>(
    tree: &'a Tree<C>,
    this: NodeId,
    parent: NodeId,
    block_size: usize,
    mut show: impl FnMut(&[Entry<'a>], bool) -> Result<()>,
) -> Result<()> {
    let (mut block, mut used) = (Vec::new(), 0);
    for entry in entries(tree, this, parent) {
        let size = DIRENT_SIZE + entry.0.len();
        if used + size > block_size {
            show(&block, false)?;
            block.clear();
            used = 0;
        }
        block.push(entry);
        used += size;
    }
    show(&block, true)
}

/// Writes one block's entries; `target` yields the inode number and file type of a node.
pub(crate) fn write(entries: &[Entry<'_>], target: impl Fn(NodeId) -> (u64, u8), out: &mut Vec<u8>) {
    let mut name_offset = entries.len() * DIRENT_SIZE;
    for (name, id) in entries {
        let (nid, file_type) = target(*id);
        let nameoff = (name_offset as u16).into();
        out.extend_from_slice(Dirent { nid: nid.into(), nameoff, file_type, reserved: 0 }.as_bytes());
        name_offset += name.len();
    }
    for (name, _) in entries {
        out.extend_from_slice(name);
    }
}
