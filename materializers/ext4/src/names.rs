//! The names in directories, the text of links, and what a path leads to.

use std::io::{Read, Seek};

use plyfold_core::files::FilesFault;
use plyfold_core::layer::TreeLimits;
use plyfold_core::{Result, printable};

use crate::fault::Ext4Fault;
use crate::format::{ROOT_INODE, crc32c};
use crate::mapping::bad;
use crate::reader::{DIRECTORY, EXTENTS, Inode, SYMLINK, Volume, le16, le32};

/// In `i_flags`: the directory has an index, whose blocks look like unused entries.
const INDEX: u32 = 0x1000;
/// The most symbolic links on the way of a path, as Linux has it.
const LINKS: usize = 40;
/// The longest text of a link: a path of Linux.
const TARGET: u64 = 4096;
/// Links shorter than this are in the inode.
const SHORT: u64 = 60;
/// Bytes of an entry in front of its name, and of the one that has the checksum at the end of a block.
const ENTRY: usize = 8;
const TAIL: usize = 12;

impl<R: Read + Seek> Volume<R> {
    /// Hands the names of a directory over, `.` and `..` too, until `take` has enough.
    pub(crate) fn names(
        &mut self,
        directory: &Inode,
        mut take: impl FnMut(u32, &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let mut bytes = vec![0; self.block_size as usize];
        let (mut logical, end) = (0, directory.size.div_ceil(self.block_size));
        let mut left = TreeLimits::default().files;
        while logical < end {
            let run = self.run(directory, logical)?;
            let Some(block) = run.block else {
                logical = logical.saturating_add(run.count);
                continue;
            };
            left = left.checked_sub(1).ok_or(Ext4Fault::Listed(TreeLimits::default().files))?;
            self.read(block, &mut bytes)?;
            check(directory, logical == 0, &bytes)?;
            logical += 1;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (number, length) = (le32(rest, 0), entry_length(rest, bytes.len()));
                let name = rest.get(6).map_or(0, |length| usize::from(*length));
                if length < ENTRY + 4 || length % 4 != 0 || length > rest.len() || ENTRY + name > length {
                    return Err(bad(directory, "has a damaged directory"));
                }
                if number != 0 && take(number, &rest[ENTRY..ENTRY + name])? {
                    return Ok(());
                }
                rest = &rest[length..];
            }
        }
        Ok(())
    }

    /// The text of a symbolic link.
    pub(crate) fn target(&mut self, link: &Inode) -> Result<Vec<u8>> {
        link.readable()?;
        if link.size == 0 || link.size > TARGET {
            return Err(bad(link, "is a symbolic link of no possible length"));
        }
        let length = link.size as usize;
        if link.size < SHORT && link.flags & EXTENTS == 0 {
            return Ok(link.data[..length].to_vec());
        }
        let mut text = vec![0; length];
        let size = self.block_size;
        for (logical, piece) in (0..).zip(text.chunks_mut(size as usize)) {
            let block = self.run(link, logical)?.block;
            self.read(block.ok_or_else(|| bad(link, "is a symbolic link without a text"))?, piece)?;
        }
        Ok(text)
    }

    /// What a path leads to. A link at its end is followed if `follow` says so, or a slash stands behind it.
    pub(crate) fn find(&mut self, path: &[u8], follow: bool) -> Result<Inode> {
        let follow = follow || path.ends_with(b"/");
        let mut pending = Vec::new();
        push(&mut pending, path);
        if path.ends_with(b"/") {
            pending.insert(0, b".".to_vec());
        }
        let mut current = self.inode(ROOT_INODE)?;
        let (mut above, mut links) = (vec![], 0);
        while let Some(name) = pending.pop() {
            if !current.is(DIRECTORY) {
                return Err(FilesFault::NoDirectory(shown(path)).into());
            }
            match &name[..] {
                b"." => {}
                b".." => current = self.inode(above.pop().unwrap_or(ROOT_INODE))?,
                name => {
                    let mut found = None;
                    self.names(&current, |number, other| {
                        found = (other == name).then_some(number);
                        Ok(found.is_some())
                    })?;
                    let number = found.ok_or_else(|| FilesFault::Missing(shown(path)))?;
                    let child = self.inode(number)?;
                    if child.is(SYMLINK) && (follow || !pending.is_empty()) {
                        links += 1;
                        if links > LINKS {
                            return Err(Ext4Fault::Path(
                                shown(path),
                                format!("more than {LINKS} symbolic links"),
                            )
                            .into());
                        }
                        let target = self.target(&child)?;
                        if target.starts_with(b"/") {
                            above.clear();
                            current = self.inode(ROOT_INODE)?;
                        }
                        push(&mut pending, &target);
                    } else {
                        above.push(current.number);
                        current = child;
                    }
                }
            }
        }
        Ok(current)
    }
}

/// The components of a path, the first one last.
fn push(pending: &mut Vec<Vec<u8>>, path: &[u8]) {
    let parts = path.split(|byte| *byte == b'/').rev().filter(|part| !part.is_empty());
    pending.extend(parts.map(<[u8]>::to_vec));
}

/// `rec_len`, which has two bits more in its lowest ones for blocks of 64 KiB.
fn entry_length(entry: &[u8], block: usize) -> usize {
    match usize::from(le16(entry, 4)) {
        0 | 0xffff if block == 1 << 16 => block,
        length if block == 1 << 16 => length & 0xfffc | (length & 3) << 16,
        length => length,
    }
}

/// The checksum at the end of a block of names. Those of an index are not verified: it is not used.
fn check(directory: &Inode, is_first: bool, block: &[u8]) -> Result<()> {
    let Some(seed) = directory.seed else { return Ok(()) };
    let is_index = le32(block, 0) == 0 && entry_length(block, block.len()) == block.len();
    if directory.flags & INDEX != 0 && (is_first || is_index) {
        return Ok(());
    }
    let (covered, tail) = block.split_at(block.len() - TAIL);
    if crc32c(seed, covered) != le32(tail, 8) {
        return Err(bad(directory, "has a directory with a wrong checksum"));
    }
    Ok(())
}

/// A path as errors show it.
pub(crate) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    format!("/{}", printable(text.trim_start_matches('/')))
}
