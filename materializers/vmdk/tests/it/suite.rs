//! The conformance suite on joined disks, read by [`FlatDisk`] and the reader of EROFS.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use plyfold_conformance::tree::{ContentText, TreeLine, lines};
use plyfold_conformance::{MaterializerFixture, path_of};
use plyfold_core::{InputArtifact, LocalArtifact, Made, Materializer, Result, Role, Sink, TreePlace};
use plyfold_erofs::{ErofsLayer, ErofsMerged, Reader};
use plyfold_vmdk::{Descriptor, FlatDisk, Vmdk};

mod plain {
    plyfold_conformance::materializer_suite!(super::Joined(None));
}

mod verified {
    plyfold_conformance::materializer_suite!(super::Joined(Some(plyfold_core::TreePlace::Append)));
}

/// A descriptor of a merged image and its layers, with a hash tree of the disk.
struct Joined(Option<TreePlace>);

impl MaterializerFixture for Joined {
    fn materializer(&self) -> Box<dyn Materializer> {
        Box::new(self.0.into_iter().fold(Vmdk::new(), Vmdk::with_hash_tree))
    }

    fn variants(&self) -> Vec<Box<dyn MaterializerFixture>> {
        let all = [None, Some(TreePlace::Append), Some(TreePlace::Separate)];
        let others = all.into_iter().filter(|place| *place != self.0);
        others.map(|place| Box::new(Self(place)) as _).collect()
    }

    fn layers(&self) -> Option<Box<dyn Materializer>> {
        Some(Box::new(ErofsLayer::default()))
    }

    /// The merged image stands beside the descriptor, which names all by file name.
    fn join(&self, layers: &[InputArtifact], file: &Path, out: &mut dyn Sink) -> Result<Made> {
        let path = file.with_file_name("merged.erofs");
        let mut image = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        let told = ErofsMerged::default().join(layers, &mut image)?;
        let merged = LocalArtifact::new(path, image.metadata()?.len(), told);
        let mut files = vec![InputArtifact::new("merged.erofs", Role::Image, Box::new(merged), None)];
        files.extend(layers.iter().map(|layer| {
            let name = path_of(layer).file_name().unwrap_or_default().to_string_lossy();
            InputArtifact::new(name, layer.role, layer.artifact.clone(), layer.diff_id.clone())
        }));
        self.materializer().join(&files, out)
    }

    fn tree(&self, file: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        if file.extension().is_some_and(|extension| extension == "erofs") {
            return tree(File::open(file).unwrap());
        }
        let hashes = file.with_extension("verity");
        if hashes.exists() {
            // It has this name in a set.
            std::fs::copy(hashes, file.with_file_name("rootfs.verity")).unwrap();
        }
        let text = std::fs::read_to_string(file).unwrap();
        let mut disk = FlatDisk::new(&Descriptor::parse(&text).unwrap(), file.parent().unwrap()).unwrap();
        let mut whole = tempfile::tempfile().unwrap();
        std::io::copy(&mut disk, &mut whole).unwrap();
        tree(whole)
    }

    /// The files of the suite lie beside each other.
    fn disk(&self, files: &[(Role, Vec<u8>)], layers: &[InputArtifact]) -> Vec<u8> {
        let folder = path_of(&layers[0]).parent().unwrap();
        for (role, bytes) in files {
            if *role == Role::HashTree {
                std::fs::write(folder.join("rootfs.verity"), bytes).unwrap();
            }
        }
        let text = std::str::from_utf8(&files[0].1).unwrap();
        let mut disk = FlatDisk::new(&Descriptor::parse(text).unwrap(), folder).unwrap();
        let mut bytes = Vec::new();
        disk.read_to_end(&mut bytes).unwrap();
        bytes
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

fn tree(disk: File) -> Vec<TreeLine> {
    let mut reader = Reader::new(disk).unwrap();
    let tree = reader.tree().unwrap();
    let text = lines(&tree, |content, size| {
        ContentText::read(size, |offset, buffer| reader.read(content, size, offset, buffer))
    });
    text.unwrap()
}
