//! Hash trees of files and partitions, as JSON.

use crate::{HashTree, VerifiedFile};
use serde_json::{Value, json};

/// The hash tree of a file, as JSON.
pub(crate) fn hash_tree(found: &VerifiedFile<'_>) -> Value {
    let mut hash_tree = tree_fields(found.tree);
    hash_tree["path"] = found.tree_file.display().to_string().into();
    hash_tree["open"] = found.open_line().into();
    hash_tree
}

/// What a hash tree is, as JSON, wherever it is.
pub(crate) fn tree_fields(tree: &HashTree) -> Value {
    json!({
        "root_hash": tree.root_hash(),
        "algorithm": "sha256",
        "salt": tree.salt,
        "data_blocks": tree.data_blocks,
        "data_block_size": tree.data_block_size,
        "data_size": tree.data_size(),
        "hash_block_size": tree.hash_block_size,
        "hash_offset": tree.hash_offset,
    })
}
