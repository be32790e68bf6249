//! Inodes, where their data lies, and the names in directories.

use std::io::{Read, Seek};

use plyfold_core::Result;
use plyfold_core::layer::Metadata;
use plyfold_core::tree::{Directory, Kind, Node, Tree};
use zerocopy::FromBytes as _;

use super::compressed::FileMap;
use super::image::Reader;
use crate::content::{Content, DataLayout, Run};
use crate::fault::ErofsFault;
use crate::format::{
    CHUNK_INDEX_SIZE, CHUNK_INDEXES, COMPACT_SIZE, ChunkIndex, CompactInode, Dirent, EXTENDED_SIZE,
    INCOMPAT_FRAGMENTS, Inode, LAYOUT_CHUNKS, LAYOUT_COMPACT, LAYOUT_FULL, LAYOUT_INLINE, LAYOUT_PLAIN,
    NULL_BLOCK, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, SLOT, special_kind,
};

impl<R: Read + Seek> Reader<R> {
    fn place(&self, nid: u64) -> Result<u64> {
        let base = u64::from(self.superblock.meta_blkaddr) * self.superblock.block_size();
        let place = nid.checked_mul(SLOT).and_then(|offset| base.checked_add(offset));
        place.ok_or_else(|| ErofsFault::NoInode(nid).into())
    }

    /// Counts bytes that an inode uses. Those of all inodes are disjoint in any sound image.
    fn claim(&mut self, bytes: u64) -> Result<()> {
        self.claimed = self.claimed.saturating_add(bytes);
        if self.claimed > self.source.size() {
            return Err(ErofsFault::Malformed("the image's inodes overlap").into());
        }
        Ok(())
    }

    /// An inode and its size on disk.
    fn inode(&mut self, nid: u64) -> Result<(Inode, u64)> {
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

    /// The node of an inode, and the inode. Its extended attributes are shared with the tree.
    pub(super) fn node(&mut self, nid: u64, tree: &mut Tree<Content>) -> Result<(Node<Content>, Inode)> {
        let place = self.place(nid)?;
        let (inode, own) = self.inode(nid)?;
        self.claim(own + inode.xattr_size())?;
        let xattrs = self.xattrs(place + own, inode.xattr_size() as usize, tree)?;
        let tail = place + own + inode.xattr_size();
        let (mode, size) = (inode.mode.get(), inode.size.get());
        let kind = match mode & S_IFMT {
            S_IFDIR => {
                self.claim(size)?;
                Kind::Directory(Directory::default())
            }
            S_IFLNK => {
                self.claim(size)?;
                let mut target = vec![0; size as usize];
                self.contents(&inode, tail, 0, &mut target)?;
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
    fn contents(&mut self, inode: &Inode, tail: u64, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let block_size = self.superblock.block_size();
        let in_blocks = match inode.layout() {
            LAYOUT_PLAIN => inode.size.get(),
            LAYOUT_INLINE => inode.size.get() / block_size * block_size,
            layout => return Err(ErofsFault::MetadataLayout(layout).into()),
        };
        let at = if offset < in_blocks {
            u64::from(inode.location) * block_size + offset
        } else {
            tail + offset - in_blocks
        };
        self.source.metadata(at, buffer)
    }

    fn content(&mut self, nid: u64, inode: &Inode, tail: u64) -> Result<Content> {
        match inode.layout() {
            _ if inode.size == 0 => Ok(Content::blocks(0, NULL_BLOCK)),
            LAYOUT_PLAIN => {
                let blocks = inode.size.get().div_ceil(self.superblock.block_size());
                self.check_run(0, inode.location.into(), blocks)?;
                Ok(Content::blocks(0, inode.location.get()))
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
        Ok(Content(DataLayout::Compressed { nid }))
    }

    /// How the clusters of a compressed file are found.
    pub(super) fn file_map(&mut self, nid: u64) -> Result<FileMap> {
        let (inode, own) = self.inode(nid)?;
        let tail = self.place(nid)? + own + inode.xattr_size();
        FileMap::read(&mut self.source, &self.superblock, &inode, tail)
    }

    /// Looks for the inode that has the fragments of others.
    pub(super) fn find_packed(&mut self) -> Result<()> {
        self.packed = None;
        let nid = self.superblock.packed_nid.get();
        if nid == 0 || self.superblock.feature_incompat & INCOMPAT_FRAGMENTS == 0 {
            return Ok(());
        }
        let place = self.place(nid)?;
        let (inode, own) = self.inode(nid)?;
        if inode.mode.get() & S_IFMT != S_IFREG {
            return Err(ErofsFault::InodeType(nid).into());
        }
        // A fragment in it is refused, as there is no packed inode yet.
        let content = self.content(nid, &inode, place + own + inode.xattr_size())?;
        self.packed = Some((content.0, inode.size.get()));
        Ok(())
    }

    fn inline(&mut self, inode: &Inode, tail: u64) -> Result<Content> {
        let block_size = self.superblock.block_size();
        let (blocks, rest) = (inode.size.get() / block_size, inode.size.get() % block_size);
        if blocks > 0 {
            self.check_run(0, inode.location.into(), blocks)?;
        }
        self.claim(rest)?;
        // Linux refuses it, too.
        if tail % block_size + rest > block_size {
            return Err(ErofsFault::Malformed("the last part of a file does not stand in one block").into());
        }
        if tail + rest > u64::from(self.superblock.blocks) * block_size {
            return Err(ErofsFault::DeviceEnd(self.superblock.blocks.get()).into());
        }
        Ok(Content::inline(inode.location.get(), tail))
    }

    fn chunks(&mut self, inode: &Inode, tail: u64) -> Result<Content> {
        let (format, size) = (inode.location.get() as u16, inode.size.get());
        if format & !31 != CHUNK_INDEXES {
            return Err(ErofsFault::ChunkFormat(format).into());
        }
        let bits = (format & 31) as u8;
        let (chunk_blocks, block_size) = (1u64 << bits, self.superblock.block_size());
        let count = size.div_ceil(block_size << bits);
        self.claim(count * CHUNK_INDEX_SIZE)?;
        let indexes = tail.next_multiple_of(CHUNK_INDEX_SIZE);
        let mut runs: Vec<Run> = Vec::new();
        let mut device = None;
        for chunk in 0..count {
            let index: ChunkIndex = self.source.record(indexes + chunk * CHUNK_INDEX_SIZE)?;
            let (on, start) = (index.device_id.get(), index.startblk_lo.get());
            if start == NULL_BLOCK {
                continue;
            }
            if *device.get_or_insert(on) != on {
                return Err(ErofsFault::Devices.into());
            }
            let blocks = size.div_ceil(block_size) - chunk * chunk_blocks;
            self.check_run(on, start.into(), blocks.min(chunk_blocks))?;
            match runs.last_mut() {
                Some(run)
                    if run.first + run.count == chunk
                        && u64::from(run.start) + run.count * chunk_blocks == u64::from(start) =>
                {
                    run.count += 1;
                }
                _ => runs.push(Run { first: chunk, count: 1, start }),
            }
        }
        let device = device.unwrap_or(0);
        match *runs {
            [Run { first: 0, count: all, start }] if all == count => Ok(Content::blocks(device, start)),
            _ => Ok(Content::chunks(device, bits, runs)),
        }
    }

    fn check_run(&self, device: u16, start: u64, blocks: u64) -> Result<()> {
        let size = match device.checked_sub(1) {
            None => self.superblock.blocks.get(),
            Some(device) => self.devices.get(usize::from(device)).map_or(0, |device| device.blocks.get()),
        };
        if start + blocks > u64::from(size) {
            return Err(ErofsFault::DeviceEnd(size).into());
        }
        Ok(())
    }

    /// The names of a directory, to be read block by block.
    pub(super) fn names(&mut self, nid: u64) -> Result<Names> {
        let (inode, own) = self.inode(nid)?;
        let tail = self.place(nid)? + own + inode.xattr_size();
        Ok(Names { nid, inode, tail, offset: 0, last: Vec::new() })
    }

    /// The next block of names.
    pub(super) fn next_names(&mut self, names: &mut Names) -> Result<Option<Vec<u8>>> {
        let left = names.inode.size.get().saturating_sub(names.offset);
        if left == 0 {
            return Ok(None);
        }
        let mut block = vec![0; self.superblock.block_size().min(left) as usize];
        self.contents(&names.inode, names.tail, names.offset, &mut block)?;
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
