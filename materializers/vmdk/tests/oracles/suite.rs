//! The conformance suite on disks of a merged EROFS image and its layers, through qemu-img and the kernel.

use std::fs::File;
use std::path::Path;

use plyfold_conformance::oracle::{Mount, Run, Verdict};
use plyfold_conformance::tree::{TreeLine, mounted};
use plyfold_conformance::{DiskFixture, MaterializerFixture, ReadBack, path_of, rules};
use plyfold_core::{InputArtifact, Made, Materializer, Result, Sink};
use plyfold_erofs::{ErofsLayer, ErofsMerged};
use plyfold_vmdk::Vmdk;
use tempfile::NamedTempFile;

/// Every rule, on images.
#[expect(clippy::unnecessary_wraps, reason = "the form of an oracle test")]
pub(crate) fn the_suite_through_qemu_and_the_kernel() -> Verdict {
    for rule in rules::materializer() {
        rule.judge(&Disk);
    }
    for rule in rules::disk() {
        rule.judge(&Disk);
    }
    Ok(())
}

struct Disk;

impl MaterializerFixture for Disk {
    fn materializer(&self) -> Box<dyn Materializer> {
        Box::new(Vmdk::new())
    }

    fn layers(&self) -> Option<Box<dyn Materializer>> {
        Some(Box::new(ErofsLayer::default()))
    }

    /// The merged image stands beside the descriptor, which names all by file name.
    fn join(&self, layers: &[InputArtifact], file: &Path, out: &mut dyn Sink) -> Result<Made> {
        let merged = file.with_file_name("merged.erofs");
        let mut image = File::options().read(true).write(true).create(true).truncate(true).open(&merged)?;
        ErofsMerged::default().join(layers, &mut image)?;
        let merged = InputArtifact::local(&merged, None)?;
        let extents = std::iter::once(&merged).chain(layers).map(|extent| {
            let name = path_of(extent).file_name().unwrap_or_default().to_string_lossy();
            InputArtifact::new(name, extent.role, extent.artifact.clone(), extent.diff_id.clone())
        });
        Vmdk::new().join(&extents.collect::<Vec<_>>(), out)
    }

    fn tree(&self, file: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        let raw = converted(file);
        let mount = Mount::new("erofs", raw.path(), "loop,ro").expect("the kernel mounts the disk");
        mounted(mount.path()).expect("the mount can be read")
    }

    fn overlaid(&self, layers: &[InputArtifact]) -> Vec<TreeLine> {
        let mounts = layers.iter().map(|layer| Mount::new("erofs", path_of(layer), "loop,ro"));
        let mounts: Vec<_> = mounts.map(|mount| mount.expect("the kernel mounts the layer")).collect();
        let empty = tempfile::tempdir().expect("a temporary directory can be made");
        let lowers: Vec<_> = mounts.iter().rev().map(Mount::path).chain([empty.path()]).collect();
        let overlay = Mount::overlay(&lowers, None).expect("the kernel stacks the layers");
        mounted(overlay.path()).expect("the mount can be read")
    }

    fn check(&self, file: &Path, layers: &[InputArtifact]) {
        Run::new("qemu-img")
            .args(["info", "-f", "vmdk"])
            .arg(file)
            .success()
            .expect("qemu-img reads the descriptor");
        let devices = layers.iter().map(|layer| format!("--device={}", path_of(layer).display()));
        let merged = file.with_file_name("merged.erofs");
        Run::new("fsck.erofs").args(devices).arg(merged).success().expect("fsck.erofs finds nothing");
    }

    /// It is made of finished files, and no option changes the disk of a small image.
    fn not_judged(&self) -> &'static [&'static str] {
        &[
            "a_bad_layer_is_an_error_not_a_smaller_image",
            "appended_patch_reads_back",
            "memory_bounded_for_any_layer_size",
            "options_that_change_bytes_are_in_the_format",
            "whiteouts_and_opaque_in_overlay_form",
        ]
    }
}

impl DiskFixture for Disk {
    /// By qemu-img.
    fn read_back(&self, file: &Path, layers: &[InputArtifact]) -> Option<ReadBack> {
        let merged = file.with_file_name("merged.erofs");
        let parts = std::iter::once(&*merged).chain(layers.iter().map(path_of));
        let parts = parts.map(|part| File::open(part).expect("a part opens")).collect();
        Some(ReadBack::new(converted(file).into_file(), parts))
    }

    fn disk_not_judged(&self) -> &'static [&'static str] {
        &["a_size_too_small_is_told_first", "ext4_upper_takes_writes", "guest_boots"]
    }
}

/// The disk that qemu-img finds.
fn converted(file: &Path) -> NamedTempFile {
    let raw = NamedTempFile::new().expect("a temporary file can be made");
    let convert = Run::new("qemu-img").args(["convert", "-f", "vmdk", "-O", "raw"]).arg(file);
    convert.arg(raw.path()).success().expect("qemu-img reads the disk");
    raw
}
