//! Hash trees of what materializers make.

use std::fmt::Display;
use std::io::Read;
use std::num::NonZero;

use plyfold_core::{HashTree, Made, OutputSpec, Result, Role, Sink, TreePlace};

use crate::hashed_image::{HashedImage, HashedSink};
use crate::layout::TreeLayout;
use crate::leaf_hasher::LeafHasher;
use crate::parameters::Parameters;

/// Lets a materializer write its image, and writes the hash tree of all of it: behind the image, or as the sink's
/// [`Role::HashTree`]. What it reports has the tree then. Without a place the image is written, and nothing else.
///
/// What is written in order is hashed on its way, on other threads: on as many as the machine runs at once, if `threads` does
/// not say how many, and on eight at most. The rest is read again at the end. The work ends early when the sink fails. The
/// salt is that of containerd, blocks of the data and of the tree have `block_size` bytes, and the UUID is
/// [derived](crate::Uuid::derived) from the root hash.
///
/// # Errors
/// Those of `write`; [`Config`](plyfold_core::ErrorKind::Config) for a block size that no tree has, and for an image that is
/// not made of such blocks; [`Io`](plyfold_core::ErrorKind::Io).
pub fn with_tree(
    place: Option<TreePlace>,
    block_size: u32,
    threads: Option<NonZero<usize>>,
    out: &mut dyn Sink,
    write: impl FnOnce(&mut dyn Sink) -> Result<Made>,
) -> Result<Made> {
    let Some(place) = place else { return write(out) };
    let parameters = Parameters::default().with_data_block_size(block_size)?;
    let mut sink = HashedSink(HashedImage::new(out, parameters.with_hash_block_size(block_size)?, threads));
    let made = write(&mut sink)?;
    Ok(made.with_hash_tree(sink.0.finish(place)?))
}

/// Writes the hash tree of a disk of `size` bytes, which `disk` reads, as the sink's [`Role::HashTree`]: for a format that
/// names the files of its disk, and has no file with all of it. The tree is that of [`with_tree`] in a file of its own; at
/// the end of the disk it is the same bytes.
///
/// # Errors
/// As [`with_tree`], and those of `disk`.
pub fn tree_of(
    disk: &mut dyn Read,
    size: u64,
    block_size: u32,
    threads: Option<NonZero<usize>>,
    out: &mut dyn Sink,
) -> Result<HashTree> {
    let parameters = Parameters::default().with_data_block_size(block_size)?;
    let parameters = parameters.with_hash_block_size(block_size)?;
    let layout = TreeLayout::beside(parameters.clone(), size)?;
    let mut hasher = LeafHasher::new(parameters, threads);
    hasher.read_to(size, out, |_, piece| disk.read_exact(piece))?;
    let root = hasher.write(&layout, Role::HashTree, out)?;
    layout.hash_tree(&root, TreePlace::Separate)
}

/// The files of a format that has one file without a tree.
pub fn tree_outputs(image: OutputSpec, place: Option<TreePlace>) -> Vec<OutputSpec> {
    let tree = OutputSpec::new(Role::HashTree, "verity").with_stem(image.stem);
    let tree = (place == Some(TreePlace::Separate)).then_some(tree);
    std::iter::once(image).chain(tree).collect()
}

/// The options of a format with those of the tree, as a part of a cache key.
pub fn tree_key(options: String, place: Option<impl Display>) -> String {
    match place {
        None => options,
        Some(place) if options.is_empty() => format!("verity-{place}"),
        Some(place) => format!("{options}-verity-{place}"),
    }
}
