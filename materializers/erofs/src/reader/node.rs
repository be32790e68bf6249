//! Inodes, where their data lies, and the names in directories.

use std::io::{Read, Seek};

use plyfold_core::Result;
use plyfold_core::layer::Metadata;
use plyfold_core::tree::{Directory, Kind, Node, Tree};
use zerocopy::FromBytes as _;

use super::compressed::FileMap;
use super::image::Reader;
use crate::content::Content;
use crate::fault::ErofsFault;
use crate::format::{
    COMPACT_SIZE, CompactInode, Dirent, EXTENDED_SIZE, Inode, LAYOUT_CHUNKS, LAYOUT_COMPACT, LAYOUT_FULL,
    LAYOUT_INLINE, LAYOUT_PLAIN, METABOX, NULL_BLOCK, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, SLOT, special_kind,
};

impl<R: Read + Seek> Reader<R> {
    pub(super) fn place(&self, nid: u64) -> Result<u64> {
        let in_metabox = nid & METABOX;
        let base = match in_metabox {
            0 => u64::from(self.superblock.meta_blkaddr) * self.superblock.block_size(),
            _ => 0,
        };
        let place = (nid & !METABOX).checked_mul(SLOT).and_then(|offset| base.checked_add(offset));
        let place = place.filter(|place| place & METABOX == 0).ok_or(ErofsFault::NoInode(nid))?;
        Ok(place | in_metabox)
    }

    /// Counts bytes that an inode uses. Those of all inodes are disjoint in any sound image.
    pub(super) fn claim(&mut self, bytes: u64) -> Result<()> {
        self.claimed = self.claimed.saturating_add(bytes);
        if self.claimed > self.source.all() {
            return Err(ErofsFault::Malformed("the image's inodes overlap").into());
        }
        Ok(())
    }

    /// An inode and its size on disk.
    pub(super) fn inode(&mut self, nid: u64) -> Result<(Inode, u64)> {
        let place = self.place(nid)?;
        let compact: CompactInode = self.source.record(place)?;
        let (inode, own) = if compact.is_compact() {
            (compact.extended(self.superblock.epoch), COMPACT_SIZE)
        } else {
            (self.source.record(place)?, EXTENDED_SIZE)
        };
        if inode.mtime.nanos.get() > 999_999_999 {
            return Err(ErofsFault::InodeTime(nid).into());
        }
        Ok((inode, own))
    }

    /// An inode, and where it ends with its xattrs.
    pub(super) fn inode_to(&mut self, nid: u64) -> Result<(Inode, u64)> {
        let (inode, own) = self.inode(nid)?;
        let end = self.place(nid)? + own + inode.xattr_size();
        Ok((inode, end))
    }

    /// The node of an inode, and the inode. Its extended attributes are shared with the tree.
    pub(crate) fn node(&mut self, nid: u64, tree: &mut Tree<Content>) -> Result<(Node<Content>, Inode)> {
        let place = self.place(nid)?;
        let (inode, own) = self.inode(nid)?;
        self.claim(own + inode.xattr_size())?;
        let xattrs = self.xattrs(place + own, inode.xattr_size() as usize, tree)?;
        let tail = place + own + inode.xattr_size();
        let (mode, size) = (inode.mode.get(), inode.size.get());
        let kind = match mode & S_IFMT {
            S_IFDIR => {
                match inode.layout() {
                    LAYOUT_COMPACT | LAYOUT_FULL => drop(self.compressed(nid, &inode, tail)?),
                    _ => self.claim(size)?,
                }
                Kind::Directory(Directory::default())
            }
            S_IFLNK => {
                self.claim(size)?;
                let mut target = vec![0; size as usize];
                self.contents(nid, &inode, tail, 0, &mut target)?;
                // Linux ends it there.
                if target.contains(&0) {
                    return Err(ErofsFault::Malformed("a symbolic link has a NUL").into());
                }
                Kind::Symlink { target: target.into() }
            }
            S_IFREG => Kind::File { size, content: self.content(nid, &inode, tail)? },
            other => special_kind(other, inode.location.get()).ok_or(ErofsFault::InodeType(nid))?,
        };
        let (uid, gid, mtime) = (inode.uid.get(), inode.gid.get(), inode.mtime.into());
        let metadata = Metadata { mode: mode & 0o7777, uid, gid, mtime, xattrs: Vec::new() };
        let mut node = Node::new(kind, metadata);
        node.xattrs = xattrs;
        Ok((node, inode))
    }

    /// Reads the data of a directory or symbolic link; `tail` is where what is inline stands.
    fn contents(&mut self, nid: u64, inode: &Inode, tail: u64, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let block_size = self.superblock.block_size();
        let in_blocks = match inode.layout() {
            LAYOUT_PLAIN => inode.size.get(),
            LAYOUT_INLINE => inode.size.get() / block_size * block_size,
            LAYOUT_COMPACT | LAYOUT_FULL => {
                return self.fill(&Content::compressed(nid), inode.size.get(), offset, buffer);
            }
            layout => return Err(ErofsFault::MetadataLayout(layout).into()),
        };
        let at = if offset < in_blocks {
            inode.first_block() * block_size + offset
        } else {
            tail + offset - in_blocks
        };
        self.source.metadata(at, buffer)
    }

    pub(super) fn content(&mut self, nid: u64, inode: &Inode, tail: u64) -> Result<Content> {
        match inode.layout() {
            _ if inode.size == 0 => Ok(Content::EMPTY),
            LAYOUT_PLAIN => {
                if inode.is_hole() {
                    return Ok(Content::chunks(0, 0, Vec::new()));
                }
                let blocks = inode.size.get().div_ceil(self.superblock.block_size());
                Ok(Content::blocks(0, self.check_run(0, inode.first_block(), blocks)?))
            }
            LAYOUT_CHUNKS => self.chunks(inode, tail),
            LAYOUT_INLINE => self.inline(inode, tail),
            LAYOUT_COMPACT | LAYOUT_FULL => self.compressed(nid, inode, tail),
            layout => Err(ErofsFault::FileLayout(layout).into()),
        }
    }

    fn compressed(&mut self, nid: u64, inode: &Inode, tail: u64) -> Result<Content> {
        let map = FileMap::read(&mut self.source, &self.superblock, inode, tail)?;
        self.claim(map.size_on_disk())?;
        if let Some((at, bytes)) = map.fragment() {
            let end = at.checked_add(bytes);
            if end.is_none_or(|end| self.packed.as_ref().is_none_or(|(_, size)| end > *size)) {
                return Err(ErofsFault::Malformed("a fragment ends behind the packed inode").into());
            }
        }
        Ok(Content::compressed(nid))
    }

    /// How the clusters of a compressed file are found.
    pub(super) fn file_map(&mut self, nid: u64) -> Result<FileMap> {
        let (inode, end) = self.inode_to(nid)?;
        FileMap::read(&mut self.source, &self.superblock, &inode, end)
    }

    fn inline(&mut self, inode: &Inode, tail: u64) -> Result<Content> {
        let block_size = self.superblock.block_size();
        let (blocks, rest) = (inode.size.get() / block_size, inode.size.get() % block_size);
        let start = if blocks > 0 { self.check_run(0, inode.first_block(), blocks)? } else { NULL_BLOCK };
        self.claim(rest)?;
        // Linux refuses it, too.
        if tail % block_size + rest > block_size {
            return Err(ErofsFault::Malformed("the last part of a file does not stand in one block").into());
        }
        let blocks = self.superblock.block_count();
        if tail & METABOX == 0 && tail + rest > blocks * block_size {
            return Err(ErofsFault::DeviceEnd(blocks).into());
        }
        Ok(Content::inline(start, tail))
    }

    /// The names of a directory, to be read block by block.
    pub(super) fn names(&mut self, nid: u64) -> Result<Names> {
        let (inode, tail) = self.inode_to(nid)?;
        Ok(Names { nid, inode, tail, offset: 0, last: Vec::new() })
    }

    /// The next block of names.
    pub(super) fn next_names(&mut self, names: &mut Names) -> Result<Option<Vec<u8>>> {
        let left = names.inode.size.get().saturating_sub(names.offset);
        if left == 0 {
            return Ok(None);
        }
        let mut block = vec![0; self.superblock.block_size().min(left) as usize];
        self.contents(names.nid, &names.inode, names.tail, names.offset, &mut block)?;
        names.offset += block.len() as u64;
        Ok(Some(block))
    }
}

/// A directory that is being read.
pub(super) struct Names {
    nid: u64,
    inode: Inode,
    /// Where what is inline stands.
    tail: u64,
    offset: u64,
    last: Vec<u8>,
}

impl Names {
    /// Whether the name is one of a file, and neither `.` nor `..`.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) when it does not follow the one before.
    pub(super) fn follows(&mut self, name: &[u8]) -> Result<bool> {
        if name <= &*self.last {
            return Err(ErofsFault::DirectoryOrder(self.nid).into());
        }
        self.last.clear();
        self.last.extend_from_slice(name);
        Ok(name != b"." && name != b"..")
    }
}

/// The names in one block, with their inode numbers.
pub(super) fn block_names(block: &[u8]) -> Result<Vec<(&[u8], u64)>> {
    let bad = || ErofsFault::Malformed("a directory block has entries without names");
    // The first name stands right behind the entries: its offset gives the number of entries.
    let (first, _) = Dirent::ref_from_prefix(block).map_err(|_| bad())?;
    let first = usize::from(first.nameoff);
    let entries = block.get(..first).and_then(|entries| <[Dirent]>::ref_from_bytes(entries).ok());
    let entries = entries.filter(|entries| !entries.is_empty()).ok_or_else(bad)?;
    let mut names = Vec::with_capacity(entries.len());
    let ends = entries[1..].iter().map(|next| usize::from(next.nameoff)).chain([block.len()]);
    for (entry, end) in entries.iter().zip(ends) {
        let start = usize::from(entry.nameoff);
        let mut name = block.get(start..end).ok_or_else(bad)?;
        if end == block.len() {
            // Behind the last one there may be padding.
            name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        }
        if start < first
            || name.is_empty()
            || name.len() > 255
            || name.iter().any(|byte| matches!(byte, 0 | b'/'))
        {
            return Err(bad().into());
        }
        names.push((name, entry.nid.get()));
    }
    Ok(names)
}
