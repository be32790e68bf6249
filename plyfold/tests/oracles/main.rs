//! What the program makes, as kernels and the tools of others see it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use plyfold::materializers::vmdk::VmdkStream;
use plyfold::{Disks, Role, Rootfs};
use plyfold_conformance::oracle::{Aspect, Failure, Mount, Need, Run, Verdict, difference};
use plyfold_conformance::oracle_tests;
use plyfold_conformance::samples::MTIME;
use rustix::fs::{XattrFlags, setxattr};
use tempfile::TempDir;

mod boots;
mod converted;
#[path = "../../../backends/registry/tests/oracles/cosign.rs"]
mod cosign;
mod edited;
mod forms;
mod full;
mod guests;
mod guide;
mod in_use;
mod inspected;
mod modes;
mod native;
mod offline;
mod packages;
mod power;
mod read_only;
#[path = "../../../backends/registry/tests/oracles/registry.rs"]
#[expect(dead_code, reason = "shared with the tests of that backend, which use all of it")]
mod registry;
mod runtime;
mod signatures;
mod snapshots;
mod verified_mounts;
mod verity;

use boots::{
    a_guest_boots_again_from_its_set, a_guest_starts_a_command_in_its_folder, the_end_of_a_guest_is_reported,
};
use converted::{
    crane_finds_no_fault_in_converted_images, skopeo_reads_converted_images,
    umoci_unpacks_the_same_of_converted_images,
};
use edited::umoci_makes_the_same_images;
use forms::{every_form_of_a_real_image_shows_one_tree, every_form_of_every_sample_shows_one_tree};
use full::{a_full_disk_keeps_the_older_set, a_full_disk_leaves_nothing, a_full_store_leaves_no_name};
use guests::{
    a_guest_boots_by_the_command, a_guest_boots_from_a_disk_that_it_cannot_write,
    a_guest_boots_from_a_flat_image, a_guest_boots_from_a_raw_disk, a_guest_boots_from_a_vmdk,
    a_guest_boots_from_a_vmdk_in_one_file, a_guest_boots_from_a_vmdk_without_its_parent,
    a_guest_boots_from_an_ext4_disk, a_guest_boots_from_partitions, a_guest_boots_from_partitions_of_a_vmdk,
    a_guest_boots_from_persistent_memory, a_guest_joins_partitions_as_its_kernel_would,
    a_guest_runs_a_command_of_the_image, a_guest_that_the_command_boots_verifies_what_it_reads,
    a_guest_verifies_what_it_reads,
};
use guide::{
    a_script_that_fails_shows_nothing, every_form_mounts_from_odd_paths, one_layer_is_in_many_mounts,
    qemu_finds_the_disks_at_odd_paths, two_hundred_and_forty_layers_mount_whole,
};
use in_use::{a_disk_of_a_loop_device_does_not_grow, a_disk_of_a_loop_device_is_not_saved_or_started};
use inspected::{
    file_systems_are_those_of_dumpe2fs, images_are_those_of_dump_erofs, partitions_are_those_of_sfdisk,
};
use modes::another_user_reads_every_file_of_a_set;
use native::{layers_of_mkfs_are_used_as_they_are, skopeo_copies_native_layers};
use offline::archives_come_and_go_without_a_network;
use packages::git_makes_the_same_tree_of_a_package;
use power::{
    a_set_is_old_or_new_after_a_power_cut, a_set_is_whole_after_a_power_cut_on_ext4,
    a_set_is_whole_after_a_power_cut_on_xfs, a_set_that_nobody_waits_for_is_lost,
    single_files_are_whole_after_a_power_cut,
};
use read_only::{a_store_of_someone_else_is_used, a_store_on_a_read_only_mount_is_used};
use runtime::runtime_specs_are_those_of_umoci;
use signatures::cosign_verifies_what_was_saved_and_loaded;
use snapshots::{
    a_loaded_snapshot_is_what_was_saved, skopeo_carries_a_snapshot,
    snapshots_are_the_same_on_every_file_system,
};
use verified_mounts::a_guest_mounts_verified_disks_by_the_script;
use verity::{
    disks_of_holes_have_the_trees_of_veritysetup, every_form_has_the_trees_of_veritysetup,
    layers_have_the_trees_of_veritysetup, vmdks_have_the_trees_of_veritysetup,
};

oracle_tests! {
    runtime_specs_are_those_of_umoci needs [Need::UMOCI];
    a_script_that_fails_shows_nothing needs [Need::Mounts, Need::KERNEL_EROFS, Need::KERNEL_OVERLAY];
    every_form_mounts_from_odd_paths needs [Need::Mounts, Need::KERNEL_EROFS, Need::KERNEL_OVERLAY];
    one_layer_is_in_many_mounts needs [Need::Mounts, Need::KERNEL_EROFS, Need::KERNEL_OVERLAY, BASH];
    qemu_finds_the_disks_at_odd_paths needs [Need::QEMU_IMG];
    two_hundred_and_forty_layers_mount_whole needs [Need::Mounts, Need::KERNEL_EROFS, Need::KERNEL_OVERLAY];
    a_set_is_whole_after_a_power_cut_on_ext4 needs [Need::Mounts, Need::MKFS_EXT4, Need::XFS_IO];
    a_set_is_whole_after_a_power_cut_on_xfs needs [
        Need::Mounts, Need::FileSystem("xfs"), Need::MKFS_XFS, Need::XFS_IO
    ];
    a_set_is_old_or_new_after_a_power_cut needs [
        Need::Mounts, Need::MKFS_EXT4, Need::FileSystem("xfs"), Need::MKFS_XFS, Need::XFS_IO
    ];
    a_set_that_nobody_waits_for_is_lost needs [
        Need::Mounts, Need::MKFS_EXT4, Need::FileSystem("xfs"), Need::MKFS_XFS, Need::XFS_IO
    ];
    single_files_are_whole_after_a_power_cut needs [
        Need::GNU_TAR,
        Need::Mounts, Need::MKFS_EXT4, Need::FileSystem("xfs"), Need::MKFS_XFS, Need::XFS_IO
    ];
    a_guest_boots_by_the_command needs [Need::Guest, Need::E2FSCK, Need::DEBUGFS];
    a_guest_boots_from_a_vmdk needs [Need::Guest, Need::E2FSCK, Need::DEBUGFS];
    a_guest_boots_from_a_vmdk_without_its_parent needs [Need::Guest, Need::E2FSCK, Need::DEBUGFS];
    a_guest_boots_from_a_raw_disk needs [Need::Guest, Need::E2FSCK, Need::DEBUGFS];
    a_guest_boots_from_a_vmdk_in_one_file needs [Need::Guest];
    a_guest_mounts_verified_disks_by_the_script needs [
        Need::Guest, Need::VERITYSETUP, Need::LDD, MKE2FS, LOSETUP
    ];
    a_guest_boots_from_partitions needs [Need::Guest, Need::E2FSCK, Need::DEBUGFS];
    a_guest_boots_from_partitions_of_a_vmdk needs [Need::Guest, Need::E2FSCK, Need::DEBUGFS];
    a_guest_boots_from_a_flat_image needs [Need::Guest, Need::E2FSCK, Need::DEBUGFS];
    a_guest_boots_from_an_ext4_disk needs [Need::Guest, Need::E2FSCK, Need::DEBUGFS];
    a_guest_boots_from_a_disk_that_it_cannot_write needs [Need::Guest];
    a_guest_boots_from_persistent_memory needs [Need::Guest];
    a_guest_joins_partitions_as_its_kernel_would needs [Need::Guest, DMSETUP, Need::LDD];
    a_guest_runs_a_command_of_the_image needs [Need::Guest];
    a_guest_that_the_command_boots_verifies_what_it_reads needs [Need::Guest, Need::VERITYSETUP];
    a_guest_verifies_what_it_reads needs [
        Need::Guest, Need::VERITYSETUP, Need::LDD, Need::E2FSCK, Need::DEBUGFS
    ];
    a_guest_boots_again_from_its_set needs [Need::Guest, Need::VERITYSETUP];
    a_guest_starts_a_command_in_its_folder needs [Need::Guest, Need::VERITYSETUP];
    the_end_of_a_guest_is_reported needs [Need::Guest];
    another_user_reads_every_file_of_a_set needs [Need::Mounts, SETPRIV];
    a_disk_of_a_loop_device_is_not_saved_or_started needs [Need::Mounts, Need::FileSystem("ext4")];
    a_disk_of_a_loop_device_does_not_grow needs [Need::Mounts, Need::FileSystem("ext4")];
    crane_finds_no_fault_in_converted_images needs [DOCKER_REGISTRY, Need::CRANE];
    skopeo_reads_converted_images needs [Need::SKOPEO, DOCKER_REGISTRY];
    umoci_unpacks_the_same_of_converted_images needs [Need::UMOCI, DIFF];
    umoci_makes_the_same_images needs [Need::UMOCI, Need::SKOPEO, DIFF];
    git_makes_the_same_tree_of_a_package needs [GIT];
    file_systems_are_those_of_dumpe2fs needs [
        Need::Mounts, Need::FileSystem("ext4"), Need::MKFS_EXT4, DUMPE2FS, SYNC
    ];
    images_are_those_of_dump_erofs needs [DUMP_EROFS];
    partitions_are_those_of_sfdisk needs [Need::QEMU_IMG, Need::SFDISK, Need::SGDISK];
    layers_of_mkfs_are_used_as_they_are needs [
        Need::Mounts, Need::KERNEL_EROFS, Need::KERNEL_OVERLAY, Need::FSCK_EROFS, MKFS_EROFS
    ];
    skopeo_copies_native_layers needs [Need::SKOPEO];
    archives_come_and_go_without_a_network needs [Need::Tracing];
    cosign_verifies_what_was_saved_and_loaded needs [Need::COSIGN, Need::ORAS, DOCKER_REGISTRY];
    a_loaded_snapshot_is_what_was_saved needs [
        Need::Mounts, Need::KERNEL_EROFS, Need::KERNEL_OVERLAY, Need::E2FSCK, Need::QEMU_IMG
    ];
    snapshots_are_the_same_on_every_file_system needs [
        Need::Mounts, Need::KERNEL_EROFS, Need::KERNEL_OVERLAY, Need::MKFS_EXT4, Need::FileSystem("xfs"),
        Need::MKFS_XFS, Need::XFS_IO
    ];
    skopeo_carries_a_snapshot needs [Need::SKOPEO, DOCKER_REGISTRY];
    layers_mount_as_the_guide_says needs [Need::Mounts, Need::KERNEL_EROFS, Need::KERNEL_OVERLAY];
    a_merged_image_mounts_as_the_guide_says needs [Need::Mounts, Need::KERNEL_EROFS, Need::KERNEL_OVERLAY];
    vmdks_have_the_bytes_of_raw_disks needs [Need::QEMU_IMG, Need::SGDISK];
    images_of_the_whole_mount_as_the_guide_says needs [Need::Mounts, Need::KERNEL_EROFS, Need::KERNEL_OVERLAY];
    the_vmdk_is_one_flat_disk needs [Need::Mounts, Need::KERNEL_EROFS, Need::QEMU_IMG];
    images_are_clean needs [Need::FSCK_EROFS, Need::E2FSCK];
    the_store_is_a_layout_for_others needs [Need::SKOPEO];
    a_store_on_a_read_only_mount_is_used needs [Need::Mounts];
    a_store_of_someone_else_is_used needs [Need::Mounts, SETPRIV];
    a_full_disk_leaves_nothing needs [Need::GNU_TAR, Need::Mounts];
    a_full_disk_keeps_the_older_set needs [Need::Mounts];
    a_full_store_leaves_no_name needs [Need::Mounts];
    bash_completes_the_names_of_images needs [BASH];
    every_form_has_the_trees_of_veritysetup needs [
        Need::E2FSCK, Need::Mounts, Need::KERNEL_EROFS, Need::KERNEL_OVERLAY, Need::VERITYSETUP
    ];
    every_form_of_a_real_image_shows_one_tree needs [
        Need::Mounts, Need::KERNEL_EROFS, Need::KERNEL_OVERLAY, Need::FileSystem("ext4"), Need::QEMU_IMG, Need::UMOCI,
        Need::GNU_TAR, Need::DebianRoot
    ];
    every_form_of_every_sample_shows_one_tree needs [
        Need::Mounts, Need::KERNEL_EROFS, Need::KERNEL_OVERLAY, Need::FileSystem("ext4"), Need::QEMU_IMG, Need::UMOCI,
        Need::GNU_TAR
    ];
    vmdks_have_the_trees_of_veritysetup needs [Need::QEMU_IMG, Need::SGDISK, Need::VERITYSETUP];
    disks_of_holes_have_the_trees_of_veritysetup needs [Need::VERITYSETUP];
    layers_have_the_trees_of_veritysetup needs [Need::Mounts, Need::KERNEL_EROFS, Need::VERITYSETUP];
}

/// A registry to push to.
const DOCKER_REGISTRY: Need = Need::Tool { name: "docker-registry", package: "docker-registry" };

/// Makes an ext4 disk of a folder.
const MKE2FS: Need = Need::Tool { name: "mke2fs", package: "e2fsprogs" };

/// Attaches loop devices; that of busybox does not say which.
const LOSETUP: Need = Need::Tool { name: "losetup", package: "mount" };

/// The maker of devices of device-mapper.
const DMSETUP: Need = Need::Tool { name: "dmsetup", package: "dmsetup" };

/// Prompts and pasting apart, many people's shell.
const BASH: Need = Need::Tool { name: "bash", package: "bash" };

/// Who makes EROFS images, here of folders.
const MKFS_EROFS: Need = Need::Tool { name: "mkfs.erofs", package: "erofs-utils" };

/// What say of file systems and images what they are.
const DUMPE2FS: Need = Need::Tool { name: "dumpe2fs", package: "e2fsprogs" };
const DUMP_EROFS: Need = Need::Tool { name: "dump.erofs", package: "erofs-utils" };

/// Writes what a file system holds in memory to its disk.
const SYNC: Need = Need::Tool { name: "sync", package: "coreutils" };

/// Compares two directories.
const DIFF: Need = Need::Tool { name: "diff", package: "diffutils" };

/// What a package's hash is the hash of.
const GIT: Need = Need::Tool { name: "git", package: "git" };

/// Runs a program as another user; root alone may, as root alone may mount.
const SETPRIV: Need = Need::Tool { name: "setpriv", package: "util-linux" };

/// For bash a colon ends a word: what it completes is the part behind the last one.
fn bash_completes_the_names_of_images() -> Verdict {
    let dir = tempfile::tempdir()?;
    let program = env!("CARGO_BIN_EXE_plyfold");
    let run = |verb: &[&str]| Run::new(program).args(verb).arg("--store").arg(dir.path());
    let sample = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/../examples/sample:latest");
    run(&["pull", "--platform", "linux/amd64", sample]).success()?;
    run(&["tag", "localhost/sample", "localhost:5000/app:1"]).success()?;
    bash_completes(program, dir.path())?;
    // A program of another name with the same verbs.
    let own = dir.path().join("my-own.program");
    std::os::unix::fs::symlink(program, &own)?;
    bash_completes(&own.display().to_string(), dir.path())
}

fn bash_completes(program: &str, store: &Path) -> Verdict {
    let store = store.display();
    for (words, completed) in [
        (&["inspect", "loc"][..], "localhost/sample:latest localhost:5000/app:1"),
        (&["inspect", "localhost", ":", "5000/a"], "5000/app:1"),
        (&["rmi", "localhost/sample", ":", ""], "latest"),
        (&["verif"], "verify"),
        (
            &["materialize", "--as", ""],
            "erofs erofs-layers erofs-merged erofs-tar ext4 gpt raw vmdk vmdk-gpt vmdk-stream",
        ),
        (&["materialize", "--as", "=", "v"], "vmdk vmdk-gpt vmdk-stream"),
        (&["pull", "--policy", "n"], "never"),
        (&["layer", "--as", ""], "erofs erofs-layers erofs-tar ext4"),
        (&["disk", "--si"], "--size"),
        (&["snapshot", "l"], "load list ls"),
        (&["snapshot", "save", "--at"], "--attach"),
    ] {
        let line = format!("{program} {}", words.join(" ")).replace(" : ", ":").replace(" = ", "=");
        let script = format!(
            "source <({program} completions bash); export PLYFOLD_STORE={store}; COMP_LINE='{line}'; \
             COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=({program} \"$@\"); COMP_CWORD=$#; \
             F=$(complete -p \"${{0##*/}}\"); F=${{F##*-F }}; F=${{F%% *}}; \
             $F {program} \"${{@: -1}}\" \"${{@: -2:1}}\"; echo \"${{COMPREPLY[*]}}\""
        );
        let said = Run::new("bash").args(["--norc", "-c", &script, program]).args(words).success()?;
        assert_eq!(said.stdout.trim_end(), completed, "{line}");
    }
    Ok(())
}

fn layers_mount_as_the_guide_says() -> Verdict {
    let work = Work::new();
    // The top layer says nothing of the root directory; an overlay of images alone shows that.
    work.mounted(&work.disks(&Rootfs::erofs_layers()), &[Aspect::Mtime])?;
    work.mounted(&work.disks(&Rootfs::erofs_layers().upper(64 << 20)), &[])
}

fn a_merged_image_mounts_as_the_guide_says() -> Verdict {
    let work = Work::new();
    work.mounted(&work.disks(&Rootfs::erofs_merged()), &[])?;
    work.mounted(&work.disks(&Rootfs::erofs_merged().upper(64 << 20)), &[])
}

/// Without the files that they were made of.
fn images_of_the_whole_mount_as_the_guide_says() -> Verdict {
    let work = Work::new();
    for rootfs in [Rootfs::erofs_flat, Rootfs::raw, Rootfs::gpt] {
        let disks = work.disks(&rootfs());
        assert_eq!((disks.files.len(), disks.layers.len(), &disks.merged), (1, 0, &None));
        work.mounted(&disks, &[])?;
        work.mounted(&work.disks(&rootfs().upper(64 << 20)), &[])?;
    }
    Ok(())
}

/// In files that are not copied, and compressed.
fn vmdks_have_the_bytes_of_raw_disks() -> Verdict {
    let work = Work::new();
    let disk = |rootfs: &Rootfs, name: &str, role| {
        let disks = work.disks_at(rootfs, &work.dir.path().join(name));
        let found = disks.files.iter().rev().find(|file| file.role == role);
        found.map(|file| file.path.clone()).ok_or_else(|| Failure::new(format!("{name}: {disks:?}")))
    };
    let raw = disk(&Rootfs::raw(), "raw", Role::Image)?;
    let gpt = disk(&Rootfs::gpt(), "gpt", Role::Image)?;
    let stream = VmdkStream::new();
    for (raw, vmdk) in [
        (&raw, disk(&Rootfs::vmdk_stream(stream), "stream", Role::Image)?),
        (&gpt, disk(&Rootfs::vmdk_stream(stream.of("gpt")?), "stream-gpt", Role::Image)?),
        (&gpt, disk(&Rootfs::vmdk_gpt(), "vmdk-gpt", Role::Descriptor)?),
    ] {
        let compare = Run::new("qemu-img").args(["compare", "-f", "raw", "-F", "vmdk"]);
        let said = compare.arg(raw).arg(&vmdk).success()?;
        assert!(said.stdout.contains("Images are identical"), "{said}");
    }
    let said = Run::new("sgdisk").arg("--verify").arg(&gpt).success()?;
    assert!(said.stdout.contains("No problems found"), "{said}");
    Ok(())
}

fn the_vmdk_is_one_flat_disk() -> Verdict {
    let work = Work::new();
    let disks = work.disks(&Rootfs::vmdk());
    let flat = work.dir.path().join("flat");
    let convert = Run::new("qemu-img").args(["convert", "-f", "vmdk", "-O", "raw"]);
    convert.arg(disks.vmdk.unwrap()).arg(&flat).success()?;
    let mount = Mount::new("erofs", &flat, "loop,ro")?;
    assert_eq!(difference(&work.reference(), mount.path(), &[])?.map(|found| format!("{found:?}")), None);
    mount.unmount()
}

fn images_are_clean() -> Verdict {
    let work = Work::new();
    let disks = work.disks(&Rootfs::erofs_layers().upper(64 << 20));
    for layer in &disks.layers {
        Run::new("fsck.erofs").arg(layer).success()?;
    }
    Run::new("e2fsck").arg("-fn").arg(disks.upper.unwrap()).success()?;
    Run::new("fsck.erofs").arg(work.disks(&Rootfs::erofs_flat()).flat.unwrap()).success()?;
    Ok(())
}

fn the_store_is_a_layout_for_others() -> Verdict {
    let work = Work::new();
    work.disks(&Rootfs::erofs_layers());
    let image = format!("oci:{}:localhost/sample:latest", work.dir.path().join("store").display());
    let seen = Run::new("skopeo").args(["inspect", "--override-arch", "amd64"]).arg(image).success()?;
    assert!(seen.stdout.contains("sha256:617e415ce3fe"), "{}", seen.stdout);
    Ok(())
}

/// A store, and a directory for disks.
struct Work {
    dir: TempDir,
}

impl Work {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// The sample image as disks.
    fn disks(&self, rootfs: &Rootfs) -> Disks {
        let out = TempDir::with_prefix_in("disks-", self.dir.path()).unwrap().keep();
        self.disks_at(rootfs, &out)
    }

    /// The program with a store, arguments, and a last one.
    fn plyfold(&self, store: impl AsRef<Path>, arguments: &[&str], last: &Path) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plyfold"));
        command.env_clear().arg("--store").arg(self.dir.path().join(store)).args(arguments).arg(last);
        command.output().unwrap()
    }

    /// What the sample image is, as files here.
    fn reference(&self) -> PathBuf {
        let root = self.dir.path().join("reference");
        if root.exists() {
            return root;
        }
        for directory in ["bin", "etc"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        let file = |name: &str, mode, content| {
            fs::write(root.join(name), content).unwrap();
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        file("bin/hello", 0o755, "#!/bin/sh\necho hello from plyfold\n");
        fs::hard_link(root.join("bin/hello"), root.join("bin/hi")).unwrap();
        file("etc/motd", 0o644, "welcome to a block device\n");
        setxattr(root.join("etc/motd"), "user.author", b"plyfold", XattrFlags::empty()).unwrap();
        for name in ["bin/hello", "etc/motd", "bin", "etc", ""] {
            let path = root.join(name);
            if path.is_dir() {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(MTIME);
            File::open(path).unwrap().set_modified(time).unwrap();
        }
        root
    }

    /// Runs the guide's script, and compares what it has mounted with the reference.
    fn mounted(&self, disks: &Disks, ignored: &[Aspect]) -> Verdict {
        self.shows(disks, &self.reference(), ignored)
    }

    /// The same with another reference.
    fn shows(&self, disks: &Disks, reference: &Path, ignored: &[Aspect]) -> Verdict {
        let place = TempDir::new_in(self.dir.path()).unwrap();
        let root = place.path().join("rootfs");
        let script = disks.mount_script()?.replace("/mnt/rootfs", root.to_str().unwrap());
        let _guard =
            Unmount { place: place.path().to_owned(), files: disks.paths().map(Path::to_owned).collect() };
        Run::new("sh").args(["-euc", &script]).success()?;
        let overlay: &[Aspect] = &[Aspect::DirectoryLinks];
        let ignored: Vec<Aspect> = overlay.iter().chain(ignored).copied().collect();
        let found = difference(reference, &root, &ignored)?;
        assert_eq!(found.map(|found| format!("{found:?}")), None, "{script}");
        if disks.upper.is_some() {
            fs::write(root.join("etc/new"), "written to the upper\n")?;
        }
        Ok(())
    }
}

/// Undoes what a script has mounted and attached.
struct Unmount {
    place: PathBuf,
    files: Vec<PathBuf>,
}

impl Unmount {
    fn unmount(&self) {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        // Spaces are written as numbers there.
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let places: Vec<String> = places.map(|place| place.replace("\\040", " ")).collect();
        for mounted in places.iter().rev().filter(|path| Path::new(path).starts_with(&self.place)) {
            let _ = Run::new("umount").arg(mounted).success();
        }
    }
}

impl Drop for Unmount {
    fn drop(&mut self) {
        self.unmount();
        for file in &self.files {
            let attached = Run::new("losetup").args(["-n", "-O", "NAME", "-j"]).arg(file).success();
            for device in attached.map(|seen| seen.stdout).unwrap_or_default().split_whitespace() {
                let _ = Run::new("losetup").args(["-d", device]).success();
            }
        }
    }
}

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples/sample")
}

/// Writes a tar with the blobs of the sample.
fn tar_of_sample(tar: &Path) -> Verdict {
    Run::new("tar").arg("-cf").arg(tar).arg("-C").arg(sample()).arg("blobs").success()?;
    Ok(())
}

fn sample_uri() -> PathBuf {
    format!("oci:{}:latest", sample().display()).into()
}
