//! The xattrs of an inode.

use std::collections::HashSet;
use std::io::{Read, Seek};

use plyfold_core::Result;
use plyfold_core::tree::{Tree, Xattrs};

use super::image::Reader;
use crate::content::Content;
use crate::fault::ErofsFault;
use crate::format::u32_at;
use crate::xattr;

/// The largest body that is remembered: one of shared entries alone. Others are mostly of one inode each.
const BODY_KEPT: usize = 64;

/// How many are.
const BODIES_KEPT: usize = 1 << 16;

impl<R: Read + Seek> Reader<R> {
    pub(super) fn xattrs(&mut self, at: u64, size: u32, tree: &mut Tree<Content>) -> Result<Xattrs> {
        if size == 0 {
            return Ok(Xattrs::default());
        }
        let mut body = vec![0; size as usize];
        self.source.metadata(at, &mut body)?;
        if let Some(known) = self.sets.get(&body) {
            return Ok(known.clone());
        }
        let mut set = Vec::new();
        {
            let shared = usize::from(body[4]);
            let inline = xattr::HEADER + shared * 4;
            if inline > body.len() {
                return Err(
                    ErofsFault::Malformed("an inode has more shared xattrs than room for them").into()
                );
            }
            let area = u64::from(self.superblock.xattr_block) * self.superblock.block_size();
            for id in 0..shared {
                let at = area + u64::from(u32_at(&body, xattr::HEADER + id * 4)) * 4;
                let header = self.source.array(at)?;
                let mut entry = vec![0; xattr::entry_size(header)];
                self.source.metadata(at, &mut entry)?;
                set.push(xattr::decode(&entry)?);
            }
            let mut rest = &body[inline..];
            while let Some(header) = rest.first_chunk() {
                let size = xattr::entry_size(*header);
                set.push(xattr::decode(
                    rest.get(..size).ok_or(ErofsFault::Malformed("an xattr ends behind its inode"))?,
                )?);
                rest = &rest[size.next_multiple_of(4).min(rest.len())..];
            }
        }
        set.sort();
        let mut names = HashSet::new();
        if !set.iter().all(|(name, _)| names.insert(name)) {
            return Err(ErofsFault::Malformed("an inode has an xattr twice").into());
        }
        let set = tree.share(set.into())?;
        if body.len() <= BODY_KEPT && self.sets.len() < BODIES_KEPT {
            self.sets.insert(body, set.clone());
        }
        Ok(set)
    }
}
