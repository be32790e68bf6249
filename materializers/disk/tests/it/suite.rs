//! The conformance suite, looking through the reader of EROFS.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use plyfold_conformance::tree::{ContentText, TreeLine, lines};
use plyfold_conformance::{MaterializerFixture, path_of};
use plyfold_core::{InputArtifact, Made, Materializer, Result, Role, Sink, TreePlace};
use plyfold_disk::{Gpt, PartitionTrees, Raw, VmdkGpt};
use plyfold_erofs::{ErofsLayer, Options, Reader};
use plyfold_vmdk::{Descriptor, FlatDisk, SparseDisk, VmdkStream};

use crate::common::{entries, join, join_named, join_stream, name_tables};

mod raw {
    plyfold_conformance::materializer_suite!(super::Disk::raw(4096));
}

mod raw_verified {
    plyfold_conformance::materializer_suite!(super::Disk::verified(plyfold_core::TreePlace::Append));
}

mod gpt {
    plyfold_conformance::materializer_suite!(super::Disk::gpt(4096));
}

mod gpt_verified {
    plyfold_conformance::materializer_suite!(super::Disk::gpt_verified(
        plyfold_disk::PartitionTrees::Partition
    ));
}

mod vmdk_gpt {
    plyfold_conformance::materializer_suite!(super::OverFiles(4096, None));
}

mod vmdk_stream {
    plyfold_conformance::materializer_suite!(super::Stream(plyfold_vmdk::VmdkStream::new()));
}

/// A descriptor over files, with blocks of so many bytes, and with hash trees.
struct OverFiles(u32, Option<PartitionTrees>);

impl OverFiles {
    fn options(&self) -> Options {
        Options::default().with_block_size(self.0).unwrap()
    }
}

impl MaterializerFixture for OverFiles {
    fn materializer(&self) -> Box<dyn Materializer> {
        Box::new(self.1.into_iter().fold(VmdkGpt::with_block_size(self.0), VmdkGpt::with_hash_trees))
    }

    fn variants(&self) -> Vec<Box<dyn MaterializerFixture>> {
        let trees = [PartitionTrees::Append, PartitionTrees::Partition].map(|trees| Self(4096, Some(trees)));
        std::iter::once(Self(512, None)).chain(trees).map(|variant| Box::new(variant) as _).collect()
    }

    fn layers(&self) -> Option<Box<dyn Materializer>> {
        let layer = ErofsLayer::new(self.options());
        Some(Box::new(if self.1.is_some() { layer.with_hash_tree() } else { layer }))
    }

    fn join(&self, layers: &[InputArtifact], file: &Path, out: &mut dyn Sink) -> Result<Made> {
        join_named(&*self.materializer(), layers, file, &self.options(), out)
    }

    fn tree(&self, file: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        if file.extension().is_some_and(|extension| extension == "erofs") {
            return tree(File::open(file).unwrap());
        }
        name_tables(file);
        tree(whole(FlatDisk::new(&descriptor(file), file.parent().unwrap()).unwrap()))
    }

    /// The files of the suite lie beside each other.
    fn disk(&self, files: &[(Role, Vec<u8>)], layers: &[InputArtifact]) -> Vec<u8> {
        let folder = path_of(&layers[0]).parent().unwrap();
        let bytes = |of: Role| &files.iter().find(|(role, _)| *role == of).unwrap().1;
        std::fs::write(folder.join("partitions.gpt"), bytes(Role::Sidecar)).unwrap();
        let text = std::str::from_utf8(bytes(Role::Descriptor)).unwrap();
        let disk = FlatDisk::new(&Descriptor::parse(text).unwrap(), folder).unwrap();
        let disk = crate::bytes(&whole(disk));
        // It is the disk of partitions, byte for byte.
        let gpt = self.1.into_iter().fold(Gpt::with_block_size(self.0), Gpt::with_hash_trees);
        let mut theirs = tempfile::tempfile().unwrap();
        join(&gpt, layers, &folder.join("gpt"), &self.options(), &mut theirs).unwrap();
        assert!(disk == crate::bytes(&theirs), "the disk is not that of partitions");
        disk
    }

    fn check(&self, file: &Path, layers: &[InputArtifact]) {
        let read = |path| std::fs::read(path).unwrap();
        let files =
            [(Role::Descriptor, read(file.to_owned())), (Role::Sidecar, read(file.with_extension("gpt")))];
        self.disk(&files, layers);
    }

    /// It is made of finished files.
    fn not_judged(&self) -> &'static [&'static str] {
        &[
            "a_bad_layer_is_an_error_not_a_smaller_image",
            "appended_patch_reads_back",
            "whiteouts_and_opaque_in_overlay_form",
        ]
    }
}

fn descriptor(file: &Path) -> Descriptor {
    Descriptor::parse(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// A compressed disk.
struct Stream(VmdkStream);

impl MaterializerFixture for Stream {
    fn materializer(&self) -> Box<dyn Materializer> {
        Box::new(self.0)
    }

    fn variants(&self) -> Vec<Box<dyn MaterializerFixture>> {
        let gpt = self.0.of("gpt").unwrap();
        let trees = [self.0, gpt].map(|stream| stream.with_hash_tree("append").unwrap());
        let others = [self.0.level(1).unwrap(), gpt, gpt.with_hash_tree("partition").unwrap()];
        others.into_iter().chain(trees).map(|stream| Box::new(Self(stream)) as _).collect()
    }

    fn layers(&self) -> Option<Box<dyn Materializer>> {
        let has_trees = self.0.has_hash_tree() && self.0.format().options.starts_with("gpt");
        Some(Box::new(if has_trees { ErofsLayer::default().with_hash_tree() } else { ErofsLayer::default() }))
    }

    fn join(&self, layers: &[InputArtifact], file: &Path, out: &mut dyn Sink) -> Result<Made> {
        join_stream(&self.0, layers, file, &Options::default(), out)
    }

    /// Without the zeros behind the last block: they are those of a whole MiB.
    fn disk(&self, files: &[(Role, Vec<u8>)], _: &[InputArtifact]) -> Vec<u8> {
        let mut disk = Vec::new();
        let mut stream = SparseDisk::new(std::io::Cursor::new(files[0].1.clone())).unwrap();
        stream.read_to_end(&mut disk).unwrap();
        let end = disk.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        disk.truncate(end.next_multiple_of(4096));
        disk
    }

    fn tree(&self, file: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        let file = File::open(file).unwrap();
        let mut start = [0; 4];
        file.read_exact_at(&mut start, 0).unwrap();
        tree(if &start == b"KDMV" { whole(SparseDisk::new(file).unwrap()) } else { file })
    }

    fn check(&self, file: &Path, layers: &[InputArtifact]) {
        self.tree(file, layers);
    }

    /// It is made of a finished disk.
    fn not_judged(&self) -> &'static [&'static str] {
        &[
            "a_bad_layer_is_an_error_not_a_smaller_image",
            "appended_patch_reads_back",
            "whiteouts_and_opaque_in_overlay_form",
        ]
    }
}

/// All bytes of a disk.
fn whole(mut disk: impl Read) -> File {
    let mut file = tempfile::tempfile().unwrap();
    std::io::copy(&mut disk, &mut file).unwrap();
    file
}

struct Disk {
    format: Box<dyn Materializer>,
    options: Options,
    /// Whether its layers have hash trees.
    has_trees: bool,
}

impl Disk {
    fn raw(block_size: u32) -> Self {
        let options = Options::default().with_block_size(block_size).unwrap();
        Self { format: Box::new(Raw::with_block_size(block_size)), options, has_trees: false }
    }

    fn verified(place: TreePlace) -> Self {
        Self { format: Box::new(Raw::default().with_hash_tree(place)), ..Self::raw(4096) }
    }

    fn gpt(block_size: u32) -> Self {
        Self { format: Box::new(Gpt::with_block_size(block_size)), ..Self::raw(block_size) }
    }

    fn gpt_verified(trees: PartitionTrees) -> Self {
        let format = Box::new(Gpt::default().with_hash_trees(trees));
        Self { format, has_trees: true, ..Self::raw(4096) }
    }
}

impl MaterializerFixture for Disk {
    fn materializer(&self) -> Box<dyn Materializer> {
        self.format.clone()
    }

    fn variants(&self) -> Vec<Box<dyn MaterializerFixture>> {
        let small = if self.format.format().name == "gpt" { Self::gpt(512) } else { Self::raw(512) };
        // The two files of one place have the bytes of the one file of the other.
        let is_plain = self.format.format().to_string() == "raw-v1";
        let trees = [TreePlace::Append, TreePlace::Separate].map(Self::verified);
        let trees = trees.into_iter().filter(|_| is_plain);
        let apart = [PartitionTrees::Append, PartitionTrees::Partition].map(Self::gpt_verified);
        let apart = apart.into_iter().filter(|_| self.format.format().to_string() == "gpt-v1");
        std::iter::once(small).chain(trees).chain(apart).map(|disk| Box::new(disk) as _).collect()
    }

    fn layers(&self) -> Option<Box<dyn Materializer>> {
        let layer = ErofsLayer::new(self.options.clone());
        Some(Box::new(if self.has_trees { layer.with_hash_tree() } else { layer }))
    }

    fn join(&self, layers: &[InputArtifact], file: &Path, out: &mut dyn Sink) -> Result<Made> {
        join(&*self.format, layers, file, &self.options, out)
    }

    fn tree(&self, file: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        tree(File::open(file).unwrap())
    }

    fn check(&self, file: &Path, layers: &[InputArtifact]) {
        self.tree(file, layers);
    }

    /// It is made of finished files.
    fn not_judged(&self) -> &'static [&'static str] {
        &[
            "a_bad_layer_is_an_error_not_a_smaller_image",
            "appended_patch_reads_back",
            "whiteouts_and_opaque_in_overlay_form",
        ]
    }
}

/// What is on a disk, with partitions or without. The suite looks into single layers, too.
fn tree(disk: File) -> Vec<TreeLine> {
    let mut start = [0; 520];
    disk.read_exact_at(&mut start, 0).unwrap();
    let mut reader = Reader::new(if start.ends_with(b"EFI PART") { flat(&disk) } else { disk }).unwrap();
    let tree = reader.tree().unwrap();
    let text = lines(&tree, |content, size| {
        ContentText::read(size, |offset, buffer| reader.read(content, size, offset, buffer))
    });
    text.unwrap()
}

/// The partitions behind each other, as far as they have file systems.
fn flat(disk: &File) -> File {
    let (flat, mut end) = (tempfile::tempfile().unwrap(), 0);
    for entry in entries(disk, 1).unwrap().iter().filter(|entry| !entry.name.ends_with("-verity")) {
        let mut bytes = vec![0; (entry.last + 1 - entry.first) as usize];
        disk.read_exact_at(&mut bytes, entry.first).unwrap();
        flat.write_all_at(&bytes, end).unwrap();
        end += bytes.len() as u64;
    }
    flat
}
