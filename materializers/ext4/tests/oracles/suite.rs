//! The conformance suite, looking through the kernel and e2fsck.

use std::path::Path;
use std::time::Duration;

use plyfold_conformance::oracle::{Mount, Run, Verdict};
use plyfold_conformance::tree::{TreeLine, mounted};
use plyfold_conformance::{DiskFixture, FormatFidelity, MaterializerFixture, rules};
use plyfold_core::layer::{Metadata, Timestamp};
use plyfold_core::{InputArtifact, Materializer, Result, TreePlace};
use plyfold_ext4::{Ext4Rootfs, Ext4Upper, Journal, MIN_SIZE};

use crate::fsck;
use crate::rootfs::shown;

/// Every rule, on an empty disk.
#[expect(clippy::unnecessary_wraps, reason = "the form of an oracle test")]
pub(crate) fn the_suite_through_the_kernel() -> Verdict {
    for rule in rules::materializer() {
        rule.judge(&Upper(upper()));
    }
    for rule in rules::disk() {
        rule.judge(&Upper(upper()));
    }
    Ok(())
}

/// Every rule, on whole images.
#[expect(clippy::unnecessary_wraps, reason = "the form of an oracle test")]
pub(crate) fn the_suite_on_whole_images() -> Verdict {
    for rule in rules::materializer() {
        rule.judge(&Rootfs(Ext4Rootfs::new()));
    }
    for rule in rules::disk() {
        rule.judge(&Rootfs(Ext4Rootfs::new()));
    }
    Ok(())
}

struct Rootfs(Ext4Rootfs);

impl MaterializerFixture for Rootfs {
    fn materializer(&self) -> Box<dyn Materializer> {
        Box::new(self.0.clone())
    }

    fn variants(&self) -> Vec<Box<dyn MaterializerFixture>> {
        let variants = [
            Ext4Rootfs::new().journal(Journal::None).expect("no journal"),
            Ext4Rootfs::new().journal(Journal::Bytes(8 << 20)).expect("a journal"),
            Ext4Rootfs::new().label("label").expect("a short label"),
            Ext4Rootfs::new().uuid([1; 16]),
            Ext4Rootfs::new().with_hash_tree(TreePlace::Append),
            Ext4Rootfs::new().with_hash_tree(TreePlace::Separate),
        ];
        variants.map(|rootfs| Box::new(Self(rootfs)) as Box<dyn MaterializerFixture>).into()
    }

    fn fidelity(&self) -> FormatFidelity {
        let first = i64::from(i32::MIN);
        FormatFidelity::default()
            .with_times(Duration::from_nanos(1), first..=first + (1 << 34) - 1)
            .with_largest_file((1 << 44) - 4096)
    }

    fn tree(&self, file: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        let mount = Mount::new("ext4", file, "loop,ro").expect("the kernel mounts the disk");
        shown(mount.path()).expect("the mount can be read")
    }

    fn check(&self, file: &Path, _: &[InputArtifact]) {
        fsck(file).expect("e2fsck finds nothing");
    }

    /// Memory is judged by tests without the kernel.
    fn not_judged(&self) -> &'static [&'static str] {
        &[
            "appended_patch_reads_back",
            "memory_bounded_for_any_layer_size",
            "whiteouts_and_opaque_in_overlay_form",
        ]
    }
}

impl DiskFixture for Rootfs {
    fn write(&self, file: &Path, work: &mut dyn FnMut(&Path)) -> bool {
        let mount = Mount::new("ext4", file, "loop").expect("the kernel mounts the disk");
        work(mount.path());
        mount.unmount().expect("the kernel unmounts the disk");
        true
    }

    fn with_size(&self, bytes: u64) -> Option<Result<Box<dyn MaterializerFixture>>> {
        let sized = self.0.clone().size(bytes);
        Some(sized.map(|rootfs| Box::new(Self(rootfs)) as Box<dyn MaterializerFixture>))
    }

    /// Its guests are tests of the facade.
    fn disk_not_judged(&self) -> &'static [&'static str] {
        &["guest_boots", "merged_image_refers_to_layers_without_copying", "vmdk_reads_back_identical"]
    }
}

struct Upper(Ext4Upper);

fn upper() -> Ext4Upper {
    Ext4Upper::new(MIN_SIZE).expect("the smallest size")
}

impl MaterializerFixture for Upper {
    fn materializer(&self) -> Box<dyn Materializer> {
        Box::new(self.0.clone())
    }

    fn variants(&self) -> Vec<Box<dyn MaterializerFixture>> {
        let xattrs = vec![(b"user.name".to_vec(), b"value".to_vec())];
        let variants = [
            Ext4Upper::new(MIN_SIZE * 2).expect("twice the smallest size"),
            upper().label("label").expect("a short label"),
            upper().uuid([1; 16]),
            upper().journal(false),
            upper().time(Timestamp { seconds: 1, nanos: 0 }),
            upper().root(Metadata { mode: 0o700, ..Metadata::default() }).expect("a mode"),
            upper().root(Metadata { mode: 0o755, xattrs, ..Metadata::default() }).expect("an attribute"),
        ];
        variants.map(|upper| Box::new(Self(upper)) as Box<dyn MaterializerFixture>).into()
    }

    fn tree(&self, file: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        let mount = Mount::new("ext4", file, "loop,ro").expect("the kernel mounts the disk");
        mounted(mount.path()).expect("the mount can be read")
    }

    fn check(&self, file: &Path, _: &[InputArtifact]) {
        Run::new("e2fsck").arg("-fn").arg(file).success().expect("e2fsck finds nothing");
    }

    fn not_judged(&self) -> &'static [&'static str] {
        &[
            "a_bad_layer_is_an_error_not_a_smaller_image",
            "appended_patch_reads_back",
            "holes_stay_holes",
            "kernel_mount_equals_reference_tree",
            "memory_bounded_for_any_layer_size",
            "stacked_layers_equal_flat_image",
            "whiteouts_and_opaque_in_overlay_form",
        ]
    }
}

impl DiskFixture for Upper {
    fn write(&self, file: &Path, work: &mut dyn FnMut(&Path)) -> bool {
        let mount = Mount::new("ext4", file, "loop").expect("the kernel mounts the disk");
        work(&mount.path().join("upper"));
        mount.unmount().expect("the kernel unmounts the disk");
        true
    }

    /// Its size has nothing to do with an image.
    fn disk_not_judged(&self) -> &'static [&'static str] {
        &[
            "a_size_too_small_is_told_first",
            "guest_boots",
            "merged_image_refers_to_layers_without_copying",
            "vmdk_reads_back_identical",
        ]
    }
}
