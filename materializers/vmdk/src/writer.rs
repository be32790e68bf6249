//! The materializer: finished files in, a descriptor out.

use std::fs::{self, File};
use std::io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};

use plyfold_core::digest::sha256;
use plyfold_core::{
    Error, Format, Input, InputArtifact, Made, Materializer, Options, OutputSpec, Result, Role, Sink,
    TreePlace,
};
use plyfold_verity::TreeLayout;

use crate::descriptor::cid_of;
use crate::{Descriptor, Extent, SECTOR};

/// The most that VMware takes in one extent of a `twoGbMaxExtentFlat` disk.
const TWO_GIB: u64 = 2 << 30;

/// Joins finished files, in their order, into one flat disk.
///
/// The [`name`](InputArtifact::name) of each is the text that is written: relative to the descriptor, so that the
/// folder can be moved. Absolute paths and `..` are refused.
///
/// A dm-verity hash tree behind the data of a file is not part of the disk: a merged image expects each layer where the data
/// of the one before it ends. Such a tree is known by what the materializer has [told](Made::hash_tree), else by its
/// superblock, if the file is there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Vmdk {
    sector_blocks: bool,
    split: bool,
}

impl Vmdk {
    /// For qemu and libkrun: files of any number of 4096-byte blocks, one extent each.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes files of 512-byte blocks too, for file systems that have such blocks (an EROFS tar index).
    #[must_use]
    pub fn sector_blocks(mut self) -> Self {
        self.sector_blocks = true;
        self
    }

    /// Splits files above 2 GiB into extents of at most 2 GiB, as VMware wants it.
    #[must_use]
    pub fn split(mut self, split: bool) -> Self {
        self.split = split;
        self
    }

    /// The descriptor that joins `layers`.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for no file at all, for a file that is empty or not made of
    /// whole blocks (the next one would begin inside of a block, or the disk would shrink), and for a path that a
    /// reader would take for another; [`Limit`](plyfold_core::ErrorKind::Limit) beyond
    /// [`MAX_DESCRIPTOR`](crate::MAX_DESCRIPTOR) bytes of text; [`Io`](plyfold_core::ErrorKind::Io) for a file that is there
    /// and cannot be read, so that it is not known whether it has a hash tree.
    pub fn descriptor(&self, layers: &[InputArtifact]) -> Result<Descriptor> {
        let blocks = if self.sector_blocks { SECTOR } else { 4096 };
        let mut extents = Vec::with_capacity(layers.len());
        for layer in layers {
            let size = size_of(layer).map_err(|e| e.with_context("path", &layer.name))?;
            if size == 0 || !size.is_multiple_of(blocks) {
                return Err(Error::config(format!("a file of {size} bytes cannot be part of a disk"))
                    .with_context("path", &layer.name)
                    .with_hint(format!("pad it with zeros to a multiple of {blocks} bytes")));
            }
            let step = if self.split { TWO_GIB } else { size };
            let mut offset = 0;
            while offset < size {
                let length = step.min(size - offset);
                extents.push(Extent::new(&layer.name, length / SECTOR, offset / SECTOR)?);
                offset += length;
            }
        }
        Descriptor::new(cid(layers), extents)
    }
}

impl Materializer for Vmdk {
    fn format(&self) -> Format {
        let options = [self.sector_blocks.then_some("b512"), self.split.then_some("split")];
        let options: Vec<_> = options.into_iter().flatten().collect();
        Format { name: "vmdk", version: 1, options: options.join("-"), extension: "vmdk" }
    }

    fn input(&self) -> Input {
        Input::Artifacts { format: "erofs-merged", options: Options::default() }
    }

    fn outputs(&self) -> Vec<OutputSpec> {
        vec![OutputSpec::new(Role::Descriptor, self.format().extension)]
    }

    /// Writes the [`descriptor`](Self::descriptor) of `layers`, of whose files it reads no data.
    fn join(&self, layers: &[InputArtifact], out: &mut dyn Sink) -> Result<Made> {
        let out = out.output(Role::Descriptor)?;
        let text = self.descriptor(layers)?.to_string();
        out.write_all(text.as_bytes()).map_err(|e| Error::io("writing a VMDK descriptor", e))?;
        let made = Made::of_files(layers);
        // An image and its devices on one disk: EROFS finds them there from this version on.
        Ok(if layers.len() > 1 { made.and(&Made::default().with_kernel(6, 4)) } else { made })
    }
}

/// The bytes of a file in front of its hash tree, or all.
fn size_of(layer: &InputArtifact) -> Result<u64> {
    let size = layer.artifact.size();
    if let Some(tree) = &layer.artifact.made().hash_tree {
        let is_behind = tree.place == TreePlace::Append;
        return Ok(if is_behind { tree.data_size().min(size) } else { size });
    }
    let Some(path) = layer.artifact.path() else { return Ok(size) };
    let file = match fs::metadata(path) {
        Ok(found) if found.is_file() => File::open(path),
        Ok(_) => return Ok(size),
        Err(e) => Err(e),
    };
    let file = match file {
        Ok(file) => file,
        // A descriptor may be made before its files.
        Err(e) if matches!(e.kind(), NotFound | NotADirectory | InvalidFilename) => return Ok(size),
        Err(e) => return Err(Error::io("looking for a hash tree in a file of the disk", e)),
    };
    Ok(TreeLayout::find(&file)?.map_or(size, |(tree, _)| tree.data_size()))
}

/// The content's identity: of the layers' digests where there are any, else of their names, and of their sizes.
fn cid(layers: &[InputArtifact]) -> u32 {
    let mut identity = Vec::new();
    for layer in layers {
        let name = layer.name.as_bytes();
        let content = layer.diff_id.as_ref().map_or(name, |digest| digest.as_ref().as_bytes());
        for field in [&layer.artifact.size().to_le_bytes(), &(content.len() as u64).to_le_bytes(), content] {
            identity.extend_from_slice(field);
        }
    }
    cid_of(&sha256(&identity))
}
