//! The file that containerd reads the root hash of a layer from.

use crate::layout::TreeLayout;
use crate::root_hash::RootHash;

/// The content of `LAYER.dmverity`, the file that containerd's EROFS snapshotter reads beside a layer with a tree
/// [behind](TreeLayout::appended) it: the root hash, and where the superblock is.
///
/// ```
/// use plyfold_verity::{Parameters, RootHash, TreeLayout, sidecar};
///
/// let layout = TreeLayout::appended(Parameters::default(), 8192)?;
/// let text = sidecar(&layout, &RootHash::new([0; 32]));
/// assert_eq!(text, format!("{{\n  \"roothash\": \"{}\",\n  \"hashoffset\": 8192\n}}", "0".repeat(64)));
/// # Ok::<(), plyfold_core::Error>(())
/// ```
pub fn sidecar(layout: &TreeLayout, root: &RootHash) -> String {
    format!("{{\n  \"roothash\": \"{root}\",\n  \"hashoffset\": {}\n}}", layout.hash_offset())
}
