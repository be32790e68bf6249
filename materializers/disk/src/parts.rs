//! What goes into which partition, and the hash trees of it.

use plyfold_core::{HashTree, HashedPartition, InputArtifact, PartitionRange, Result, TreePlace};
use serde::Deserialize;
use strum::Display;

use crate::fault::DiskFault;

/// Where the hash tree of each image is.
#[derive(Clone, Copy, Debug, Deserialize, Display, Eq, PartialEq)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum PartitionTrees {
    /// In the image's own partition, behind its data.
    Append,
    /// In a partition of its own. These follow the partitions of all images, in the same order.
    Partition,
}

/// A run of bytes of a file, which a partition holds.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) name: String,
    pub(crate) file: &'a InputArtifact,
    pub(crate) from: u64,
    pub(crate) size: u64,
}

/// The partitions of a merged image, the first file, and of its layers.
pub(crate) fn parts(files: &[InputArtifact], trees: Option<PartitionTrees>) -> Result<Vec<Part<'_>>> {
    let digits = files.len().saturating_sub(2).to_string().len().max(2);
    let (mut images, mut holders) = (Vec::new(), Vec::new());
    for (index, file) in files.iter().enumerate() {
        let name = match index.checked_sub(1) {
            None => "merged".to_owned(),
            Some(layer) => format!("layer-{layer:0digits$}"),
        };
        let mut size = file.artifact.size();
        if trees.is_some() {
            let tree = tree_behind(file)?;
            if trees == Some(PartitionTrees::Partition) {
                let (name, from) = (format!("{name}-verity"), tree.hash_offset);
                holders.push(Part { name, file, from, size: size - from });
                size = tree.data_size();
            }
        }
        images.push(Part { name, file, from: 0, size });
    }
    images.extend(holders);
    Ok(images)
}

/// What is said of the partitions at these places, each with its first byte.
pub(crate) fn hashed(
    files: &[InputArtifact],
    parts: &[Part<'_>],
    starts: &[u64],
    trees: PartitionTrees,
) -> Result<Vec<HashedPartition>> {
    let ranges = parts.iter().zip(starts).zip(1..);
    let ranges: Vec<_> =
        ranges.map(|((part, start), number)| PartitionRange::new(number, *start, part.size)).collect();
    let holders = if trees == PartitionTrees::Append { &ranges[..] } else { ranges.split_at(files.len()).1 };
    let images = files.iter().zip(parts).zip(ranges.iter().zip(holders));
    let of = |((file, part), (image, holder)): (
        (&InputArtifact, &Part<'_>),
        (&PartitionRange, &PartitionRange),
    )| {
        let tree = tree_behind(file)?.clone();
        let tree = match trees {
            PartitionTrees::Append => tree,
            PartitionTrees::Partition => tree.at(TreePlace::Separate, 0),
        };
        let partition = HashedPartition::new(part.name.clone(), *image, *holder, tree);
        Ok(partition.of_layer(file.diff_id.clone()))
    };
    images.map(of).collect()
}

fn tree_behind(file: &InputArtifact) -> Result<&HashTree> {
    let tree = file.artifact.made().hash_tree.as_ref();
    let is_behind = |tree: &&HashTree| {
        let (end, size) = (tree.hash_offset, file.artifact.size());
        tree.place == TreePlace::Append && tree.data_size() <= end && end < size
    };
    let missing = || plyfold_core::Error::from(DiskFault::NoTree).with_context("file", &file.name);
    tree.filter(is_behind).ok_or_else(missing)
}
