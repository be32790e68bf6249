//! One layer, in one pass over its tar.

mod bodies;
mod compressed;
mod source;

use plyfold_core::layer::{LayerSummary, LayerTar};
use plyfold_core::tree::LayerTreeBuilder;
use plyfold_core::{Digest, Format, Input, Made, Materializer, Result, Role, Sink, TreePlace};
use plyfold_verity::{tree_key, with_tree};
use uuid::Uuid;

use bodies::LayerFile;

use crate::compress::algorithm::Compression;
use crate::content::Content;
use crate::data;
use crate::fault::ErofsFault;
use crate::inodes::Inodes;
use crate::options::Options;
use crate::places::Packing;
use crate::stream::BlockStream;
use crate::{native, overlay, writer, xattr};

/// Makes a self-contained EROFS image of one layer, in the form of an overlayfs lower.
///
/// Without compression file data goes straight from the tar to its place, and every file starts on a block of its own, so
/// that a merged image can refer to it ([`ErofsMerged`]). Only metadata is held, the superblock comes last. An image mounts
/// from Linux 5.4; a layer with a sparse file, or with a run of zeros of 1 MiB or more, from 5.15.
///
/// A layer that is an EROFS image already (`application/vnd.erofs.layer.v1`) is kept as it is, whatever the options say: it
/// is only checked.
///
/// What the image cannot express:
/// - a parent directory without an entry is 0755 root:root, whatever the layers below have there;
/// - a hard link to a file of a lower layer can be read through the merged image only; if the layer also brings a
///   file of that name later, overlayfs shows that one in its place;
/// - xattrs outside `user.`, `trusted.`, `security.` and POSIX ACLs are left out, which
///   [`Made::losses`] tells;
/// - overlayfs' own xattrs (`trusted.overlay.`, `user.overlay.`) are left out: a layer must not set them;
/// - what is beyond the format's fields (a device number over 4095:1048575, an xattr over 65,535 bytes) is a
///   [`Limit`](plyfold_core::ErrorKind::Limit) error.
///
/// The UUID is version 5 of `erofs:blobs/DIFF_ID` in the URL namespace, as containerd derives it, but from the
/// uncompressed layer: the image does not depend on how the layer was compressed.
///
/// [`ErofsMerged`]: crate::ErofsMerged
#[derive(Clone, Debug, Default)]
pub struct ErofsLayer {
    options: Options,
    compression: Option<Compression>,
    hash_tree: Option<TreePlace>,
    separates_tree: bool,
}

impl ErofsLayer {
    /// A materializer with other options than the defaults.
    pub fn new(options: Options) -> Self {
        Self { options, ..Self::default() }
    }

    /// The same with a dm-verity hash tree behind the image, in blocks of the image's size, as containerd has it. The
    /// image's own bytes stay as they are.
    #[must_use]
    pub fn with_hash_tree(mut self) -> Self {
        self.hash_tree = Some(TreePlace::Append);
        self
    }

    /// The same with a tree that becomes a file of its own where images are put beside each other
    /// ([`separates_hash_trees`](Materializer::separates_hash_trees)). What [`layer`](Materializer::layer) writes has it
    /// behind the image.
    #[must_use]
    pub fn with_separate_hash_tree(mut self) -> Self {
        self.separates_tree = true;
        self.with_hash_tree()
    }

    /// With compressed files: the image is smaller, and a merged image cannot refer to it.
    ///
    /// Each file that gets smaller is compressed, but those that the tar says are mostly holes, and those of more than 16 GiB.
    /// What fills no block stands behind the file's inode where it surely fits, which Linux reads from 5.17 on. The tar is
    /// read once, while all cores compress; the image is the same for any number of them.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) when the blocks have less than 4,096 bytes, and with fragments.
    pub fn with_compression(mut self, compression: Compression) -> Result<Self> {
        self.options.check_compression()?;
        if compression.fragments {
            return Err(ErofsFault::FragmentsOfLayer.into());
        }
        self.compression = Some(compression);
        Ok(self)
    }

    /// As [`Materializer::layer`], with compressed files.
    fn compressed(&self, compression: &Compression, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        let (options, scratch) = (&self.options, out.scratch()?);
        let limits = tar.limits().tree.clone();
        let out = out.output(Role::Image)?;
        let mut image = BlockStream::new(out, options.block_size, writer::head_blocks(options, 0))?.sparse();
        let mut builder = LayerTreeBuilder::within(limits.clone());
        let bodies = compressed::write(compression, scratch, limits, &mut image, |files| {
            while let Some(entry) = overlay::next_entry(tar)? {
                let own = xattr::most_own(&entry.metadata);
                builder.insert(entry, |size, extents| files.take(tar, own, size, extents))?;
            }
            Ok(())
        })?;
        let summary = tar.finish()?;
        let tree = overlay::to_overlay(builder.finish()?, &LayerFile::EMPTY)?;
        let inodes = Inodes::new(&tree, options)?;
        let uuid = self.uuid(&summary);
        writer::finish_files(inodes, &bodies, Packing::BestFit, options, uuid, Vec::new(), image)
    }

    fn uuid(&self, layer: &LayerSummary) -> [u8; 16] {
        let derived = layer.diff_id.as_ref().map(layer_uuid);
        self.options.uuid.or(derived).unwrap_or_default()
    }
}

impl Materializer for ErofsLayer {
    fn format(&self) -> Format {
        let options = tree_key(self.options.key_with(self.compression.as_ref()), self.hash_tree);
        Format { name: "erofs-layers", version: 3, options, extension: "erofs" }
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

    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        with_tree(self.hash_tree, self.options.block_size, None, out, |out| self.write(tar, out))
    }
}

impl ErofsLayer {
    fn write(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        if native::is_native(tar) {
            return native::keep(tar, out.output(Role::Image)?);
        }
        if let Some(compression) = &self.compression {
            return self.compressed(compression, tar, out);
        }
        let options = &self.options;
        let out = out.output(Role::Image)?;
        let mut image = BlockStream::new(out, options.block_size, writer::head_blocks(options, 0))?.sparse();
        let mut builder = LayerTreeBuilder::within(tar.limits().tree.clone());
        while let Some(entry) = overlay::next_entry(tar)? {
            builder.insert(entry, |size, extents| {
                data::copy(tar, size, extents, &mut image, options.block_size)
            })?;
        }
        // Check the digests of the whole layer before the superblock makes the output an image.
        let summary = tar.finish()?;
        let tree = overlay::to_overlay(builder.finish()?, &Content::EMPTY)?;
        writer::finish(&tree, options, self.uuid(&summary), Vec::new(), image)
    }
}

/// containerd's derivation.
pub(crate) fn layer_uuid(diff_id: &Digest) -> [u8; 16] {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("erofs:blobs/{diff_id}").as_bytes()).into_bytes()
}
