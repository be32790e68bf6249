//! The conformance suite on joined disks, read by [`FlatDisk`] and the reader of EROFS.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use plyfold_conformance::MaterializerFixture;
use plyfold_conformance::tree::{ContentText, TreeLine, lines};
use plyfold_core::{InputArtifact, Made, Materializer, Result, Role, Sink, TreePlace};
use plyfold_erofs::{ErofsLayer, Reader};
use plyfold_vmdk::{Descriptor, FlatDisk};

use crate::set;

mod plain {
    plyfold_conformance::materializer_suite!(super::Joined(None));
}

mod verified {
    plyfold_conformance::materializer_suite!(super::Joined(Some(plyfold_core::TreePlace::Append)));
}

/// Where the hash tree of the disk is, if it has one.
struct Joined(Option<TreePlace>);

impl MaterializerFixture for Joined {
    fn materializer(&self) -> Box<dyn Materializer> {
        set::materializer(self.0)
    }

    fn variants(&self) -> Vec<Box<dyn MaterializerFixture>> {
        set::others(self.0).map(|place| Box::new(Self(place)) as _).collect()
    }

    fn layers(&self) -> Option<Box<dyn Materializer>> {
        Some(Box::new(ErofsLayer::default()))
    }

    fn join(&self, layers: &[InputArtifact], file: &Path, out: &mut dyn Sink) -> Result<Made> {
        set::join(self.0, layers, file, out)
    }

    fn tree(&self, file: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        if file.extension().is_some_and(|extension| extension == "erofs") {
            return tree(File::open(file).unwrap());
        }
        set::name_tree(file);
        let mut whole = tempfile::tempfile().unwrap();
        std::io::copy(&mut flat(file), &mut whole).unwrap();
        tree(whole)
    }

    fn disk(&self, files: &[(Role, Vec<u8>)], layers: &[InputArtifact]) -> Vec<u8> {
        let mut bytes = Vec::new();
        flat(&set::written(files, layers)).read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn check(&self, file: &Path, layers: &[InputArtifact]) {
        self.tree(file, layers);
    }

    fn not_judged(&self) -> &'static [&'static str] {
        &set::NOT_JUDGED
    }
}

fn flat(descriptor: &Path) -> FlatDisk {
    let text = std::fs::read_to_string(descriptor).unwrap();
    FlatDisk::new(&Descriptor::parse(&text).unwrap(), descriptor.parent().unwrap()).unwrap()
}

fn tree(disk: File) -> Vec<TreeLine> {
    let mut reader = Reader::new(disk).unwrap();
    let tree = reader.tree().unwrap();
    let text = lines(&tree, |content, size| {
        ContentText::read(size, |offset, buffer| reader.read(content, size, offset, buffer))
    });
    text.unwrap()
}
