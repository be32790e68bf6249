//! The suite that every materializer runs, looking through the reader of the format that is joined.

use std::fs::{self, File};
use std::path::Path;

use example_concat::Concat;
use plyfold_conformance::tree::{ContentText, TreeLine, lines};
use plyfold_conformance::{MaterializerFixture, materializer_suite, path_of};
use plyfold_core::{InputArtifact, Made, Materializer, Result, Sink};
use plyfold_erofs::{ErofsLayer, ErofsMerged, Reader};

materializer_suite!(Disks);

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Looks into disks by the reader of EROFS.
struct Disks;

impl MaterializerFixture for Disks {
    fn materializer(&self) -> Box<dyn Materializer> {
        Box::new(Concat)
    }

    fn layers(&self) -> Option<Box<dyn Materializer>> {
        Some(Box::new(ErofsLayer::default()))
    }

    /// What the engine gives it: the merged image, then the layers.
    fn join(&self, layers: &[InputArtifact], file: &Path, out: &mut dyn Sink) -> Result<Made> {
        let path = file.with_file_name("merged.erofs");
        let mut merged = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        ErofsMerged::default().join(layers, &mut merged)?;
        let mut files = [&[InputArtifact::local(&path, None)?], layers].concat();
        for file in &mut files {
            file.name = name_of(path_of(file));
        }
        Concat.join(&files, out)
    }

    fn tree(&self, file: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        let mut reader = Reader::new(File::open(file).unwrap()).unwrap();
        let tree = reader.tree().unwrap();
        let text = lines(&tree, |content, size| {
            ContentText::read(size, |offset, buffer| reader.read(content, size, offset, buffer))
        });
        text.unwrap()
    }

    /// The sidecar names every file, each behind the one before, and the bytes there are the file's.
    fn check(&self, file: &Path, layers: &[InputArtifact]) {
        let disk = fs::read(file).unwrap();
        let sidecar = fs::read_to_string(file.with_extension("offsets")).unwrap();
        let merged = file.with_file_name("merged.erofs");
        let files = std::iter::once(&*merged).chain(layers.iter().map(path_of));
        let mut end = 0;
        assert_eq!(sidecar.lines().count(), layers.len() + 1);
        for (line, path) in sidecar.lines().zip(files) {
            let content = fs::read(path).unwrap();
            assert_eq!(line, format!("{end} {} {}", content.len(), name_of(path)));
            assert!(disk[end..].starts_with(&content), "{}", path.display());
            end += content.len();
        }
        assert_eq!(disk.len(), end);
    }

    /// It is made of finished files, and has no options.
    fn not_judged(&self) -> &'static [&'static str] {
        &[
            "a_bad_layer_is_an_error_not_a_smaller_image",
            "appended_patch_reads_back",
            "options_that_change_bytes_are_in_the_format",
            "whiteouts_and_opaque_in_overlay_form",
        ]
    }
}
