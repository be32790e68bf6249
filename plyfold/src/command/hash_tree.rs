//! Hash trees of files and partitions, as JSON: the same fields in every verb.

use std::path::Path;

use crate::disk_file::DiskBytes;
use crate::materializers::verity::{RootHash, TreeLayout, Uuid};
use crate::{HashTree, HashedPartition, VerifiedFile};
use serde::Serialize;

/// A hash tree. What is not known is null.
#[derive(Serialize)]
pub(crate) struct TreeDocument {
    root_hash: String,
    algorithm: &'static str,
    salt: String,
    data_blocks: u64,
    data_block_size: u32,
    data_size: u64,
    hash_block_size: u32,
    /// Where the superblock is: in the file, in the partition, or on the disk that a VMDK is.
    hash_offset: Option<u64>,
    uuid: Option<String>,
    /// The file that the tree is in.
    path: Option<String>,
    /// The partition of it.
    partition: Option<u32>,
    /// The command that opens the verified device.
    open: Option<String>,
}

impl TreeDocument {
    /// What a superblock says, of this root hash.
    pub(crate) fn read(layout: &TreeLayout, root: &RootHash, uuid: Option<Uuid>) -> Self {
        let parameters = layout.parameters();
        Self {
            root_hash: root.to_string(),
            algorithm: "sha256",
            salt: parameters.salt_hex(),
            data_blocks: layout.data_blocks(),
            data_block_size: parameters.data_block_size(),
            data_size: layout.data_size(),
            hash_block_size: parameters.hash_block_size(),
            hash_offset: None,
            uuid: uuid.map(|uuid| uuid.to_string()),
            path: None,
            partition: None,
            open: None,
        }
    }

    /// The same of a tree that is kept: at this place of a file, or of a partition of it.
    pub(crate) fn at(mut self, path: &Path, partition: Option<u32>, hash_offset: u64) -> Self {
        // JSON has no paths that are not UTF-8.
        self.path = Some(path.display().to_string());
        self.partition = partition;
        self.hash_offset = Some(hash_offset);
        self
    }

    /// The same with the command.
    pub(crate) fn opened_by(mut self, line: Option<String>) -> Self {
        self.open = line;
        self
    }

    /// The tree of a file.
    pub(crate) fn of_file(found: &VerifiedFile<'_>) -> Self {
        let uuid = DiskBytes::open(found.tree_file).ok().and_then(|disk| uuid_of(&disk, 0, found.tree));
        Self::recorded(found.tree, uuid)
            .at(found.tree_file, None, found.tree.hash_offset)
            .opened_by(found.open_line())
    }

    /// The tree of a partition of the disk at a path; `disk` is what could be read of it.
    pub(crate) fn of_partition(of: &HashedPartition, path: &Path, disk: Option<&DiskBytes>) -> Self {
        let HashedPartition { holder, tree, .. } = of;
        let uuid = disk.and_then(|disk| uuid_of(disk, holder.start, tree));
        Self::recorded(tree, uuid).at(path, Some(holder.number), tree.hash_offset)
    }

    fn recorded(tree: &HashTree, uuid: Option<Uuid>) -> Self {
        Self {
            root_hash: tree.root_hash().to_owned(),
            algorithm: "sha256",
            salt: tree.salt.clone(),
            data_blocks: tree.data_blocks,
            data_block_size: tree.data_block_size,
            data_size: tree.data_size(),
            hash_block_size: tree.hash_block_size,
            hash_offset: None,
            uuid: uuid.map(|uuid| uuid.to_string()),
            path: None,
            partition: None,
            open: None,
        }
    }
}

/// The UUID in the superblock, which nothing else says.
fn uuid_of(disk: &DiskBytes, start: u64, tree: &HashTree) -> Option<Uuid> {
    let (_, uuid) = TreeLayout::read(disk, start.checked_add(tree.hash_offset)?).ok()?;
    Some(uuid)
}
