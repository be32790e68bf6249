//! The xattrs of an inode.

use std::collections::HashSet;
use std::io::{Read, Seek};

use plyfold_core::Result;
use plyfold_core::tree::{Tree, Xattrs};
use zerocopy::FromBytes as _;
use zerocopy::little_endian::U32;

use super::image::Reader;
use crate::content::Content;
use crate::fault::ErofsFault;
use crate::format::{COMPAT_SHARED_IN_METABOX, METABOX};
use crate::xattr;

/// The largest body that is remembered: one of shared entries alone. Others are mostly of one inode each.
const BODY_KEPT: usize = 64;

/// How many are.
const BODIES_KEPT: usize = 1 << 16;

impl<R: Read + Seek> Reader<R> {
    pub(super) fn xattrs(&mut self, at: u64, size: usize, tree: &mut Tree<Content>) -> Result<Xattrs> {
        if size == 0 {
            return Ok(Xattrs::default());
        }
        let mut body = vec![0; size];
        self.source.metadata(at, &mut body)?;
        if let Some(known) = self.sets.get(&body) {
            return Ok(known.clone());
        }
        let mut set = Vec::new();
        let ids = <[U32]>::ref_from_prefix_with_elems(&body[xattr::HEADER..], body[4].into());
        let too_many = |_| ErofsFault::Malformed("an inode has more shared xattrs than room for them");
        let (shared, mut rest) = ids.map_err(too_many)?;
        let area = u64::from(self.superblock.xattr_blkaddr) * self.superblock.block_size();
        let in_metabox = self.superblock.feature_compat & COMPAT_SHARED_IN_METABOX != 0;
        let area = if in_metabox { area | METABOX } else { area };
        for id in shared {
            let at = area + u64::from(*id) * 4;
            let mut entry = vec![0; xattr::entry_size(self.source.record(at)?)];
            self.source.metadata(at, &mut entry)?;
            set.push(xattr::decode(&entry, &self.prefixes)?);
        }
        while let Some(header) = rest.first_chunk() {
            let size = xattr::entry_size(*header);
            let entry = rest.get(..size).ok_or(ErofsFault::Malformed("an xattr ends behind its inode"))?;
            set.push(xattr::decode(entry, &self.prefixes)?);
            rest = &rest[size.next_multiple_of(4).min(rest.len())..];
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
