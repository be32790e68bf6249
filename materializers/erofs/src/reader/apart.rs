//! Inodes that have what belongs to others: the packed inode, the metabox, and prefixes of xattr names.

use std::io::{Read, Seek};

use plyfold_core::Result;
use plyfold_core::tree::XATTR_PREFIXES;
use zerocopy::little_endian::{U16, U64};

use super::image::Reader;
use crate::content::Content;
use crate::fault::ErofsFault;
use crate::format::{
    COMPAT_PLAIN_PREFIXES, INCOMPAT_FRAGMENTS, INCOMPAT_METABOX, INCOMPAT_PREFIXES, METABOX,
    METABOX_NID_OFFSET, S_IFMT, S_IFREG, SUPERBLOCK_OFFSET,
};

/// The most bytes of a metabox: all of it is held in memory.
const METABOX_MAX: u64 = 64 << 20;

impl<R: Read + Seek> Reader<R> {
    /// Looks for the inode that has the fragments of others.
    pub(super) fn find_packed(&mut self) -> Result<()> {
        self.packed = None;
        let nid = self.superblock.packed_nid.get();
        if nid == 0 || self.superblock.feature_incompat & INCOMPAT_FRAGMENTS == 0 {
            return Ok(());
        }
        // A fragment in it is refused, as there is no packed inode yet.
        let (content, size) = self.data_apart(nid)?;
        self.packed = Some((content.0, size));
        Ok(())
    }

    /// Reads all of the metabox.
    pub(super) fn find_metabox(&mut self) -> Result<()> {
        if self.superblock.feature_incompat & INCOMPAT_METABOX == 0 {
            return Ok(());
        }
        if self.superblock.sb_extslots == 0 {
            return Err(ErofsFault::Malformed("the superblock does not name the metabox").into());
        }
        let nid = self.source.record::<U64>((SUPERBLOCK_OFFSET + METABOX_NID_OFFSET) as u64)?.get();
        let (content, size) = self.data_apart(nid)?;
        if size > METABOX_MAX {
            return Err(ErofsFault::MetaboxSize(size).into());
        }
        let mut metabox = vec![0; size as usize];
        self.fill(&content, size, 0, &mut metabox)?;
        self.source.set_metabox(metabox);
        Ok(())
    }

    /// Reads the prefixes of xattr names.
    pub(super) fn find_prefixes(&mut self) -> Result<()> {
        self.prefixes.clear();
        if self.superblock.feature_incompat & INCOMPAT_PREFIXES == 0 {
            return Ok(());
        }
        let start = u64::from(self.superblock.xattr_prefix_start) * 4;
        let is_plain = self.superblock.feature_compat & COMPAT_PLAIN_PREFIXES != 0;
        let packed = match &self.packed {
            _ if is_plain || self.superblock.feature_incompat & INCOMPAT_METABOX != 0 => None,
            packed => packed.clone().map(|(layout, size)| (Content(layout), size)),
        };
        let in_metabox = !is_plain && self.superblock.feature_incompat & INCOMPAT_METABOX != 0;
        let mut at = if in_metabox { start | METABOX } else { start };
        for _ in 0..self.superblock.xattr_prefix_count {
            let mut length = [0; 2];
            self.apart(packed.as_ref(), at, &mut length)?;
            let mut prefix = vec![0; U16::from_bytes(length).get().into()];
            self.apart(packed.as_ref(), at + 2, &mut prefix)?;
            at = (at + 2 + prefix.len() as u64).next_multiple_of(4);
            let [base, infix @ ..] = &*prefix else {
                return Err(ErofsFault::Malformed("a prefix of xattr names is empty").into());
            };
            let base_prefix = XATTR_PREFIXES.iter().find(|(known, _)| known == base);
            let (_, base_prefix) = base_prefix.ok_or(ErofsFault::XattrPrefix(*base))?;
            self.prefixes.push([*base_prefix, infix].concat());
        }
        Ok(())
    }

    /// Reads from the packed inode, or else from the image's metadata.
    fn apart(&mut self, packed: Option<&(Content, u64)>, at: u64, buffer: &mut [u8]) -> Result<()> {
        match packed {
            Some((content, size)) => self.fill(content, *size, at, buffer),
            None => self.source.metadata(at, buffer),
        }
    }

    /// The data of a file that has no name, and its size.
    fn data_apart(&mut self, nid: u64) -> Result<(Content, u64)> {
        let (inode, end) = self.inode_to(nid)?;
        if inode.mode.get() & S_IFMT != S_IFREG {
            return Err(ErofsFault::InodeType(nid).into());
        }
        let content = self.content(nid, &inode, end)?;
        Ok((content, inode.size.get()))
    }
}
