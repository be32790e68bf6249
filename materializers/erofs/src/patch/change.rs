//! One change: what its tar says, and the data that it brings.

use plyfold_core::layer::{LayerTar, TreeLimits};
use plyfold_core::tree::{LayerTree, LayerTreeBuilder};
use plyfold_core::{Digest, Result};
use uuid::Uuid;

use super::file::Rests;
use crate::content::{Content, DataLayout};
use crate::stream::BlockStream;
use crate::{data, overlay, xattr};

/// Reads one change to its verified end, and appends the data of its files.
pub(super) fn read_change(
    mut tar: LayerTar,
    limits: &TreeLimits,
    rests: &mut Rests,
    out: &mut BlockStream<'_>,
    block_size: u32,
) -> Result<(LayerTree<Content>, Option<Digest>)> {
    let mut builder = LayerTreeBuilder::within(limits.clone());
    let mut rest = Vec::new();
    while let Some(entry) = overlay::next_entry(&mut tar)? {
        let inode = xattr::most_own(&entry.metadata);
        builder.insert(entry, |size, extents| {
            let length = size % u64::from(block_size);
            let is_inline = length > 0 && inode + length <= block_size.into();
            if !is_inline || extents.is_some() {
                return data::copy(&mut tar, size, extents, out, block_size);
            }
            let content = data::copy_but_rest(&mut tar, size, out, block_size, &mut rest)?;
            match content.0 {
                DataLayout::Inline { start, .. } => Ok(Content::inline(start, rests.add(&rest)?)),
                _ => Ok(content),
            }
        })?;
    }
    let diff_id = tar.finish()?.diff_id;
    Ok((builder.finish()?, diff_id))
}

/// The UUID of an image of this one, patched.
pub(super) fn patched_uuid(old: [u8; 16], diff_ids: &[Option<Digest>]) -> [u8; 16] {
    let mut name = format!("erofs:patch/{}", Uuid::from_bytes(old));
    for diff_id in diff_ids {
        let Some(diff_id) = diff_id else { return [0; 16] };
        name.push('/');
        name.push_str(diff_id.as_ref());
    }
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).into_bytes()
}
