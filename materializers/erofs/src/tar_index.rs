//! One layer's tar as it is, behind an index that makes a file system of it.

use std::io::SeekFrom;

use plyfold_core::layer::{LayerSummary, LayerTar, TreeLimits};
use plyfold_core::tree::LayerTreeBuilder;
use plyfold_core::{Error, Format, Input, InputArtifact, Made, Materializer, Result, Role, Sink, TreePlace};
use plyfold_verity::{tree_key, with_tree};
use zerocopy::FromZeros as _;

use crate::content::Content;
use crate::data;
use crate::fault::ErofsFault;
use crate::format::DeviceSlot;
use crate::layer::layer_uuid;
use crate::options::Options;
use crate::shown::OverlayDifferences;
use crate::stream::BlockStream;
use crate::{merge, overlay, writer};

/// A tar's blocks, and so those of the image.
const BLOCK: u32 = 512;
/// File systems share whole blocks of files: the tar starts at a multiple of theirs.
const TAR_START: u64 = 4096;
/// The tag of a tar that was not hashed. Linux refuses a device without one.
const NO_DIGEST: &[u8] = b"tar";

/// Makes an EROFS image of one layer that keeps the layer's tar as it is: an index in front, the uncompressed tar behind
/// it, byte for byte. So the layer's `diff_id` can be checked at any time, by a hash of the end of the file.
///
/// ```text
/// 0        1024                                            a multiple of 4096
/// | (zero) | superblock | device | inodes, directories, … | the tar … | zeros to a block |
/// ```
///
/// Blocks have 512 bytes, as those of a tar. The tar is the image's one device, as in the files that containerd makes by
/// `mkfs.erofs --tar=i`, and follows the image on the one disk that both make. Linux mounts it from 6.4 on, as any layer
/// in the form of an overlayfs lower; [`ErofsLayer`](crate::ErofsLayer) says what such an image cannot express.
///
/// No byte of a file is copied, but for sparse files: their runs need not begin where blocks do, and a map of them would
/// take an index for each block of the file. The index has a copy of their data, with its holes.
#[derive(Clone, Debug, Default)]
pub struct ErofsTar {
    hash_tree: Option<TreePlace>,
    separates_tree: bool,
}

impl ErofsTar {
    /// The same with a dm-verity hash tree of the index and the tar behind both, in blocks of 512 bytes: Linux sets no
    /// block size of a file system that is less than that of its device. The tar then ends where the tree begins.
    #[must_use]
    pub fn with_hash_tree(mut self) -> Self {
        self.hash_tree = Some(TreePlace::Append);
        self
    }

    /// The same with a tree that becomes a file of its own, as
    /// [`ErofsLayer::with_separate_hash_tree`](crate::ErofsLayer::with_separate_hash_tree) has it.
    #[must_use]
    pub fn with_separate_hash_tree(mut self) -> Self {
        self.separates_tree = true;
        self.with_hash_tree()
    }

    /// Where overlayfs, given the images of these layers, does not show what the image is. `stacked` says whether a
    /// single layer is mounted by overlayfs, too: under an upper.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) and [`Io`](plyfold_core::ErrorKind::Io) for a layer that cannot be
    /// read, [`Limit`](plyfold_core::ErrorKind::Limit) beyond `limits`.
    pub fn overlay_differences(
        layers: &[InputArtifact],
        limits: &TreeLimits,
        stacked: bool,
    ) -> Result<OverlayDifferences> {
        merge::overlay_differences(layers, limits, stacked)
    }
}

impl Materializer for ErofsTar {
    fn format(&self) -> Format {
        // The block size is no choice.
        let options = tree_key(String::new(), self.hash_tree);
        Format { name: "erofs-tar", version: 1, options, extension: "erofs" }
    }

    fn input(&self) -> Input {
        Input::Layer
    }

    fn has_hash_tree(&self) -> bool {
        self.hash_tree.is_some()
    }

    fn separates_hash_trees(&self) -> bool {
        self.separates_tree
    }

    fn takes_only_tars(&self) -> bool {
        true
    }

    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        with_tree(self.hash_tree, BLOCK, None, out, |out| Self::write(tar, out))
    }
}

impl ErofsTar {
    fn write(tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        let options = &Options { block_size: BLOCK, ..Options::default() };
        let copy = out.scratch()?;
        tar.copy_to(copy.try_clone().map_err(copying)?)?;
        let head = writer::head_blocks(options, 1);
        let image = BlockStream::new(out.output(Role::Image)?, options.block_size, head)?;
        let mut image = image.ending_at(TAR_START);
        let mut builder = LayerTreeBuilder::within(tar.limits().tree.clone());
        while let Some(entry) = overlay::next_entry(tar)? {
            builder.insert(entry, |size, extents| match extents {
                _ if size == 0 => Ok(Content::EMPTY),
                Some(_) => data::copy(tar, size, extents, &mut image, BLOCK),
                None => Ok(Content::blocks(1, block(tar.position())?)),
            })?;
        }
        // Check the digests of the whole layer before the superblock makes the output an image.
        let summary = tar.finish()?;
        let tree = overlay::to_overlay(builder.finish()?, &Content::EMPTY)?;
        let uuid = summary.diff_id.as_ref().map(layer_uuid).unwrap_or_default();
        let made = writer::finish(&tree, options, uuid, vec![device(&summary)?], image)?;
        let out = out.output(Role::Image)?;
        out.seek(SeekFrom::End(0)).map_err(copying)?;
        out.copy_range(&copy, 0, summary.size).map_err(copying)?;
        let missing = summary.size.next_multiple_of(BLOCK.into()) - summary.size;
        if missing == 0 {
            return Ok(made);
        }
        out.write_all(&[0; BLOCK as usize][..missing as usize]).map_err(copying)?;
        let note =
            format!("the tar has {} bytes, which is no whole block: {missing} zeros follow it", summary.size);
        Ok(made.with_note(note))
    }
}

/// The block of the tar that begins with this byte.
fn block(position: u64) -> Result<u32> {
    let block = u32::try_from(position / u64::from(BLOCK)).map_err(|_| ErofsFault::Blocks(BLOCK.into()))?;
    if !position.is_multiple_of(BLOCK.into()) {
        return Err(ErofsFault::Malformed("a file's data begins within a block of the tar").into());
    }
    Ok(block)
}

/// The tar as the image's device, right behind it.
fn device(summary: &LayerSummary) -> Result<DeviceSlot> {
    let blocks = u32::try_from(summary.size.div_ceil(BLOCK.into()));
    let digest = summary.diff_id.as_ref().map_or(NO_DIGEST, |digest| digest.digest().as_bytes());
    Ok(DeviceSlot {
        tag: std::array::from_fn(|at| digest.get(at).copied().unwrap_or(0)),
        blocks: blocks.map_err(|_| ErofsFault::Blocks(BLOCK.into()))?.into(),
        ..DeviceSlot::new_zeroed()
    })
}

fn copying(error: std::io::Error) -> Error {
    Error::io("putting the tar behind its index", error)
}
