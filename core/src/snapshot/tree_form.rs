//! Hash trees in the document of a snapshot and in the record of a set: named as in the document of root hashes.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::check::{NAME_BYTES, is_plain};
use crate::{Digest, HashTree, HashedPartition, Made, PartitionRange, TreePlace};

/// Hexadecimal digits of a salt: twice its bytes, of which the kernel takes 256.
const SALT_DIGITS: usize = 512;
const ALGORITHM: &str = "sha256";

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TreeForm {
    root_hash: String,
    hash_algorithm: String,
    salt: String,
    place: TreePlace,
    data_blocks: u64,
    data_block_size: u32,
    hash_block_size: u32,
    hash_offset: u64,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PartitionForm {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    diff_id: Option<Digest>,
    image: RangeForm,
    holder: RangeForm,
    hash_tree: TreeForm,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RangeForm {
    number: u32,
    start: u64,
    size: u64,
}

/// The hash tree of a file.
pub(super) mod tree {
    use super::{Deserialize as _, Deserializer, HashTree, Serialize as _, Serializer, TreeForm};

    #[expect(clippy::ref_option, reason = "what serde hands over")]
    pub(in super::super) fn serialize<S: Serializer>(
        tree: &Option<HashTree>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        tree.as_ref().map(TreeForm::of).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<HashTree>, D::Error> {
        Option::<TreeForm>::deserialize(from)?.map(TreeForm::read).transpose()
    }
}

/// Partitions with hash trees.
pub(super) mod partitions {
    use super::{
        Deserialize as _, Deserializer, Error as _, HashedPartition, Made, PartitionForm, Serializer,
    };

    pub(in super::super) fn serialize<S: Serializer>(
        all: &[HashedPartition],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(all.iter().map(PartitionForm::of))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<HashedPartition>, D::Error> {
        let said = Vec::<PartitionForm>::deserialize(from)?;
        if said.len() > Made::PARTITIONS {
            return Err(D::Error::custom("there are more partitions than Linux finds on a disk"));
        }
        said.into_iter().map(PartitionForm::read).collect()
    }
}

impl TreeForm {
    fn of(tree: &HashTree) -> Self {
        Self {
            root_hash: tree.root_hash().to_owned(),
            hash_algorithm: ALGORITHM.to_owned(),
            salt: tree.salt.clone(),
            place: tree.place,
            data_blocks: tree.data_blocks,
            data_block_size: tree.data_block_size,
            hash_block_size: tree.hash_block_size,
            hash_offset: tree.hash_offset,
        }
    }

    /// The tree, if it is one of dm-verity. Its salt and sizes are printed as words of commands.
    fn read<E: Error>(self) -> Result<HashTree, E> {
        let is_block = |bytes: u32| [512, 1024, 2048, 4096].contains(&bytes);
        let is_digits = |text: &str| text.bytes().all(|c| c.is_ascii_hexdigit());
        let wrong = || E::custom("a hash tree is not one of dm-verity");
        let root: Digest = format!("{ALGORITHM}:{}", self.root_hash).parse().map_err(|_| wrong())?;
        let tree = HashTree::new(root, self.data_blocks)
            .at(self.place, self.hash_offset)
            .with_block_sizes(self.data_block_size, self.hash_block_size)
            .with_salt(self.salt);
        let is_tree = self.hash_algorithm == ALGORITHM
            && tree.salt.len() <= SALT_DIGITS
            && is_digits(&tree.salt)
            && is_block(tree.data_block_size)
            && is_block(tree.hash_block_size)
            && i64::try_from(tree.data_size().saturating_add(tree.hash_offset)).is_ok();
        if is_tree { Ok(tree) } else { Err(wrong()) }
    }
}

impl PartitionForm {
    fn of(of: &HashedPartition) -> Self {
        let HashedPartition { name, diff_id, image, holder, tree } = of;
        let range = |of: &PartitionRange| RangeForm { number: of.number, start: of.start, size: of.size };
        Self {
            name: name.clone(),
            diff_id: diff_id.clone(),
            image: range(image),
            holder: range(holder),
            hash_tree: TreeForm::of(tree),
        }
    }

    fn read<E: Error>(self) -> Result<HashedPartition, E> {
        let Self { name, diff_id, image, holder, hash_tree } = self;
        let fits = |of: &RangeForm| i64::try_from(of.start.saturating_add(of.size)).is_ok();
        let is_name = !name.is_empty() && name.len() <= NAME_BYTES && name.bytes().all(is_plain);
        if !is_name || !fits(&image) || !fits(&holder) {
            return Err(E::custom("a partition is not one with a hash tree of dm-verity"));
        }
        let range = |of: RangeForm| PartitionRange::new(of.number, of.start, of.size);
        let found = HashedPartition::new(name, range(image), range(holder), hash_tree.read()?);
        Ok(found.of_layer(diff_id))
    }
}
