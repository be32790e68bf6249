//! The conformance suite on disks that the kernel mounts.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use plyfold_conformance::oracle::{Failure, LoopDevice, Mount, Run, Verdict};
use plyfold_conformance::tree::{TreeLine, mounted};
use plyfold_conformance::{MaterializerFixture, path_of, rules};
use plyfold_core::{InputArtifact, Made, Materializer, OneFile, Role, Sink};
use plyfold_disk::{Gpt, Raw, VmdkGpt};
use plyfold_erofs::{ErofsLayer, Options};
use plyfold_vmdk::{Vmdk, VmdkStream};
use tempfile::{NamedTempFile, TempPath};

use crate::common::{entries, join, join_named, join_stream, name_tables, with_merged};

/// Every rule, on each form.
#[expect(clippy::unnecessary_wraps, reason = "the form of an oracle test")]
pub(crate) fn the_suite_through_the_kernel() -> Verdict {
    for rule in rules::materializer() {
        rule.judge(&Kernel::Raw);
        rule.judge(&Kernel::Gpt);
        rule.judge(&Kernel::OverFiles);
        rule.judge(&Kernel::Stream);
    }
    Ok(())
}

/// Asks two programs about a partition table.
pub(crate) fn table_is_sound(disk: &Path) -> Verdict {
    let said = Run::new("sgdisk").arg("--verify").arg(disk).success()?;
    assert!(said.stdout.contains("No problems found"), "{said}");
    let said = Run::new("sfdisk").arg("--verify").arg(disk).success()?;
    assert!(said.stdout.contains("No errors detected"), "{said}");
    Ok(())
}

/// What the kernel shows of a raw disk.
pub(crate) fn tree_of_raw(disk: &Path) -> Result<Vec<TreeLine>, Failure> {
    let mount = Mount::new("erofs", disk, "loop,ro")?;
    Ok(mounted(mount.path())?)
}

/// What the kernel shows of the first partition with the others as its devices.
pub(crate) fn tree_of_gpt(disk: &Path) -> Result<Vec<TreeLine>, Failure> {
    let device = LoopDevice::with_partitions(disk)?;
    let layers = entries(&File::open(disk)?, 1)?.len() - 1;
    let devices = (0..layers).map(|layer| format!(",device={}", device.partition(2 + layer).display()));
    let options = format!("ro{}", devices.collect::<String>());
    let mount = Mount::new("erofs", device.partition(1), &options)?;
    Ok(mounted(mount.path())?)
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kernel {
    Raw,
    Gpt,
    OverFiles,
    Stream,
}

impl MaterializerFixture for Kernel {
    fn materializer(&self) -> Box<dyn Materializer> {
        match self {
            Self::Raw => Box::new(Raw::default()),
            Self::Gpt => Box::new(Gpt::default()),
            Self::OverFiles => Box::new(VmdkGpt::default()),
            Self::Stream => Box::new(VmdkStream::new()),
        }
    }

    fn layers(&self) -> Option<Box<dyn Materializer>> {
        Some(Box::new(ErofsLayer::default()))
    }

    fn join(&self, layers: &[InputArtifact], file: &Path, out: &mut dyn Sink) -> plyfold_core::Result<Made> {
        let (format, options) = (self.materializer(), Options::default());
        match self {
            Self::Raw | Self::Gpt => join(&*format, layers, file, &options, out),
            Self::OverFiles => join_named(&*format, layers, file, &options, out),
            Self::Stream => join_stream(&VmdkStream::new(), layers, file, &options, out),
        }
    }

    fn tree(&self, file: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        let tree = match self {
            Self::Raw => tree_of_raw(file),
            Self::Gpt => tree_of_gpt(file),
            Self::OverFiles => converted(file).and_then(|raw| tree_of_gpt(&raw)),
            Self::Stream => converted(file).and_then(|raw| tree_of_raw(&raw)),
        };
        tree.expect("the kernel mounts the disk")
    }

    /// On a disk with partitions these can be stacked, too.
    fn overlaid(&self, layers: &[InputArtifact]) -> Vec<TreeLine> {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let path = folder.path().join("disk");
        let mut disk = File::create_new(&path).expect("a file can be made");
        join(&Gpt::default(), layers, &path, &Options::default(), &mut disk)
            .expect("the layers can be joined");
        let device = LoopDevice::with_partitions(&path).expect("the disk has partitions");
        let mounts: Vec<_> = (0..layers.len())
            .map(|layer| Mount::new("erofs", device.partition(2 + layer), "ro"))
            .map(|mount| mount.expect("the kernel mounts the layer"))
            .collect();
        let empty = tempfile::tempdir().expect("a temporary directory can be made");
        let lowers: Vec<_> = mounts.iter().rev().map(Mount::path).chain([empty.path()]).collect();
        let overlay = Mount::overlay(&lowers, None).expect("the kernel stacks the layers");
        mounted(overlay.path()).expect("the mount can be read")
    }

    fn check(&self, file: &Path, layers: &[InputArtifact]) {
        match self {
            Self::Raw => is_the_disk_of_a_vmdk(file, layers),
            Self::Gpt => table_is_sound(file).expect("nothing is wrong with the table"),
            Self::OverFiles => {
                let raw = converted(file).expect("qemu-img reads the disk");
                table_is_sound(&raw).expect("nothing is wrong with the table");
                is_the_disk_of(&Gpt::default(), file, layers);
            }
            Self::Stream => {
                let said = Run::new("qemu-img").args(["check", "-f", "vmdk"]).arg(file).success();
                let said = said.expect("qemu-img finds nothing");
                assert!(said.stdout.contains("No errors were found"), "{said}");
                is_the_disk_of(&Raw::default(), file, layers);
            }
        }
    }

    /// It is made of finished files. Other options, and memory, are judged through the reader of EROFS, and by another test here.
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

/// What qemu-img reads of a VMDK.
pub(crate) fn converted(file: &Path) -> Result<TempPath, Failure> {
    if file.with_extension("gpt").exists() {
        name_tables(file);
    }
    let raw = NamedTempFile::new()?.into_temp_path();
    let convert = Run::new("qemu-img").args(["convert", "-f", "vmdk", "-O", "raw"]).arg(file).arg(&raw);
    convert.success()?;
    Ok(raw)
}

/// A VMDK has the bytes of a raw disk of the same files.
fn is_the_disk_of(format: &dyn Materializer, file: &Path, layers: &[InputArtifact]) {
    let mut raw = NamedTempFile::new().expect("a file can be made");
    join(format, layers, file, &Options::default(), raw.as_file_mut()).expect("the layers can be joined");
    are_equal(raw.path(), file);
}

fn are_equal(raw: &Path, vmdk: &Path) {
    let compare = Run::new("qemu-img").args(["compare", "-f", "raw", "-F", "vmdk"]);
    let said = compare.arg(raw).arg(vmdk).success().expect("both disks are equal");
    assert!(said.stdout.contains("Images are identical"), "{said}");
}

/// The raw disk has the bytes of the VMDK that joins the same files.
fn is_the_disk_of_a_vmdk(file: &Path, layers: &[InputArtifact]) {
    let files = with_merged(layers, file, &Options::default()).expect("the layers can be merged");
    let extents: Vec<_> = files
        .iter()
        .map(|file| {
            let name = path_of(file).file_name().unwrap_or_default().to_string_lossy();
            InputArtifact::new(name, file.role, file.artifact.clone(), file.diff_id.clone())
        })
        .collect();
    let path = file.with_extension("vmdk");
    let mut descriptor = File::create(&path).expect("a file can be made");
    Vmdk::new().join(&extents, &mut OneFile(Role::Descriptor, &mut descriptor)).expect("they are extents");
    descriptor.flush().expect("the descriptor is written");
    are_equal(file, &path);
}
