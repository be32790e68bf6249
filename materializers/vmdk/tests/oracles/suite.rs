//! The conformance suite on disks of a merged EROFS image and its layers, through qemu-img and the kernel.

use std::fs::{self, File};
use std::path::Path;

use plyfold_conformance::oracle::{Mount, Run, Verdict};
use plyfold_conformance::tree::{TreeLine, mounted};
use plyfold_conformance::{DiskFixture, MaterializerFixture, ReadBack, path_of, rules};
use plyfold_core::{InputArtifact, Made, Materializer, Result, Role, Sink, TreePlace};
use plyfold_erofs::ErofsLayer;
use tempfile::NamedTempFile;

use crate::set;

/// Every rule, on images.
#[expect(clippy::unnecessary_wraps, reason = "the form of an oracle test")]
pub(crate) fn the_suite_through_qemu_and_the_kernel() -> Verdict {
    for disk in [Disk(None), Disk(Some(TreePlace::Append))] {
        for rule in rules::materializer() {
            rule.judge(&disk);
        }
        for rule in rules::disk() {
            rule.judge(&disk);
        }
    }
    Ok(())
}

/// Where the hash tree of the disk is, if it has one.
struct Disk(Option<TreePlace>);

impl MaterializerFixture for Disk {
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
        let raw = converted(file);
        let mount = Mount::new("erofs", raw.path(), "loop,ro").expect("the kernel mounts the disk");
        mounted(mount.path()).expect("the mount can be read")
    }

    fn disk(&self, files: &[(Role, Vec<u8>)], layers: &[InputArtifact]) -> Vec<u8> {
        let raw = converted(&set::written(files, layers));
        fs::read(raw.path()).expect("the disk can be read")
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
        set::name_tree(file);
        Run::new("qemu-img")
            .args(["info", "-f", "vmdk"])
            .arg(file)
            .success()
            .expect("qemu-img reads the descriptor");
        let devices = layers.iter().map(|layer| format!("--device={}", path_of(layer).display()));
        let merged = set::merged(file);
        Run::new("fsck.erofs").args(devices).arg(merged).success().expect("fsck.erofs finds nothing");
    }

    fn not_judged(&self) -> &'static [&'static str] {
        const ALL: [&str; 4] = {
            let [bad, patched, whiteouts] = set::NOT_JUDGED;
            [bad, patched, "memory_bounded_for_any_layer_size", whiteouts]
        };
        &ALL
    }
}

impl DiskFixture for Disk {
    /// By qemu-img.
    fn read_back(&self, file: &Path, layers: &[InputArtifact]) -> Option<ReadBack> {
        let merged = set::merged(file);
        let disk = converted(file).into_file();
        let tree = self.0.map(|_| set::named_tree(file));
        let parts = std::iter::once(&*merged).chain(layers.iter().map(path_of)).chain(tree.as_deref());
        Some(ReadBack::new(disk, parts.map(|part| File::open(part).expect("a part opens")).collect()))
    }

    fn disk_not_judged(&self) -> &'static [&'static str] {
        &["a_size_too_small_is_told_first", "ext4_upper_takes_writes", "guest_boots"]
    }
}

/// The disk that qemu-img finds.
fn converted(file: &Path) -> NamedTempFile {
    set::name_tree(file);
    let raw = NamedTempFile::new().expect("a temporary file can be made");
    let convert = Run::new("qemu-img").args(["convert", "-f", "vmdk", "-O", "raw"]).arg(file);
    convert.arg(raw.path()).success().expect("qemu-img reads the disk");
    raw
}
