//! The conformance suite on disks of a merged EROFS image and its layers, through qemu-img and the kernel.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use plyfold_conformance::oracle::{Mount, Run, Verdict};
use plyfold_conformance::tree::{TreeLine, mounted};
use plyfold_conformance::{DiskFixture, MaterializerFixture, ReadBack, path_of, rules};
use plyfold_core::{InputArtifact, Made, Materializer, Result, Role, Sink, TreePlace};
use plyfold_erofs::{ErofsLayer, ErofsMerged};
use plyfold_vmdk::Vmdk;
use tempfile::NamedTempFile;

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
        let merged = file.with_file_name("merged.erofs");
        let mut image = File::options().read(true).write(true).create(true).truncate(true).open(&merged)?;
        ErofsMerged::default().join(layers, &mut image)?;
        let merged = InputArtifact::local(&merged, None)?;
        let extents = std::iter::once(&merged).chain(layers).map(|extent| {
            let name = path_of(extent).file_name().unwrap_or_default().to_string_lossy();
            InputArtifact::new(name, extent.role, extent.artifact.clone(), extent.diff_id.clone())
        });
        self.materializer().join(&extents.collect::<Vec<_>>(), out)
    }

    fn tree(&self, file: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        let raw = converted(file);
        let mount = Mount::new("erofs", raw.path(), "loop,ro").expect("the kernel mounts the disk");
        mounted(mount.path()).expect("the mount can be read")
    }

    /// The files of the suite lie beside each other.
    fn disk(&self, files: &[(Role, Vec<u8>)], layers: &[InputArtifact]) -> Vec<u8> {
        let descriptor = path_of(&layers[0]).with_file_name("disk.vmdk");
        for (role, bytes) in files {
            let file = if *role == Role::HashTree { named_tree(&descriptor) } else { descriptor.clone() };
            fs::write(file, bytes).expect("a file can be written");
        }
        let raw = converted(&descriptor);
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
        name_tree(file);
        Run::new("qemu-img")
            .args(["info", "-f", "vmdk"])
            .arg(file)
            .success()
            .expect("qemu-img reads the descriptor");
        let devices = layers.iter().map(|layer| format!("--device={}", path_of(layer).display()));
        let merged = file.with_file_name("merged.erofs");
        Run::new("fsck.erofs").args(devices).arg(merged).success().expect("fsck.erofs finds nothing");
    }

    /// It is made of finished files.
    fn not_judged(&self) -> &'static [&'static str] {
        &[
            "a_bad_layer_is_an_error_not_a_smaller_image",
            "appended_patch_reads_back",
            "memory_bounded_for_any_layer_size",
            "whiteouts_and_opaque_in_overlay_form",
        ]
    }
}

impl DiskFixture for Disk {
    /// By qemu-img.
    fn read_back(&self, file: &Path, layers: &[InputArtifact]) -> Option<ReadBack> {
        let merged = file.with_file_name("merged.erofs");
        let disk = converted(file).into_file();
        let tree = self.0.map(|_| named_tree(file));
        let parts = std::iter::once(&*merged).chain(layers.iter().map(path_of)).chain(tree.as_deref());
        Some(ReadBack::new(disk, parts.map(|part| File::open(part).expect("a part opens")).collect()))
    }

    fn disk_not_judged(&self) -> &'static [&'static str] {
        &["a_size_too_small_is_told_first", "ext4_upper_takes_writes", "guest_boots"]
    }
}

/// The hash tree, by its name in a set.
fn named_tree(descriptor: &Path) -> PathBuf {
    descriptor.with_file_name("rootfs.verity")
}

/// Gives the hash tree that the suite has made that name.
fn name_tree(descriptor: &Path) {
    let tree = descriptor.with_extension("verity");
    if tree.exists() {
        fs::copy(tree, named_tree(descriptor)).expect("the tree can be copied");
    }
}

/// The disk that qemu-img finds.
fn converted(file: &Path) -> NamedTempFile {
    name_tree(file);
    let raw = NamedTempFile::new().expect("a temporary file can be made");
    let convert = Run::new("qemu-img").args(["convert", "-f", "vmdk", "-O", "raw"]).arg(file);
    convert.arg(raw.path()).success().expect("qemu-img reads the disk");
    raw
}
