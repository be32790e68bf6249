//! Checks that the document of a snapshot and the record of a set share.

use std::collections::HashSet;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::fault::{SnapshotFault, invalid};
use super::image::SnapshotImage;
use crate::digest::DigestAlgorithm;
use crate::manifest::{canonical_json, limits};
use crate::{Format, HashTree, HashedPartition, KernelVersion, Made, PartitionRange, Result, Size};

/// The name of the document in a directory.
pub const DOCUMENT: &str = "snapshot.json";
/// The most files that a snapshot has: as an artifact each is a layer.
pub const MAX_FILES: usize = limits::LAYERS;
/// The version of both documents.
const VERSION: u64 = 1;
/// Bytes of a file name.
const NAME_BYTES: usize = 100;
/// Bytes of the key of a format: name, version and options.
const KEY_BYTES: usize = Format::NAME_BYTES + Format::OPTIONS_BYTES + 16;
/// Hexadecimal digits of a salt: twice its bytes, of which the kernel takes 256.
const SALT_DIGITS: usize = 512;

/// What both documents have, each with files of its own.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Form<F> {
    schema_version: u64,
    pub(super) image: SnapshotImage,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) kernel: Option<KernelVersion>,
    pub(super) files: Vec<F>,
}

impl<F> Form<F> {
    pub(super) fn new(image: SnapshotImage, kernel: Option<KernelVersion>, files: Vec<F>) -> Self {
        Self { schema_version: VERSION, image, kernel, files }
    }
}

/// Parses a document of at most 4 MiB, of this version.
pub(super) fn parse<F: DeserializeOwned>(bytes: &[u8]) -> Result<Form<F>> {
    if bytes.len() as u64 > limits::CONFIG {
        let sizes = Size(bytes.len() as u64).beyond(Size(limits::CONFIG));
        return Err(SnapshotFault::Long(format!("the document of a snapshot has {sizes}")).into());
    }
    // Another version may have other fields: it is looked at first.
    let any: Value = serde_json::from_slice(bytes).map_err(invalid)?;
    match any.get("schemaVersion").map(Value::as_u64) {
        Some(Some(VERSION)) => {}
        Some(Some(other)) => return Err(SnapshotFault::Version(other).into()),
        _ => return Err(invalid("it has no schemaVersion")),
    }
    // From the bytes: a value has each key once.
    serde_json::from_slice(bytes).map_err(invalid)
}

/// Checks the number of the files and their names: of each the name, and another one that it may have elsewhere.
pub(super) fn names<'a>(files: impl ExactSizeIterator<Item = [&'a str; 2]>) -> Result<()> {
    if files.len() == 0 {
        return Err(invalid("it has no files"));
    }
    if files.len() > MAX_FILES {
        let message = format!("{} files, and a snapshot has at most {MAX_FILES}", files.len());
        return Err(SnapshotFault::Long(message).into());
    }
    let mut known = HashSet::new();
    for names in files {
        let distinct = if names[0] == names[1] { &names[..1] } else { &names };
        for name in distinct {
            if !is_name(name) {
                return Err(invalid(format!("{name:?} is not the name of a file of a set")));
            }
            if !known.insert(name.to_string()) {
                return Err(invalid(format!("two files are called {name}")));
            }
        }
    }
    Ok(())
}

/// Whether it is `STEM.EXTENSION` of lower-case letters, digits and `-`, as sets name their files, or that with
/// `.dmverity` behind it. So no name is a path, hidden, or an option of a command.
pub(super) fn is_name(name: &str) -> bool {
    let mut parts = name.strip_suffix(".dmverity").unwrap_or(name).splitn(2, '.');
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(is_plain);
    name.len() <= NAME_BYTES
        && !name.starts_with('-')
        && name.strip_suffix(".dmverity").unwrap_or(name).contains('.')
        && name != DOCUMENT
        && parts.all(is_part)
}

/// Checks the format of a file: its name, and its key, which begins with the name.
pub(super) fn format(name: &str, key: &str) -> Result<()> {
    let is_text = |text: &str, most| !text.is_empty() && text.len() <= most && text.bytes().all(is_plain);
    if !is_text(name, Format::NAME_BYTES) || !is_text(key, KEY_BYTES) || !key.starts_with(name) {
        return Err(invalid(format!("{name:?} of the key {key:?} is not a format")));
    }
    Ok(())
}

/// A hash tree as strictly as the rest.
pub(super) fn hash_tree<'de, D: Deserializer<'de>>(from: D) -> Result<Option<HashTree>, D::Error> {
    let Some(said) = Option::<Value>::deserialize(from)? else { return Ok(None) };
    let tree = HashTree::deserialize(&said).map_err(D::Error::custom)?;
    if is_tree(&tree) && is_all(&tree, &said) {
        return Ok(Some(tree));
    }
    Err(D::Error::custom("a hash tree is not one of dm-verity"))
}

/// Partitions with hash trees as strictly as the rest.
pub(super) fn partitions<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<HashedPartition>, D::Error> {
    let said = Vec::<Value>::deserialize(from)?;
    let fits = |range: &PartitionRange| i64::try_from(range.start.saturating_add(range.size)).is_ok();
    let read = |said: &Value| {
        let found = HashedPartition::deserialize(said).map_err(D::Error::custom)?;
        let HashedPartition { name, image, holder, tree, .. } = &found;
        let is_name = !name.is_empty() && name.len() <= NAME_BYTES && name.bytes().all(is_plain);
        if is_name && fits(image) && fits(holder) && is_tree(tree) && is_all(&found, said) {
            return Ok(found);
        }
        Err(D::Error::custom("a partition is not one with a hash tree of dm-verity"))
    };
    if said.len() > Made::PARTITIONS {
        return Err(D::Error::custom("there are more partitions than Linux finds on a disk"));
    }
    said.iter().map(read).collect()
}

/// Whether it is a tree of dm-verity. Its salt and sizes are printed as words of commands.
fn is_tree(tree: &HashTree) -> bool {
    let is_block = |bytes: u32| [512, 1024, 2048, 4096].contains(&bytes);
    tree.salt.len() <= SALT_DIGITS
        && tree.salt.bytes().all(|c| c.is_ascii_hexdigit())
        && *tree.root.algorithm() == DigestAlgorithm::Sha256
        && is_block(tree.data_block_size)
        && is_block(tree.hash_block_size)
        && i64::try_from(tree.data_size().saturating_add(tree.hash_offset)).is_ok()
}

/// Whether nothing was passed over.
fn is_all(read: &impl Serialize, said: &Value) -> bool {
    serde_json::to_value(read).is_ok_and(|all| all == *said)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

/// JSON with sorted keys. Serde's errors are those of maps whose keys are no text, which these forms do not have.
pub(super) fn json(form: &impl Serialize) -> Vec<u8> {
    canonical_json(&serde_json::to_value(form).unwrap_or(Value::Null))
}
