//! The conformance suite, looking through this crate's own reader.

use std::fs::File;
use std::io::{self, Read as _};
use std::num::NonZero;
use std::path::Path;

use plyfold_conformance::tree::{ContentText, TreeLine, lines};
use plyfold_conformance::{DiskFixture, MaterializerFixture, path_of};
use plyfold_core::layer::{LayerTar, Timestamp};
use plyfold_core::{InputArtifact, Materializer, Result, TreePlace};
use plyfold_erofs::{Compression, ErofsFlat, ErofsLayer, ErofsMerged, ErofsPatch, ErofsTar, Options, Reader};
use plyfold_verity::TreeLayout;

mod flat {
    plyfold_conformance::materializer_suite!(super::Flat::default());
}

mod compressed {
    plyfold_conformance::materializer_suite!(super::Compressed::default());
}

mod flat_verified {
    plyfold_conformance::materializer_suite!(super::Flat::verified(plyfold_core::TreePlace::Append));
}

mod layers {
    plyfold_conformance::materializer_suite!(super::Layers::default());
}

mod fragments {
    plyfold_conformance::materializer_suite!(super::Fragments);
}

mod layers_compressed {
    plyfold_conformance::materializer_suite!(super::CompressedLayers::default());
}

mod layers_verified {
    plyfold_conformance::materializer_suite!(super::Layers::verified());
}

mod merged {
    plyfold_conformance::materializer_suite!(super::Merged::default());
    plyfold_conformance::disk_suite!(super::Merged::default());
}

mod tars {
    plyfold_conformance::materializer_suite!(super::Tars(None));
}

mod merged_verified {
    plyfold_conformance::materializer_suite!(super::Merged::verified());
}

/// Algorithm, cluster size and threads.
struct Compressed(&'static str, u32, Option<NonZero<usize>>);

impl Default for Compressed {
    fn default() -> Self {
        Self("lz4", 16_384, None)
    }
}

/// The same of layers.
struct CompressedLayers(&'static str, u32);

impl Default for CompressedLayers {
    fn default() -> Self {
        Self("lz4", 16_384)
    }
}

/// Where its hash tree is, if it has one.
#[derive(Default)]
struct Flat(Options, Option<TreePlace>);

/// Where their hash trees are, if they have such.
#[derive(Default)]
struct Layers(Options, Option<TreePlace>);

/// Where its hash tree and those of its layers are, if they have such.
#[derive(Default)]
struct Merged(Options, Option<TreePlace>);

impl Flat {
    fn verified(place: TreePlace) -> Self {
        Self(Options::default(), Some(place))
    }
}

impl Layers {
    fn verified() -> Self {
        Self(Options::default(), Some(TreePlace::Append))
    }
}

impl Merged {
    fn verified() -> Self {
        Self(Options::default(), Some(TreePlace::Append))
    }
}

/// Other places of the trees, which make other bytes.
fn other_places(of: Option<TreePlace>) -> impl Iterator<Item = Option<TreePlace>> {
    // What is separated outside of a cache is behind the data for the suite, which looks into it.
    let places = [Some(TreePlace::Append), Some(TreePlace::Separate)].into_iter();
    let none = of.is_some().then_some(None);
    places.filter(move |_| of.is_none()).chain(none)
}

/// One for each option.
fn options() -> [Options; 4] {
    [
        Options::default().with_block_size(512).unwrap(),
        Options::default().with_label("label").unwrap(),
        Options::default().with_mtime(Timestamp { seconds: 1, nanos: 0 }),
        Options::default().with_uuid([1; 16]),
    ]
}

impl MaterializerFixture for Flat {
    fn materializer(&self) -> Box<dyn Materializer> {
        let flat = ErofsFlat::new(self.0.clone());
        Box::new(self.1.into_iter().fold(flat, ErofsFlat::with_hash_tree))
    }

    fn variants(&self) -> Vec<Box<dyn MaterializerFixture>> {
        let options = options().map(|options| Self(options, self.1));
        // The two files of one place have the bytes of the one file of the other.
        let trees = match self.1 {
            None => vec![Some(TreePlace::Append), Some(TreePlace::Separate)],
            Some(_) => vec![None],
        };
        let trees = trees.into_iter().map(|place| Self(Options::default(), place));
        options.into_iter().chain(trees).map(|fixture| Box::new(fixture) as _).collect()
    }

    fn patch(&self, file: &Path, change: LayerTar) -> Result<()> {
        patch(file, change)
    }

    fn tree(&self, file: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        read(file, &[])
    }

    fn check(&self, file: &Path, _: &[InputArtifact]) {
        read(file, &[]);
    }

    fn not_judged(&self) -> &'static [&'static str] {
        match self.1 {
            Some(_) => &["appended_patch_reads_back", "whiteouts_and_opaque_in_overlay_form"],
            None => &["whiteouts_and_opaque_in_overlay_form"],
        }
    }
}

impl MaterializerFixture for Compressed {
    fn materializer(&self) -> Box<dyn Materializer> {
        let compression = Compression::new(self.0.parse().unwrap()).unwrap().with_cluster(self.1).unwrap();
        let compression = match self.2 {
            Some(threads) => compression.with_threads(threads),
            None => compression,
        };
        Box::new(ErofsFlat::default().with_compression(compression).unwrap())
    }

    fn variants(&self) -> Vec<Box<dyn MaterializerFixture>> {
        // LZ4 with more effort makes the same of files as small as those of the rules.
        let others = [("lz4", 4096), ("zstd", 65_536), ("zstd,9", 65_536)];
        let others = others.map(|(algorithm, cluster)| Box::new(Self(algorithm, cluster, None)) as Box<_>);
        others.into_iter().chain([Box::new(Flat::default()) as Box<dyn MaterializerFixture>]).collect()
    }

    fn with_threads(&self, threads: NonZero<usize>) -> Option<Box<dyn MaterializerFixture>> {
        Some(Box::new(Self(self.0, self.1, Some(threads))))
    }

    fn patch(&self, file: &Path, change: LayerTar) -> Result<()> {
        patch(file, change)
    }

    fn tree(&self, file: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        read(file, &[])
    }

    fn check(&self, file: &Path, _: &[InputArtifact]) {
        read(file, &[]);
    }

    fn not_judged(&self) -> &'static [&'static str] {
        &["whiteouts_and_opaque_in_overlay_form"]
    }
}

impl MaterializerFixture for Layers {
    fn materializer(&self) -> Box<dyn Materializer> {
        let layer = ErofsLayer::new(self.0.clone());
        Box::new(match self.1 {
            None => layer,
            Some(TreePlace::Separate) => layer.with_separate_hash_tree(),
            Some(_) => layer.with_hash_tree(),
        })
    }

    fn variants(&self) -> Vec<Box<dyn MaterializerFixture>> {
        let options = options().map(|options| Self(options, self.1));
        let others = other_places(self.1).map(|place| Self(Options::default(), place));
        options.into_iter().chain(others).map(|fixture| Box::new(fixture) as _).collect()
    }

    fn patch(&self, file: &Path, change: LayerTar) -> Result<()> {
        patch(file, change)
    }

    fn tree(&self, file: &Path, layers: &[InputArtifact]) -> Vec<TreeLine> {
        read(file, layers)
    }

    fn check(&self, file: &Path, layers: &[InputArtifact]) {
        read(file, layers);
    }

    fn not_judged(&self) -> &'static [&'static str] {
        if self.1.is_some() { &["appended_patch_reads_back"] } else { &[] }
    }
}

struct Fragments;

impl MaterializerFixture for Fragments {
    fn materializer(&self) -> Box<dyn Materializer> {
        let compression = Compression::new("lz4".parse().unwrap()).unwrap().with_fragments();
        Box::new(ErofsFlat::default().with_compression(compression).unwrap())
    }

    fn variants(&self) -> Vec<Box<dyn MaterializerFixture>> {
        vec![Box::new(Compressed::default()), Box::new(Flat::default())]
    }

    fn patch(&self, file: &Path, change: LayerTar) -> Result<()> {
        patch(file, change)
    }

    fn tree(&self, file: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        read(file, &[])
    }

    fn check(&self, file: &Path, _: &[InputArtifact]) {
        read(file, &[]);
    }

    fn not_judged(&self) -> &'static [&'static str] {
        &["whiteouts_and_opaque_in_overlay_form"]
    }
}

impl MaterializerFixture for CompressedLayers {
    fn materializer(&self) -> Box<dyn Materializer> {
        let compression = Compression::new(self.0.parse().unwrap()).unwrap().with_cluster(self.1).unwrap();
        Box::new(ErofsLayer::default().with_compression(compression).unwrap())
    }

    fn variants(&self) -> Vec<Box<dyn MaterializerFixture>> {
        let others = [("lz4", 4096), ("zstd", 65_536), ("zstd,9", 65_536)];
        let others = others.map(|(algorithm, cluster)| Box::new(Self(algorithm, cluster)) as Box<_>);
        others.into_iter().chain([Box::new(Layers::default()) as Box<dyn MaterializerFixture>]).collect()
    }

    fn tree(&self, file: &Path, layers: &[InputArtifact]) -> Vec<TreeLine> {
        read(file, layers)
    }

    fn check(&self, file: &Path, layers: &[InputArtifact]) {
        read(file, layers);
    }

    fn not_judged(&self) -> &'static [&'static str] {
        &["appended_patch_reads_back"]
    }
}

impl MaterializerFixture for Merged {
    fn materializer(&self) -> Box<dyn Materializer> {
        let merged = ErofsMerged::new(self.0.clone());
        Box::new(match self.1 {
            None => merged,
            Some(TreePlace::Separate) => merged.with_separate_hash_trees(),
            Some(_) => merged.with_hash_trees(),
        })
    }

    fn variants(&self) -> Vec<Box<dyn MaterializerFixture>> {
        let options = options().map(|options| Self(options, self.1));
        let others = other_places(self.1).map(|place| Self(Options::default(), place));
        options.into_iter().chain(others).map(|fixture| Box::new(fixture) as _).collect()
    }

    fn layers(&self) -> Option<Box<dyn Materializer>> {
        Some(Layers(self.0.clone(), self.1).materializer())
    }

    fn patch(&self, file: &Path, change: LayerTar) -> Result<()> {
        patch(file, change)
    }

    fn tree(&self, file: &Path, layers: &[InputArtifact]) -> Vec<TreeLine> {
        read(file, layers)
    }

    fn check(&self, file: &Path, layers: &[InputArtifact]) {
        read(file, layers);
    }

    fn not_judged(&self) -> &'static [&'static str] {
        &[
            "a_bad_layer_is_an_error_not_a_smaller_image",
            "appended_patch_reads_back",
            "whiteouts_and_opaque_in_overlay_form",
        ]
    }
}

impl DiskFixture for Merged {
    /// It is read together with its layers.
    fn disk_not_judged(&self) -> &'static [&'static str] {
        &[
            "a_size_too_small_is_told_first",
            "ext4_upper_takes_writes",
            "guest_boots",
            "vmdk_reads_back_identical",
        ]
    }
}

/// Where its hash tree is, if it has one.
struct Tars(Option<TreePlace>);

impl MaterializerFixture for Tars {
    fn materializer(&self) -> Box<dyn Materializer> {
        let tars = ErofsTar::default();
        Box::new(match self.0 {
            None => tars,
            Some(TreePlace::Separate) => tars.with_separate_hash_tree(),
            Some(_) => tars.with_hash_tree(),
        })
    }

    fn variants(&self) -> Vec<Box<dyn MaterializerFixture>> {
        other_places(self.0).map(|place| Box::new(Self(place)) as _).collect()
    }

    fn patch(&self, file: &Path, change: LayerTar) -> Result<()> {
        patch(file, change)
    }

    fn tree(&self, file: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        read(file, &[])
    }

    fn check(&self, file: &Path, _: &[InputArtifact]) {
        read(file, &[]);
    }

    fn not_judged(&self) -> &'static [&'static str] {
        &["appended_patch_reads_back"]
    }
}

/// Patches an image in its place.
fn patch(image: &Path, change: LayerTar) -> Result<()> {
    let file = File::options().read(true).write(true).open(image)?;
    ErofsPatch::default().apply(&file, [Ok(change)], &std::env::temp_dir()).map(drop)
}

/// The tree of an image with its devices behind it.
fn read(image: &Path, devices: &[InputArtifact]) -> Vec<TreeLine> {
    let mut disk = tempfile::tempfile().unwrap();
    for path in std::iter::once(image).chain(devices.iter().map(path_of)) {
        let file = File::open(path).unwrap();
        let tree = TreeLayout::find(&file).unwrap();
        let size = tree.map_or(u64::MAX, |(tree, _)| tree.data_size());
        io::copy(&mut file.take(size), &mut disk).unwrap();
    }
    let mut reader = Reader::new(disk).unwrap();
    let tree = reader.tree().unwrap();
    let text = lines(&tree, |content, size| {
        ContentText::read(size, |offset, buffer| reader.read(content, size, offset, buffer))
    });
    text.unwrap()
}
