//! Images as fsck.erofs, the kernel and overlayfs see them.

#[path = "../common/mod.rs"]
mod common;
mod compressed;
mod damaged;
mod newest;
mod patch;
mod suite;
mod tar_index;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use common::{artifacts, flat, image, merged, rich_layer};
use compressed::{
    compressed_files_are_what_they_were, compressed_images_are_as_small_as_those_of_mkfs,
    compressed_images_are_as_small_as_those_of_the_newest_mkfs, compressed_layers_are_what_they_were,
    fragments_are_what_they_were, lz4hc_is_as_dense_as_that_of_the_newest_mkfs,
};
use damaged::a_damaged_image_is_the_same_to_the_kernel;
use newest::{
    MKFS, NEWEST_DUMP, NEWEST_FSCK, NEWEST_MKFS, the_newest_dump_reads_what_was_meant,
    the_newest_fsck_unpacks_what_the_kernel_shows,
};
use patch::{
    a_full_disk_leaves_the_image_as_it_is, a_mounted_image_can_be_patched,
    a_patch_is_complete_or_absent_after_a_power_cut, a_patched_image_is_that_of_all_layers,
    a_patched_image_of_mkfs_is_that_of_all_layers,
};
use plyfold_conformance::oracle::{Aspect, Failure, Mount, Need, Run, Verdict, difference, xattrs};
use plyfold_conformance::oracle_tests;
use plyfold_conformance::samples::LayerBuilder;
use plyfold_conformance::tree::{ContentText, TreeLine, lines, mounted};
use plyfold_erofs::{ErofsMerged, Options, Reader};
use suite::the_suite_through_the_kernel;
use tar_index::a_tar_behind_its_index_is_what_tar_extracts;
use tempfile::{NamedTempFile, TempDir, TempPath};

oracle_tests! {
    fsck_is_clean needs [Need::FSCK_EROFS];
    a_tar_behind_its_index_is_what_tar_extracts needs [Need::KERNEL_EROFS, Need::Mounts, Need::GNU_TAR];
    kernel_mount_equals_reference_tree needs [Need::KERNEL_EROFS, Need::Mounts, Need::GNU_TAR];
    a_sparse_file_keeps_its_holes needs [Need::FSCK_EROFS, Need::KERNEL_EROFS, Need::Mounts];
    whiteouts_and_opaque_in_overlay_form needs [Need::KERNEL_EROFS, Need::Mounts];
    stacked_layers_equal_flat_image needs [Need::KERNEL_EROFS, Need::KERNEL_OVERLAY, Need::Mounts, Need::GNU_TAR];
    the_suite_through_the_kernel needs
        [Need::FSCK_EROFS, Need::KERNEL_EROFS, Need::KERNEL_OVERLAY, Need::Mounts];
    overlayfs_differs_where_it_is_told needs [Need::KERNEL_EROFS, Need::KERNEL_OVERLAY, Need::Mounts];
    a_flat_image_is_what_overlayfs_shows needs
        [Need::FSCK_EROFS, Need::KERNEL_EROFS, Need::KERNEL_OVERLAY, Need::Mounts, Need::GNU_TAR];
    a_flat_image_reads_at_every_edge needs [Need::FSCK_EROFS, Need::KERNEL_EROFS, Need::Mounts, Need::GNU_TAR];
    a_flat_image_is_as_small_as_that_of_mkfs needs [MKFS_EROFS, Need::KERNEL_EROFS, Need::Mounts, Need::GNU_TAR];
    a_damaged_image_is_the_same_to_the_kernel needs [Need::KERNEL_EROFS, Need::Mounts];
    compressed_files_are_what_they_were needs [Need::FSCK_EROFS, Need::KERNEL_EROFS, Need::Mounts];
    fragments_are_what_they_were needs [Need::KERNEL_EROFS, Need::Mounts];
    compressed_layers_are_what_they_were needs [Need::FSCK_EROFS, Need::KERNEL_EROFS, Need::Mounts];
    compressed_images_are_as_small_as_those_of_mkfs needs
        [MKFS_EROFS, Need::KERNEL_EROFS, Need::Mounts, Need::GNU_TAR];
    the_newest_fsck_unpacks_what_the_kernel_shows needs [NEWEST_FSCK, Need::KERNEL_EROFS, Need::Mounts];
    the_newest_dump_reads_what_was_meant needs [NEWEST_DUMP, Need::KERNEL_EROFS, Need::Mounts];
    a_flat_image_is_as_small_as_that_of_the_newest_mkfs needs
        [NEWEST_MKFS, Need::KERNEL_EROFS, Need::Mounts, Need::GNU_TAR];
    compressed_images_are_as_small_as_those_of_the_newest_mkfs needs
        [NEWEST_MKFS, Need::KERNEL_EROFS, Need::Mounts, Need::GNU_TAR];
    lz4hc_is_as_dense_as_that_of_the_newest_mkfs needs [NEWEST_MKFS, Need::GNU_TAR];
    a_full_disk_leaves_the_image_as_it_is needs [Need::KERNEL_EROFS, Need::Mounts, Need::MKFS_EXT4, Need::XFS_IO];
    a_patch_is_complete_or_absent_after_a_power_cut needs [
        Need::KERNEL_EROFS, Need::Mounts, Need::MKFS_EXT4, Need::FileSystem("xfs"), Need::MKFS_XFS, Need::XFS_IO
    ];
    a_mounted_image_can_be_patched needs [Need::KERNEL_EROFS, Need::Mounts];
    a_patched_image_is_that_of_all_layers needs [Need::FSCK_EROFS, Need::KERNEL_EROFS, Need::Mounts];
    a_patched_image_of_mkfs_is_that_of_all_layers needs [Need::FSCK_EROFS, Need::KERNEL_EROFS, Need::Mounts];
    a_hard_link_to_a_lower_layer_is_never_an_empty_file needs
        [Need::KERNEL_EROFS, Need::KERNEL_OVERLAY, Need::Mounts];
}

const MKFS_EROFS: Need = Need::Tool { name: "mkfs.erofs", package: "erofs-utils" };

fn block_sizes() -> impl Iterator<Item = Options> {
    [512, 1024, 2048, 4096]
        .into_iter()
        .map(|size| Options::default().with_block_size(size).expect("a block size"))
}

fn fsck_is_clean() -> Verdict {
    for layer in [rich_layer(), LayerBuilder::new().finish(), base(), change()] {
        Run::new("fsck.erofs").arg(&image(layer, Options::default())?).success()?;
    }
    // Versions before 1.6 refuse blocks smaller than a page: the kernel judges those.
    let layers = [image(base(), Options::default())?, image(change(), Options::default())?];
    let devices = layers.iter().map(|layer| format!("--device={}", layer.display()));
    Run::new("fsck.erofs").args(devices).arg(&merged(&layers, Options::default())?).success()?;
    Run::new("fsck.erofs").arg(&flat(&[base(), change()], Options::default())?).success()?;
    Ok(())
}

fn kernel_mount_equals_reference_tree() -> Verdict {
    let expected = extracted(&rich_layer())?;
    for options in block_sizes() {
        let image = image(rich_layer(), options)?;
        equal(expected.path(), Mount::new("erofs", &image, "loop,ro")?.path(), &[])?;
    }
    Ok(())
}

fn a_sparse_file_keeps_its_holes() -> Verdict {
    const MIB: u64 = 1 << 20;
    let layer = LayerBuilder::new()
        .sparse_file("disk", 0o644, 1 << 33, &[(5 * MIB, b"first"), ((1 << 33) - 4, b"last")])
        .finish();
    let image = image(layer, Options::default())?;
    assert!(fs::metadata(&image)?.len() < 2 * MIB);
    Run::new("fsck.erofs").arg(&image).success()?;
    let mount = Mount::new("erofs", &image, "loop,ro")?;
    let mut data = Vec::new();
    let mut file = File::open(mount.path().join("disk"))?;
    assert_eq!(file.metadata()?.len(), 1 << 33);
    file.by_ref().take(6 * MIB).read_to_end(&mut data)?;
    assert_eq!(data.iter().position(|byte| *byte != 0), Some(5 << 20));
    assert_eq!(&data[5 << 20..][..6], b"first\0");
    io::Seek::seek(&mut file, io::SeekFrom::End(-5))?;
    data.clear();
    file.read_to_end(&mut data)?;
    assert_eq!(data, b"\0last");
    Ok(())
}

/// A lower layer, one entry for each thing that the upper one changes.
fn base() -> Vec<u8> {
    LayerBuilder::new()
        .dir("./", 0o755)
        .dir("d", 0o700)
        .file("d/kept", 0o644, b"1")
        .file("d/gone", 0o644, b"1")
        .file("d/replaced", 0o644, b"1")
        .dir("again", 0o700)
        .file("again/old", 0o644, b"1")
        .dir("opaque", 0o755)
        .file("opaque/old", 0o644, b"1")
        .file("file-to-dir", 0o644, b"1")
        .dir("dir-to-file", 0o755)
        .file("dir-to-file/old", 0o644, b"1")
        .file("link-1", 0o644, b"linked")
        .hard_link("link-2", "link-1")
        .finish()
}

fn change() -> Vec<u8> {
    LayerBuilder::new()
        .dir("./", 0o711)
        .whiteout("d/gone")
        .dir("d", 0o711)
        .xattr("trusted.overlay.opaque", "y")
        .xattr("user.overlay.opaque", "y")
        .file("d/replaced", 0o600, b"22")
        .dir("again", 0o711)
        .file("again/new", 0o644, b"2")
        .whiteout("again")
        .file("opaque/new", 0o644, b"2")
        .opaque("opaque")
        .dir("opaque", 0o755)
        .dir("file-to-dir", 0o755)
        .file("file-to-dir/new", 0o644, b"2")
        .file("dir-to-file", 0o644, b"2")
        .dir("only-here", 0o755)
        .whiteout("only-here/nothing")
        .finish()
}

fn result() -> Vec<u8> {
    LayerBuilder::new()
        .dir("./", 0o711)
        .dir("d", 0o711)
        .file("d/kept", 0o644, b"1")
        .file("d/replaced", 0o600, b"22")
        .dir("again", 0o711)
        .file("again/new", 0o644, b"2")
        .dir("opaque", 0o755)
        .file("opaque/new", 0o644, b"2")
        .dir("file-to-dir", 0o755)
        .file("file-to-dir/new", 0o644, b"2")
        .file("dir-to-file", 0o644, b"2")
        .dir("only-here", 0o755)
        .file("link-1", 0o644, b"linked")
        .hard_link("link-2", "link-1")
        .finish()
}

fn whiteouts_and_opaque_in_overlay_form() -> Verdict {
    let image = image(change(), Options::default())?;
    let mount = Mount::new("erofs", &image, "loop,ro")?;
    for name in ["d/gone", "only-here/nothing"] {
        let device = fs::metadata(mount.path().join(name))?;
        assert_eq!((device.mode() & 0o170_000, device.rdev()), (0o020_000, 0), "{name}");
    }
    let marks = |name: &str| -> Result<String, Failure> {
        let xattrs = xattrs(&mount.path().join(name))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let marks = xattrs.iter().map(|(key, value)| format!("{}={}", text(key), text(value)));
        Ok(marks.filter(|mark| mark.starts_with("trusted.overlay.")).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(marks("d")?, "trusted.overlay.origin= trusted.overlay.plyfold.late=y");
    assert_eq!(marks("again")?, "trusted.overlay.opaque=y");
    assert_eq!(marks("opaque")?, "trusted.overlay.opaque=y trusted.overlay.plyfold.late=y");
    assert_eq!(marks("file-to-dir")?, "");
    assert_eq!(marks("only-here")?, "trusted.overlay.origin=");
    Ok(())
}

fn stacked_layers_equal_flat_image() -> Verdict {
    for options in block_sizes() {
        let layers = [image(base(), options.clone())?, image(change(), options.clone())?];
        let expected = extracted(&result())?;
        let (lower, upper) =
            (Mount::new("erofs", &layers[0], "loop,ro")?, Mount::new("erofs", &layers[1], "loop,ro")?);
        let stacked = Mount::overlay(&[upper.path(), lower.path()], None)?;
        equal(expected.path(), stacked.path(), &[Aspect::DirectoryLinks, Aspect::Links])?;
        let disk = flat_disk(&layers, options)?;
        equal(expected.path(), Mount::new("erofs", &disk, "loop,ro")?.path(), &[])?;
    }
    Ok(())
}

fn a_hard_link_to_a_lower_layer_is_never_an_empty_file() -> Verdict {
    let base = LayerBuilder::new().dir("d", 0o755).file("d/f", 0o640, b"content").finish();
    let change = LayerBuilder::new().hard_link("h", "d/f").finish();
    let layers = [image(base, Options::default())?, image(change, Options::default())?];
    let (lower, upper) =
        (Mount::new("erofs", &layers[0], "loop,ro")?, Mount::new("erofs", &layers[1], "loop,ro")?);
    let stacked = Mount::overlay(&[upper.path(), lower.path()], None)?;
    let opened = fs::read(stacked.path().join("h")).map_err(|e| e.kind());
    assert_eq!(opened, Err(ErrorKind::PermissionDenied));
    let disk = flat_disk(&layers, Options::default())?;
    let flat = Mount::new("erofs", &disk, "loop,ro")?;
    let (file, link) = (fs::metadata(flat.path().join("d/f"))?, fs::metadata(flat.path().join("h"))?);
    assert_eq!((file.ino(), file.nlink()), (link.ino(), 2));
    assert_eq!(fs::read(flat.path().join("h"))?, b"content");
    Ok(())
}

/// What the reader of layers tells of overlayfs is what the kernel shows.
fn overlayfs_differs_where_it_is_told() -> Verdict {
    let lower = || {
        LayerBuilder::new()
            .dir("./", 0o755)
            .dir("d", 0o700)
            .file("d/f", 0o640, b"content")
            .dir("usr", 0o755)
            .dir("usr/lib", 0o755)
            .symlink("lib", "usr/lib")
    };
    let root = || LayerBuilder::new().dir("./", 0o755);
    let uppers = [
        root().dir("d", 0o711).file("d/g", 0o644, b"").whiteout("lib"),
        root().file("d/g", 0o644, b""),
        LayerBuilder::new().file("f", 0o644, b""),
        root().opaque("").file("new", 0o644, b""),
        root().file("lib/g", 0o644, b""),
        root().dir("d", 0o700).hard_link("d/h", "d/f").file("d/f", 0o640, b"new"),
        root().opaque("d").symlink("d", "usr"),
    ];
    for (number, upper) in uppers.into_iter().enumerate() {
        let layers =
            [image(lower().finish(), Options::default())?, image(upper.finish(), Options::default())?];
        let told = ErofsMerged::default().overlay_differences(&artifacts(&layers), false);
        let told: BTreeSet<_> =
            told.expect("sound layers").examples.iter().map(|told| told.path.to_string()).collect();
        let (below, above) =
            (Mount::new("erofs", &layers[0], "loop,ro")?, Mount::new("erofs", &layers[1], "loop,ro")?);
        let disk = flat_disk(&layers, Options::default())?;
        let lines = |root: &Path| -> Result<BTreeSet<_>, Failure> {
            let lines = mounted(root)?.into_iter().map(|line| {
                let what = if line.what.starts_with("= ") { "another name".to_owned() } else { line.what };
                (line.path, what, line.mode, line.owner, line.mtime, line.xattrs)
            });
            Ok(lines.collect())
        };
        let shown = lines(Mount::overlay(&[above.path(), below.path()], None)?.path())?;
        let right = lines(Mount::new("erofs", &disk, "loop,ro")?.path())?;
        let differs: BTreeSet<_> = shown.symmetric_difference(&right).map(|line| line.0.clone()).collect();
        // A directory that is missing or too much is reported once.
        let below_told = |path: &String| {
            told.iter().any(|told| path.strip_prefix(told).is_some_and(|rest| rest.starts_with('/')))
        };
        let differs: BTreeSet<_> = differs.into_iter().filter(|path| !below_told(path)).collect();
        assert_eq!(told, differs, "upper layer {number}");
    }
    Ok(())
}

/// Through the kernel and unpacked by fsck.erofs.
fn a_flat_image_is_what_overlayfs_shows() -> Verdict {
    for layers in [vec![base(), change()], vec![rich_layer()], vec![rich_layer(), base(), change()]] {
        for options in block_sizes() {
            let whole = flat(&layers, options.clone())?;
            let mount = Mount::new("erofs", &whole, "loop,ro")?;
            let parts: Vec<_> =
                layers.iter().map(|tar| image(tar.clone(), options.clone())).collect::<Result<_, _>>()?;
            let lowers: Vec<_> =
                parts.iter().map(|part| Mount::new("erofs", part, "loop,ro")).collect::<Result<_, _>>()?;
            // A single lower without an upper is no overlay to the kernel.
            let empty = tempfile::tempdir()?;
            let lowers: Vec<_> = lowers.iter().rev().map(Mount::path).chain([empty.path()]).collect();
            let stacked = Mount::overlay(&lowers, None)?;
            equal(stacked.path(), mount.path(), &[Aspect::DirectoryLinks, Aspect::Links])?;
        }
        let whole = flat(&layers, Options::default())?;
        let mount = Mount::new("erofs", &whole, "loop,ro")?;
        let unpacked = tempfile::tempdir()?;
        let extract = format!("--extract={}", unpacked.path().display());
        Run::new("fsck.erofs").args([&extract, "--overwrite"]).arg(&whole).success()?;
        // Version 1.5 restores no extended attributes, links between files and set-uid bits.
        let ignored = [Aspect::Xattr, Aspect::HardLinks, Aspect::Links, Aspect::Mode];
        equal(mount.path(), unpacked.path(), &ignored)?;
    }
    Ok(())
}

/// Files whose last parts just fit behind their inodes, and just do not.
fn a_flat_image_reads_at_every_edge() -> Verdict {
    for options in block_sizes() {
        let mut layer = LayerBuilder::new().dir("./", 0o755);
        for size in (0..40_usize)
            .chain(400..600)
            .chain(900..1100)
            .chain(1900..2100)
            .chain(3900..4200)
            .chain(8100..8200)
        {
            let data: Vec<u8> = (0..size).map(|at| (at * 31 + at / 256 + size) as u8).collect();
            layer = layer.file(format!("{size}"), 0o644, &data);
        }
        let zeros = [&vec![7; 70_000][..], &vec![0; 2 << 20], b"end"].concat();
        let tar = layer.file("holes", 0o644, &zeros).finish();
        let whole = flat(std::slice::from_ref(&tar), options)?;
        let expected = extracted(&tar)?;
        equal(expected.path(), Mount::new("erofs", &whole, "loop,ro")?.path(), &[])?;
    }
    Ok(())
}

fn a_flat_image_is_as_small_as_that_of_mkfs() -> Verdict {
    a_flat_image_is_as_small_as_that_of("mkfs.erofs")
}

fn a_flat_image_is_as_small_as_that_of_the_newest_mkfs() -> Verdict {
    a_flat_image_is_as_small_as_that_of(MKFS)
}

/// At most 2 % larger, of files that mostly fit behind their inodes. And what mkfs makes is read.
fn a_flat_image_is_as_small_as_that_of(mkfs: &str) -> Verdict {
    let mut layer = LayerBuilder::new().dir("./", 0o755);
    for number in 0..4_000_usize {
        let size = number * 7_919 % 6_000;
        let data: Vec<u8> = (0..size).map(|at| (at * 31 + at / 256 + number) as u8).collect();
        layer = layer.file(format!("d{}/file-{number}", number % 40), 0o644, &data);
    }
    let tar = layer.hard_link("link", "d1/file-1").symlink("symlink", "d1/file-1").finish();
    let tree = extracted(&tar)?;
    let theirs = NamedTempFile::new()?.into_temp_path();
    Run::new(mkfs).arg(&theirs).arg(tree.path()).success()?;
    let ours = flat(std::slice::from_ref(&tar), Options::default())?;
    let (size, bar) = (fs::metadata(&ours)?.len(), fs::metadata(&theirs)?.len() * 102 / 100);
    assert!(size <= bar, "{size} bytes, {bar} at most");
    let mount = Mount::new("erofs", &theirs, "loop,ro")?;
    let shown = mounted(mount.path())?;
    assert_eq!(shown.len(), 4_043);
    assert!(shown == read(&theirs), "the reader does not see what the kernel shows");
    Ok(())
}

/// What the crate's own reader sees.
fn read(image: &Path) -> Vec<TreeLine> {
    let mut reader = Reader::new(File::open(image).expect("the image opens")).expect("an image");
    let tree = reader.tree().expect("a sound image");
    let read = lines(&tree, |content, size| {
        ContentText::read(size, |offset, buffer| reader.read(content, size, offset, buffer))
    });
    read.expect("every file can be read")
}

/// The one disk that a merged image and its layers make.
fn flat_disk(layers: &[TempPath], options: Options) -> Result<TempPath, Failure> {
    let mut disk = NamedTempFile::new()?;
    for part in [&merged(layers, options)?].into_iter().chain(layers) {
        io::copy(&mut File::open(part)?, &mut disk)?;
    }
    Ok(disk.into_temp_path())
}

/// What GNU tar makes of a layer.
fn extracted(layer: &[u8]) -> Result<TempDir, Failure> {
    let (tree, tar) = (tempfile::tempdir()?, NamedTempFile::new()?);
    fs::write(&tar, layer)?;
    let flags = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--delay-directory-restore", "-xpf"];
    Run::new("tar").args(flags).arg(tar.path()).arg("-C").arg(tree.path()).success()?;
    Ok(tree)
}

fn equal(expected: &Path, found: &Path, ignored: &[Aspect]) -> Verdict {
    match difference(expected, found, ignored)? {
        None => Ok(()),
        Some(difference) => Err(Failure::new(difference)),
    }
}
