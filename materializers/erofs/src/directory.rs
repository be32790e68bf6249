//! Directory blocks: 12-byte entries, then their names.
//!
//! Entries are sorted by the bytes of their names over the whole directory, `.` and `..` included: these stand
//! where they sort, after `!` and `-`.

use std::ops::Range;

use plyfold_core::tree::{Directory, NodeId};

use crate::format::DIRENT_SIZE;

/// One block of a directory.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Block {
    /// Which entries it holds.
    pub(crate) entries: Range<usize>,
    /// Its bytes in use.
    pub(crate) used: usize,
}

/// A directory's entries in the order on disk, `.` and `..` among them.
pub(crate) fn entries(directory: &Directory, this: NodeId, parent: NodeId) -> Vec<(&[u8], NodeId)> {
    let mut entries: Vec<(&[u8], NodeId)> = Vec::with_capacity(directory.children().len() + 2);
    let mut dots = [(&b"."[..], this), (&b".."[..], parent)].into_iter().peekable();
    for child in directory.children() {
        while let Some(dot) = dots.next_if(|dot| dot.0 < child.0) {
            entries.push(dot);
        }
        entries.push(child);
    }
    entries.extend(dots);
    entries
}

/// How entries are spread over blocks.
pub(crate) fn blocks(entries: &[(&[u8], NodeId)], block_size: usize) -> Vec<Block> {
    let mut blocks = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (at, (name, _)) in entries.iter().enumerate() {
        let size = DIRENT_SIZE + name.len();
        if used + size > block_size {
            blocks.push(Block { entries: start..at, used });
            (start, used) = (at, 0);
        }
        used += size;
    }
    blocks.push(Block { entries: start..entries.len(), used });
    blocks
}

/// Writes one block's entries; `target` yields the inode number and file type of a node.
pub(crate) fn write(entries: &[(&[u8], NodeId)], target: impl Fn(NodeId) -> (u64, u8), out: &mut Vec<u8>) {
    let mut name_offset = entries.len() * DIRENT_SIZE;
    for (name, id) in entries {
        let (nid, file_type) = target(*id);
        out.extend_from_slice(&nid.to_le_bytes()); // 0
        out.extend_from_slice(&(name_offset as u16).to_le_bytes()); // 8
        out.extend_from_slice(&[file_type, 0]); // 10
        name_offset += name.len();
    }
    for (name, _) in entries {
        out.extend_from_slice(name);
    }
}
