//! What a materializer says of the hash tree that it has made of a file.

use serde::{Deserialize, Serialize};

use crate::Digest;

/// The bytes of a tree's superblock.
const SUPERBLOCK: u64 = 512;

/// Where the hash tree of an image is.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, strum::Display,
)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum TreePlace {
    /// Behind the data, in the same file.
    Append,
    /// In a file, or a partition, of its own.
    #[serde(rename = "beside")]
    #[strum(serialize = "beside")]
    Separate,
}

/// A dm-verity hash tree of an image: what a reader has to know to verify every block of the image. It is of hash type 1,
/// by sha256, and has a superblock.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct HashTree {
    /// The digest that all of the image is verified against. Its hexadecimal part is the root hash.
    pub root: Digest,
    /// The file, or partition, that the tree is in: that of the image, or one of its own.
    pub place: TreePlace,
    /// Where the superblock is in that file, in bytes.
    pub hash_offset: u64,
    /// How many blocks of data are verified, from the start of the image on.
    pub data_blocks: u64,
    /// The bytes of such a block.
    pub data_block_size: u32,
    /// The bytes of a block of the tree.
    pub hash_block_size: u32,
    /// What is hashed in front of each block, in hexadecimal digits; empty for nothing.
    pub salt: String,
}

impl HashTree {
    /// A tree behind data of so many blocks of 4096 bytes, with the salt of containerd: 32 zero bytes.
    pub fn new(root: Digest, data_blocks: u64) -> Self {
        Self {
            root,
            place: TreePlace::Append,
            hash_offset: data_blocks.saturating_mul(4096),
            data_blocks,
            data_block_size: 4096,
            hash_block_size: 4096,
            salt: "00".repeat(32),
        }
    }

    /// The same in another file, or at another place of it.
    #[must_use]
    pub fn at(mut self, place: TreePlace, hash_offset: u64) -> Self {
        (self.place, self.hash_offset) = (place, hash_offset);
        self
    }

    /// The same with blocks of other sizes: of the data, and of the tree.
    #[must_use]
    pub fn with_block_sizes(mut self, data: u32, hash: u32) -> Self {
        (self.data_block_size, self.hash_block_size) = (data, hash);
        self
    }

    /// The same with another salt, in hexadecimal digits.
    #[must_use]
    pub fn with_salt(mut self, salt: impl Into<String>) -> Self {
        self.salt = salt.into();
        self
    }

    /// The root hash: 64 hexadecimal digits.
    pub fn root_hash(&self) -> &str {
        self.root.digest()
    }

    /// The bytes that are verified, from the start of the image on.
    pub fn data_size(&self) -> u64 {
        self.data_blocks.saturating_mul(self.data_block_size.into())
    }

    /// The content of `IMAGE.dmverity`, the file that containerd's EROFS snapshotter reads beside a layer with a tree behind
    /// it: the root hash, and where the superblock is.
    ///
    /// ```
    /// let root = format!("sha256:{}", "0".repeat(64)).parse()?;
    /// let text = plyfold_core::HashTree::new(root, 2).sidecar();
    /// assert_eq!(text, format!("{{\n  \"roothash\": \"{}\",\n  \"hashoffset\": 8192\n}}", "0".repeat(64)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sidecar(&self) -> String {
        format!("{{\n  \"roothash\": \"{}\",\n  \"hashoffset\": {}\n}}", self.root_hash(), self.hash_offset)
    }

    /// The line of a device-mapper table that opens the verified device, in 512-byte sectors (the kernel's `verity.rst`):
    /// of the block device `data`, and of the one that the tree is on, which may be the same.
    ///
    /// ```
    /// use plyfold_core::{HashTree, TreePlace};
    ///
    /// let root = format!("sha256:{}", "ab".repeat(32)).parse()?;
    /// let tree = HashTree::new(root, 2).at(TreePlace::Separate, 0).with_salt("");
    /// let line = tree.table("/dev/vda", "/dev/vdb");
    /// assert_eq!(line, format!("0 16 verity 1 /dev/vda /dev/vdb 4096 4096 2 1 sha256 {} -", "ab".repeat(32)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn table(&self, data: &str, tree: &str) -> String {
        let Self { data_block_size, hash_block_size, data_blocks, salt, .. } = self;
        let hash_block = u64::from(*hash_block_size).max(1);
        let start = self.hash_offset.saturating_add(SUPERBLOCK).div_ceil(hash_block);
        let salt = if salt.is_empty() { "-" } else { salt };
        format!(
            "0 {} verity 1 {data} {tree} {data_block_size} {hash_block_size} {data_blocks} {start} sha256 {} {salt}",
            self.data_size() / 512,
            self.root_hash(),
        )
    }
}

/// An image in a partition of a disk, with the hash tree of that image.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct HashedPartition {
    /// The name of the partition.
    pub name: String,
    /// The layer that the image was made from, if it was made from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<Digest>,
    /// Where the image is. All of it is verified, and it begins where the partition does.
    pub image: PartitionRange,
    /// The partition that the tree is in: the same one, or one of its own.
    pub holder: PartitionRange,
    /// The tree: its offset is that in the partition.
    pub tree: HashTree,
}

impl HashedPartition {
    /// An image in a partition, whose tree is in the partition `holder`.
    pub fn new(
        name: impl Into<String>,
        image: PartitionRange,
        holder: PartitionRange,
        tree: HashTree,
    ) -> Self {
        Self { name: name.into(), diff_id: None, image, holder, tree }
    }

    /// The same of a layer.
    #[must_use]
    pub fn of_layer(mut self, diff_id: Option<Digest>) -> Self {
        self.diff_id = diff_id;
        self
    }
}

/// A partition of a disk.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PartitionRange {
    /// Its number, from 1 on.
    pub number: u32,
    /// Its first byte on the disk.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
}

impl PartitionRange {
    /// The partition of this number, with its first byte and its size in bytes.
    pub fn new(number: u32, start: u64, size: u64) -> Self {
        Self { number, start, size }
    }
}
