//! The materializer: finished files in, a descriptor out.

use std::fs::{self, File};
use std::io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
use std::io::{self, Read, SeekFrom, Take};
use std::slice;

use plyfold_core::digest::sha256;
use plyfold_core::{
    ArtifactReader, Error, Format, HashTree, Input, InputArtifact, Made, Materializer, Options, OutputSpec,
    Result, Role, Sink, TreePlace,
};
use plyfold_verity::{TreeLayout, tree_key, tree_of, tree_outputs};

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
    hash_tree: Option<TreePlace>,
}

/// The file of a hash tree, as a set calls it.
const TREE: &str = "rootfs.verity";

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

    /// With a dm-verity hash tree of the whole disk, in a file of its own, `rootfs.verity`: behind the data it is the last
    /// extent of the disk, else it is for a disk of its own.
    #[must_use]
    pub fn with_hash_tree(mut self, place: TreePlace) -> Self {
        self.hash_tree = Some(place);
        self
    }

    /// The descriptor that joins `layers`, without a hash tree.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for no file at all, for a file that is empty or not made of
    /// whole blocks (the next one would begin inside of a block, or the disk would shrink), and for a path that a
    /// reader would take for another; [`Limit`](plyfold_core::ErrorKind::Limit) beyond
    /// [`MAX_DESCRIPTOR`](crate::MAX_DESCRIPTOR) bytes of text; [`Io`](plyfold_core::ErrorKind::Io) for a file that is there
    /// and cannot be read, so that it is not known whether it has a hash tree.
    pub fn descriptor(&self, layers: &[InputArtifact]) -> Result<Descriptor> {
        Descriptor::new(cid(layers, None), self.extents(layers)?)
    }

    fn extents(&self, layers: &[InputArtifact]) -> Result<Vec<Extent>> {
        let blocks = u64::from(self.block_size());
        let mut extents = Vec::with_capacity(layers.len());
        for layer in layers {
            let size = size_of(layer).map_err(|e| e.with_context("path", &layer.name))?;
            if size == 0 || !size.is_multiple_of(blocks) {
                return Err(Error::config(format!("a file of {size} bytes cannot be part of a disk"))
                    .with_context("path", &layer.name)
                    .with_hint(format!("pad it with zeros to a multiple of {blocks} bytes")));
            }
            self.add(&layer.name, size, &mut extents)?;
        }
        Ok(extents)
    }

    /// Adds the first bytes of a file.
    fn add(&self, name: &str, size: u64, extents: &mut Vec<Extent>) -> Result<()> {
        let step = if self.split { TWO_GIB } else { size };
        let mut offset = 0;
        while offset < size {
            let length = step.min(size - offset);
            extents.push(Extent::new(name, length / SECTOR, offset / SECTOR)?);
            offset += length;
        }
        Ok(())
    }

    /// Writes the hash tree of the disk, which becomes a part of it where it is to be behind the data.
    fn hashed(
        &self,
        layers: &[InputArtifact],
        place: TreePlace,
        extents: &mut Vec<Extent>,
        out: &mut dyn Sink,
    ) -> Result<HashTree> {
        let size = extents.iter().map(Extent::size).sum();
        let mut disk = Joined { files: layers.iter(), open: None };
        let tree = tree_of(&mut disk, size, self.block_size(), None, out)?;
        if place == TreePlace::Separate {
            return Ok(tree);
        }
        let end = out.output(Role::HashTree)?.seek(SeekFrom::End(0));
        self.add(TREE, end.map_err(|e| Error::io("finding the size of a hash tree", e))?, extents)?;
        Ok(tree.at(place, size))
    }

    fn block_size(&self) -> u32 {
        if self.sector_blocks { 512 } else { 4096 }
    }
}

impl Materializer for Vmdk {
    fn format(&self) -> Format {
        let options = [self.sector_blocks.then_some("b512"), self.split.then_some("split")];
        let options: Vec<_> = options.into_iter().flatten().collect();
        let options = tree_key(options.join("-"), self.hash_tree);
        Format { name: "vmdk", version: 1, options, extension: "vmdk" }
    }

    fn input(&self) -> Input {
        Input::Artifacts { format: "erofs-merged", options: Options::default() }
    }

    fn outputs(&self) -> Vec<OutputSpec> {
        // Wherever it is on disks, the tree is a file of its own.
        let tree = self.hash_tree.map(|_| TreePlace::Separate);
        tree_outputs(OutputSpec::new(Role::Descriptor, "vmdk"), tree)
    }

    fn has_hash_tree(&self) -> bool {
        self.hash_tree.is_some()
    }

    /// Writes the [`descriptor`](Self::descriptor) of `layers`, whose files are read for a hash tree alone.
    fn join(&self, layers: &[InputArtifact], out: &mut dyn Sink) -> Result<Made> {
        let mut extents = self.extents(layers)?;
        // What is wrong with them is found before a tree is made.
        Descriptor::new(0, extents.clone())?;
        let tree = self.hash_tree.map(|place| self.hashed(layers, place, &mut extents, out)).transpose()?;
        let text = Descriptor::new(cid(layers, tree.as_ref()), extents)?.to_string();
        let out = out.output(Role::Descriptor)?;
        out.write_all(text.as_bytes()).map_err(|e| Error::io("writing a VMDK descriptor", e))?;
        let made = tree.into_iter().fold(Made::of_files(layers), Made::with_hash_tree);
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

/// The bytes of a disk: of its files, one behind the other, each without a hash tree of its own. One is open at a time.
struct Joined<'a> {
    files: slice::Iter<'a, InputArtifact>,
    open: Option<Take<ArtifactReader>>,
}

impl Read for Joined<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(open) = &mut self.open {
                let count = open.read(buffer)?;
                if count > 0 || buffer.is_empty() {
                    return Ok(count);
                }
            }
            let Some(file) = self.files.next() else { return Ok(0) };
            self.open = Some(ArtifactReader::open(&*file.artifact)?.take(size_of(file)?));
        }
    }
}

/// The content's identity: of the layers' digests where there are any, else of their names, and of their sizes. A hash tree
/// on the disk is a part of it.
fn cid(layers: &[InputArtifact], tree: Option<&HashTree>) -> u32 {
    let mut identity = Vec::new();
    for layer in layers {
        let name = layer.name.as_bytes();
        let content = layer.diff_id.as_ref().map_or(name, |digest| digest.as_ref().as_bytes());
        for field in [&layer.artifact.size().to_le_bytes(), &(content.len() as u64).to_le_bytes(), content] {
            identity.extend_from_slice(field);
        }
    }
    if let Some(tree) = tree.filter(|tree| tree.place == TreePlace::Append) {
        identity.extend_from_slice(tree.root_hash().as_bytes());
    }
    cid_of(&sha256(&identity))
}
