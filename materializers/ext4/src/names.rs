//! The names in directories, the text of links, and what a path leads to.

use std::io::{Read, Seek};

use plyfold_core::files::{FileType, FilesFault};
use plyfold_core::layer::TreeLimits;
use plyfold_core::{Result, printable};

use crate::fault::Ext4Fault;
use crate::fields::{EXTENTS_FL, INDEX_FL, S_IFDIR, S_IFLNK};
use crate::format::{ROOT_INODE, le16, le32};
use crate::mapping::bad;
use crate::reader::{FileSystem, StoredInode};

/// The most symbolic links on the way of a path, as Linux has it.
const LINKS: usize = 40;
/// The longest text of a link: a path of Linux.
const TARGET: u64 = 4096;
/// Links shorter than this are in the inode.
const SHORT: u64 = 60;
/// Bytes of an entry in front of its name, and of the one that has the checksum at the end of a block.
const ENTRY: usize = 8;
const TAIL: usize = 12;

impl<R: Read + Seek> FileSystem<R> {
    /// Hands the names of a directory over, `.` and `..` too, until `take` has enough.
    pub(crate) fn names(
        &mut self,
        directory: &StoredInode,
        mut take: impl FnMut(u32, &[u8]) -> Result<bool>,
    ) -> Result<()> {
        // Of what is damaged Linux shows the names in front of the damage, and no error.
        if !directory.size.is_multiple_of(self.block_size) {
            return Err(bad(directory, "is a directory with a part of a block"));
        }
        let tree = self.tree(directory)?;
        let mut bytes = vec![0; self.block_size as usize];
        let (mut logical, end) = (0, directory.size / self.block_size);
        let mut left = TreeLimits::default().files;
        while logical < end {
            let run = self.run(directory, logical)?;
            let Some(block) = run.block else {
                if tree.is_some() {
                    return Err(bad(directory, "has a hash tree of blocks that are not there"));
                }
                logical = logical.saturating_add(run.count);
                continue;
            };
            left = left.checked_sub(1).ok_or(Ext4Fault::Listed(TreeLimits::default().files))?;
            self.read(block, &mut bytes)?;
            check(directory, logical == 0, &bytes)?;
            let is_done = names_of(directory, self.inodes, &bytes, |number, name| {
                // The root has the names in front of the tree.
                let is_dots = logical == 0 && (name == b"." || name == b"..");
                if !is_dots && tree.as_ref().is_some_and(|tree| !tree.leads_to(name, logical)) {
                    return Err(bad(directory, "has a name that its hash tree does not lead to"));
                }
                take(number, name)
            })?;
            if is_done {
                return Ok(());
            }
            logical += 1;
        }
        Ok(())
    }

    /// The text of a symbolic link.
    pub(crate) fn target(&mut self, link: &StoredInode) -> Result<Vec<u8>> {
        link.readable()?;
        if link.size == 0 || link.size > TARGET {
            return Err(bad(link, "is a symbolic link of no possible length"));
        }
        let mut text = vec![0; link.size as usize];
        if link.size < SHORT && link.flags & EXTENTS_FL == 0 {
            text.copy_from_slice(&link.data[..link.size as usize]);
        } else {
            let size = self.block_size as usize;
            for (logical, piece) in (0..).zip(text.chunks_mut(size)) {
                let block = self.run(link, logical)?.block;
                self.read(block.ok_or_else(|| bad(link, "is a symbolic link without a text"))?, piece)?;
            }
        }
        // Linux shows what is in front of it.
        if text.contains(&0) {
            return Err(bad(link, "is a symbolic link with a zero byte"));
        }
        Ok(text)
    }

    /// What a path leads to. A link at its end is followed if `follow` says so, or a slash stands behind it.
    pub(crate) fn find(&mut self, path: &[u8], follow: bool) -> Result<StoredInode> {
        let mut pending: Vec<_> = components(path).collect();
        let mut current = self.inode(ROOT_INODE)?;
        let (mut above, mut links) = (vec![], 0);
        while let Some(name) = pending.pop() {
            if !current.is(S_IFDIR) {
                return Err(FilesFault::NoDirectory(shown(path)).into());
            }
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    current = self.inode(above.pop().unwrap_or(ROOT_INODE))?;
                    continue;
                }
                _ => {}
            }
            let number = self.number(&current, &name)?.ok_or_else(|| FilesFault::Missing(shown(path)))?;
            let child = self.inode(number)?;
            if !child.is(S_IFLNK) || !follow && pending.is_empty() {
                above.push(current.number);
                current = child;
                continue;
            }
            links += 1;
            if links > LINKS {
                let why = format!("more than {LINKS} symbolic links");
                return Err(Ext4Fault::Path(shown(path), why).into());
            }
            let target = self.target(&child)?;
            if target.starts_with(b"/") {
                above.clear();
                current = self.inode(ROOT_INODE)?;
            }
            pending.extend(components(&target));
        }
        Ok(current)
    }

    /// The number of the inode that has a name in a directory.
    fn number(&mut self, directory: &StoredInode, name: &[u8]) -> Result<Option<u32>> {
        if let Some(tree) = self.tree(directory)? {
            return self.number_by_hash(directory, &tree, name);
        }
        let mut found = None;
        self.names(directory, |number, other| {
            found = (other == name).then_some(number);
            Ok(found.is_some())
        })?;
        Ok(found)
    }
}

/// Hands the names of a block over, until `take` has enough: true then. The file system has so many inodes.
pub(crate) fn names_of(
    directory: &StoredInode,
    inodes: u32,
    block: &[u8],
    mut take: impl FnMut(u32, &[u8]) -> Result<bool>,
) -> Result<bool> {
    let mut rest = block;
    while !rest.is_empty() {
        let (number, length) = (le32(rest, 0), entry_length(rest, block.len()));
        let name = rest.get(6).map_or(0, |length| usize::from(*length));
        let is_whole = length >= ENTRY + 4 && length.is_multiple_of(4) && ENTRY + name <= length;
        if !is_whole || length > rest.len() || number > inodes {
            return Err(bad(directory, "has a damaged directory"));
        }
        let name = &rest[ENTRY..ENTRY + name];
        if number != 0 && (name.is_empty() || name.contains(&0) || name.contains(&b'/')) {
            return Err(bad(directory, "has a name that no file can have"));
        }
        if number != 0 && take(number, name)? {
            return Ok(true);
        }
        rest = &rest[length..];
    }
    Ok(false)
}

/// The components of a path, the first one last. An empty one, such as behind a slash at the end, is the directory itself.
fn components(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec)
}

/// `rec_len`, which has two bits more in its lowest ones for blocks of 64 KiB.
fn entry_length(entry: &[u8], block: usize) -> usize {
    match usize::from(le16(entry, 4)) {
        0 | 0xffff if block == 1 << 16 => block,
        length if block == 1 << 16 => length & 0xfffc | (length & 3) << 16,
        length => length,
    }
}

/// The checksum at the end of a block of names. Those of an index are verified where the tree is read.
pub(crate) fn check(directory: &StoredInode, is_first: bool, block: &[u8]) -> Result<()> {
    let Some(checksum) = directory.checksum else { return Ok(()) };
    // The first block has `.` and `..` in front of the index, others begin with an unused entry of the whole block.
    let is_index = le32(block, 0) == 0 && entry_length(block, block.len()) == block.len();
    if directory.flags & INDEX_FL != 0 && (is_first || is_index) {
        return Ok(());
    }
    let (covered, tail) = block.split_at(block.len() - TAIL);
    if checksum.over(&[covered]) != le32(tail, 8) {
        return Err(bad(directory, "has a directory with a wrong checksum"));
    }
    Ok(())
}

/// A path as errors show it.
pub(crate) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    format!("/{}", printable(text.trim_start_matches('/')))
}

/// The last component of a path.
pub(crate) fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').find(|name| !name.is_empty()).unwrap_or_default()
}

/// Refuses what has no bytes to read.
pub(crate) fn check_regular(path: &[u8], kind: FileType) -> Result<()> {
    match kind {
        FileType::Regular => Ok(()),
        FileType::Directory => Err(FilesFault::Directory(shown(path)).into()),
        other => Err(FilesFault::Special(shown(path), other).into()),
    }
}
