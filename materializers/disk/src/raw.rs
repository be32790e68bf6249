//! Files behind each other, where the kernel looks for them.

use std::io::SeekFrom;

use plyfold_core::{
    ArtifactReader, Error, Format, Input, InputArtifact, Made, Materializer, OutputSpec, Result, Role, Sink,
    TreePlace,
};
use plyfold_verity::{tree_key, tree_outputs, with_tree};

use crate::blocks::Blocks;
use crate::flat::{self, Place};

/// What the size is a multiple of: a persistent memory region of a virtual machine is made of huge pages.
const PAGE: u64 = 2 << 20;

/// One raw disk of a merged image and its layers, that is mounted as it is.
///
/// The same bytes are the disk of a VMDK of these files; this one is padded by zeros to a multiple of 2 MiB, as
/// persistent memory of virtual machines wants it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Raw {
    pub(crate) blocks: Blocks,
    pub(crate) hash_tree: Option<TreePlace>,
}

impl Raw {
    /// A disk of file systems with blocks of this many bytes: 512, 1024, 2048 or 4096, which is the default.
    pub fn with_block_size(bytes: u32) -> Self {
        Self { blocks: Blocks::of(bytes), hash_tree: None }
    }

    /// The same with a dm-verity hash tree of the whole disk, in blocks of its file systems' size. Behind the disk it makes
    /// the file longer than a multiple of 2 MiB.
    #[must_use]
    pub fn with_hash_tree(mut self, place: TreePlace) -> Self {
        self.hash_tree = Some(place);
        self
    }
}

impl Materializer for Raw {
    fn format(&self) -> Format {
        let options = tree_key(self.blocks.key(), self.hash_tree);
        Format { name: "raw", version: 1, options, extension: "raw" }
    }

    fn input(&self) -> Input {
        Input::Artifacts { format: "erofs-merged", options: self.blocks.merged() }
    }

    fn outputs(&self) -> Vec<OutputSpec> {
        tree_outputs(OutputSpec::new(Role::Image, "raw"), self.hash_tree)
    }

    fn is_self_contained(&self) -> bool {
        true
    }

    fn has_hash_tree(&self) -> bool {
        self.hash_tree.is_some()
    }

    fn join(&self, files: &[InputArtifact], out: &mut dyn Sink) -> Result<Made> {
        let places = flat::places(files)?;
        with_tree(self.hash_tree, self.blocks.bytes(), None, out, |out| write(files, &places, out))
    }
}

fn write(files: &[InputArtifact], places: &[Place], out: &mut dyn Sink) -> Result<Made> {
    let out = out.output(Role::Image)?;
    let writing = |e| Error::io("writing the disk", e);
    let mut end = 0;
    for (file, place) in files.iter().zip(places) {
        // Between two files there may be a hole.
        out.seek(SeekFrom::Start(place.offset)).map_err(writing)?;
        ArtifactReader::open(&*file.artifact)?.copy_to(out)?;
        end = place.end();
    }
    out.set_len(end.next_multiple_of(PAGE)).map_err(writing)?;
    let made = Made::of_files(files);
    // From this version on EROFS finds its devices behind the image.
    Ok(made.and(&Made::default().with_kernel(6, 4)))
}
