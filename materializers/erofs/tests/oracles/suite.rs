//! The conformance suite, looking through the kernel and fsck.erofs.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use plyfold_conformance::oracle::{Mount, Run, Verdict};
use plyfold_conformance::tree::{TreeLine, mounted};
use plyfold_conformance::{MaterializerFixture, path_of, rules};
use plyfold_core::layer::LayerTar;
use plyfold_core::{InputArtifact, Materializer, Result, TreePlace};
use plyfold_erofs::{Compression, ErofsFlat, ErofsLayer, ErofsMerged, ErofsPatch, ErofsTar};
use plyfold_verity::TreeLayout;
use tempfile::{NamedTempFile, TempPath};

/// Every rule, on layers, on tars behind an index, on merged and on flat images, compressed ones too.
#[expect(clippy::unnecessary_wraps, reason = "the form of an oracle test")]
pub(crate) fn the_suite_through_the_kernel() -> Verdict {
    for rule in rules::materializer() {
        for verified in
            [Kernel::LayersVerified, Kernel::MergedVerified, Kernel::FlatVerified, Kernel::TarsVerified]
        {
            rule.judge(&verified);
        }
        rule.judge(&Kernel::Layers);
        rule.judge(&Kernel::LayersCompressed);
        rule.judge(&Kernel::Merged);
        rule.judge(&Kernel::Flat);
        rule.judge(&Kernel::Compressed);
        rule.judge(&Kernel::Fragments);
        rule.judge(&Kernel::Tars);
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kernel {
    Compressed,
    Fragments,
    Flat,
    /// With hash trees behind the images.
    FlatVerified,
    Layers,
    LayersCompressed,
    LayersVerified,
    Merged,
    MergedVerified,
    Tars,
    TarsVerified,
}

impl MaterializerFixture for Kernel {
    fn materializer(&self) -> Box<dyn Materializer> {
        match self {
            Self::Compressed => {
                let compression = "lz4".parse().and_then(Compression::new);
                let flat = compression.and_then(|by| ErofsFlat::default().with_compression(by));
                Box::new(flat.expect("blocks of 4096 bytes"))
            }
            Self::Fragments => {
                let compression = "lz4".parse().and_then(Compression::new).map(Compression::with_fragments);
                let flat = compression.and_then(|by| ErofsFlat::default().with_compression(by));
                Box::new(flat.expect("blocks of 4096 bytes"))
            }
            Self::Flat => Box::new(ErofsFlat::default()),
            Self::FlatVerified => Box::new(ErofsFlat::default().with_hash_tree(TreePlace::Append)),
            Self::Layers => Box::new(ErofsLayer::default()),
            Self::LayersCompressed => {
                let compression = "lz4".parse().and_then(Compression::new);
                let layer = compression.and_then(|by| ErofsLayer::default().with_compression(by));
                Box::new(layer.expect("blocks of 4096 bytes"))
            }
            Self::LayersVerified => Box::new(ErofsLayer::default().with_hash_tree()),
            Self::Merged => Box::new(ErofsMerged::default()),
            Self::MergedVerified => Box::new(ErofsMerged::default().with_hash_trees()),
            Self::Tars => Box::new(ErofsTar::default()),
            Self::TarsVerified => Box::new(ErofsTar::default().with_hash_tree()),
        }
    }

    fn layers(&self) -> Option<Box<dyn Materializer>> {
        match self {
            Self::Compressed
            | Self::Fragments
            | Self::Flat
            | Self::FlatVerified
            | Self::Tars
            | Self::TarsVerified => None,
            Self::Layers | Self::Merged => Some(Self::Layers.materializer()),
            Self::LayersCompressed => Some(Self::LayersCompressed.materializer()),
            Self::LayersVerified | Self::MergedVerified => Some(Self::LayersVerified.materializer()),
        }
    }

    fn patch(&self, file: &Path, change: LayerTar) -> Result<()> {
        let file = File::options().read(true).write(true).open(file)?;
        ErofsPatch::default().apply(&file, [Ok(change)], &std::env::temp_dir()).map(drop)
    }

    fn tree(&self, file: &Path, layers: &[InputArtifact]) -> Vec<TreeLine> {
        let is_merged = matches!(self, Self::Merged | Self::MergedVerified);
        let disk = flat(file, if is_merged { layers } else { &[] });
        let mount = Mount::new("erofs", &disk, "loop,ro").expect("the kernel mounts the image");
        mounted(mount.path()).expect("the mount can be read")
    }

    fn overlaid(&self, layers: &[InputArtifact]) -> Vec<TreeLine> {
        let mounts = layers.iter().map(|layer| Mount::new("erofs", path_of(layer), "loop,ro"));
        let mounts: Vec<_> = mounts.map(|mount| mount.expect("the kernel mounts the layer")).collect();
        let lowers: Vec<_> = mounts.iter().rev().map(Mount::path).collect();
        // A single lower without an upper is no overlay to the kernel.
        let empty = tempfile::tempdir().expect("a temporary directory can be made");
        let lowers: Vec<_> = lowers.into_iter().chain([empty.path()]).collect();
        let overlay = Mount::overlay(&lowers, None).expect("the kernel stacks the layers");
        mounted(overlay.path()).expect("the mount can be read")
    }

    fn check(&self, file: &Path, layers: &[InputArtifact]) {
        if matches!(self, Self::Fragments | Self::Tars | Self::TarsVerified) {
            // Blocks of less than a page, and fragments, are refused by versions before 1.6: the kernel judges these.
            drop(self.tree(file, layers));
            return;
        }
        let devices = layers.iter().map(|layer| format!("--device={}", path_of(layer).display()));
        Run::new("fsck.erofs").args(devices).arg(file).success().expect("fsck.erofs finds nothing");
    }

    /// Other options, and memory, are judged by tests without the kernel.
    fn not_judged(&self) -> &'static [&'static str] {
        match self {
            Self::Compressed | Self::Fragments | Self::Flat => &[
                "memory_bounded_for_any_layer_size",
                "options_that_change_bytes_are_in_the_format",
                "whiteouts_and_opaque_in_overlay_form",
            ],
            Self::FlatVerified => &[
                "appended_patch_reads_back",
                "memory_bounded_for_any_layer_size",
                "options_that_change_bytes_are_in_the_format",
                "whiteouts_and_opaque_in_overlay_form",
            ],
            Self::Layers | Self::LayersCompressed => {
                &["memory_bounded_for_any_layer_size", "options_that_change_bytes_are_in_the_format"]
            }
            Self::LayersVerified | Self::Tars | Self::TarsVerified => &[
                "appended_patch_reads_back",
                "memory_bounded_for_any_layer_size",
                "options_that_change_bytes_are_in_the_format",
            ],
            Self::Merged | Self::MergedVerified => &[
                "a_bad_layer_is_an_error_not_a_smaller_image",
                "appended_patch_reads_back",
                "memory_bounded_for_any_layer_size",
                "options_that_change_bytes_are_in_the_format",
                "whiteouts_and_opaque_in_overlay_form",
            ],
        }
    }
}

/// The image and its devices as one disk.
fn flat(image: &Path, devices: &[InputArtifact]) -> TempPath {
    let mut disk = NamedTempFile::new().expect("a temporary file can be made");
    for path in std::iter::once(image).chain(devices.iter().map(path_of)) {
        let file = File::open(path).expect("the image opens");
        let tree = TreeLayout::find(&file).expect("the end of the image can be read");
        // One image stays as it is.
        let tree = tree.filter(|_| !devices.is_empty());
        let size = tree.map_or(u64::MAX, |(tree, _)| tree.data_size());
        io::copy(&mut file.take(size), disk.as_file_mut()).expect("the image can be copied");
    }
    disk.into_temp_path()
}
