//! A whole image as one file that needs no other.

mod bodies;
mod compressed;
mod fragments;

use plyfold_core::tree::MergedTree;
use plyfold_core::{Digest, Format, Input, Made, Materializer, OutputSpec, Result, Role, Sink, TreePlace};
use plyfold_verity::{tree_key, tree_outputs, with_tree};
use uuid::Uuid;

use bodies::Bodies;

use crate::compress::algorithm::Compression;
use crate::inodes::Inodes;
use crate::options::Options;
use crate::places::Packing;
use crate::stream::BlockStream;
use crate::writer;

/// Makes one EROFS image of a whole OCI image, which needs no layer and no overlay.
///
/// It holds what the image shows and nothing else: no file that an upper layer replaces, no whiteout, none of overlayfs'
/// attributes. The last part of a file that fills no block stands behind the file's inode where both fit into one block,
/// so that small files take no blocks of their own. Whole blocks of a file are neighbours. A run of zeros of 1 MiB or
/// more is a hole, whether it was one in the layer or not.
///
/// Linux mounts it from 5.4 on; from 5.15 with a hole, from 6.4 with blocks of less than 4,096 bytes. What EROFS does
/// not hold is treated as by [`ErofsLayer`](crate::ErofsLayer).
///
/// The same image gives the same bytes however its layers were packed and read. The UUID is version 5 of
/// `erofs:image/DIFF_ID/DIFF_ID/…` in the URL namespace, the layers bottom first; it is zero for layers that were read
/// without hashing.
#[derive(Clone, Debug, Default)]
pub struct ErofsFlat {
    options: Options,
    compression: Option<Compression>,
    hash_tree: Option<TreePlace>,
}

impl ErofsFlat {
    /// A materializer with other options than the defaults.
    pub fn new(options: Options) -> Self {
        Self { options, compression: None, hash_tree: None }
    }

    /// The same with a dm-verity hash tree of the image, in blocks of the image's size. The image's own bytes stay as
    /// they are.
    #[must_use]
    pub fn with_hash_tree(mut self, place: TreePlace) -> Self {
        self.hash_tree = Some(place);
        self
    }

    /// With compressed files, which makes the image smaller, and takes time whenever one is read.
    ///
    /// Each file that gets smaller is compressed, but those that are mostly holes, and those of more than 16 GiB. Its last
    /// cluster stands behind its indexes where it fits, which Linux reads from 5.17 on. The work is done on all cores; the
    /// image is the same for any number of them.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) when the blocks have less than 4,096 bytes.
    pub fn with_compression(mut self, compression: Compression) -> Result<Self> {
        self.options.check_compression()?;
        self.compression = Some(compression);
        Ok(self)
    }
}

impl Materializer for ErofsFlat {
    fn format(&self) -> Format {
        let options = tree_key(self.options.key_with(self.compression.as_ref()), self.hash_tree);
        Format { name: "erofs", version: 1, options, extension: "erofs" }
    }

    fn input(&self) -> Input {
        Input::Image
    }

    fn outputs(&self) -> Vec<OutputSpec> {
        tree_outputs(OutputSpec::new(Role::Image, "erofs"), self.hash_tree)
    }

    fn has_hash_tree(&self) -> bool {
        self.hash_tree.is_some()
    }

    fn image(&self, image: &MergedTree, out: &mut dyn Sink) -> Result<Made> {
        with_tree(self.hash_tree, self.options.block_size, None, out, |out| self.write(image, out))
    }
}

impl ErofsFlat {
    fn write(&self, image: &MergedTree, out: &mut dyn Sink) -> Result<Made> {
        let options = &self.options;
        let limits = out.limits();
        let scratch = self.compression.is_some().then(|| out.scratch()).transpose()?;
        let out = out.output(Role::Image)?;
        // What the format cannot hold of the metadata is found before a byte is written.
        let inodes = Inodes::new(image.tree(), options)?;
        let mut stream = BlockStream::new(out, options.block_size, writer::head_blocks(options, 0))?.sparse();
        let mut bodies = Bodies::new(image, options.block_size, limits);
        match (&self.compression, scratch) {
            (Some(compression), Some(scratch)) => {
                compressed::write(&mut bodies, &inodes, compression, scratch, &mut stream)?;
            }
            _ => bodies.write(&inodes, &mut stream)?,
        }
        let uuid = options.uuid.unwrap_or_else(|| image_uuid(image.diff_ids()));
        writer::finish_files(inodes, &bodies, Packing::BestFit, options, uuid, Vec::new(), stream)
    }
}

/// Derived as containerd derives that of a layer.
fn image_uuid(diff_ids: &[Option<Digest>]) -> [u8; 16] {
    let mut name = String::from("erofs:image");
    for diff_id in diff_ids {
        let Some(diff_id) = diff_id else { return [0; 16] };
        name.push('/');
        name.push_str(diff_id.as_ref());
    }
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).into_bytes()
}
