//! Whole images as e2fsck, debugfs and the kernel see them.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use plyfold_conformance::oracle::{Failure, Mount, Run, Verdict};
use plyfold_conformance::samples::{self, LayerBuilder};
use plyfold_conformance::tree::{TreeLine, mounted};
use plyfold_core::layer::{LayerOptions, LayerTar};
use plyfold_ext4::{Ext4Rootfs, Journal};
use tempfile::{NamedTempFile, TempDir};

use crate::common::{disk, smallest};
use crate::{MIB, fsck, fsck_used};

/// What a mounted disk shows, without the directory that is e2fsck's.
pub(crate) fn shown(root: &Path) -> Result<Vec<TreeLine>, Failure> {
    let mut lines = mounted(root)?;
    let before = lines.len();
    lines.retain(|line| line.path != "/lost+found");
    assert_eq!(lines.len(), before - 1, "there is no lost+found");
    lines[0].links -= 1;
    Ok(lines)
}

/// What GNU tar makes of a layer.
fn extracted(layer: &[u8]) -> Result<TempDir, Failure> {
    let (tree, tar) = (tempfile::tempdir()?, NamedTempFile::new()?);
    fs::write(&tar, layer)?;
    let flags = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--delay-directory-restore", "-xpf"];
    Run::new("tar").args(flags).arg(tar.path()).arg("-C").arg(tree.path()).success()?;
    Ok(tree)
}

fn equal(found: &[TreeLine], expected: &[TreeLine]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.to_string(), expected.to_string());
    }
    assert_eq!(found.len(), expected.len(), "number of names");
}

/// The smallest disk and a grown one are clean, and both show what GNU tar unpacks.
fn holds(layer: Vec<u8>, rootfs: &Ext4Rootfs) -> Verdict {
    let unpacked = extracted(&layer)?;
    let expected = mounted(unpacked.path())?;
    let layers = [layer];
    for disk in [smallest(&layers, rootfs)?, disk(&layers, rootfs)?] {
        fsck(&disk)?;
        let mount = Mount::new("ext4", &*disk, "loop,ro")?;
        equal(&shown(mount.path())?, &expected);
    }
    Ok(())
}

fn root() -> LayerBuilder {
    LayerBuilder::new().mtime("1700000000.000000001").dir("./", 0o751)
}

/// Bytes that repeat at no block.
fn pattern(size: usize, seed: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 7 + at / 251 + seed) as u8 | 1).collect()
}

pub(crate) fn every_kind_of_file() -> Vec<u8> {
    let mut layer = root()
        .owner(0, 7)
        .dir("etc", 0o755)
        .mtime("1700000000.123456789")
        .file("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\n")
        .hard_link("etc/passwd-", "etc/passwd")
        .symlink("etc/mtab", "../proc/mounts")
        .symlink("etc/59", &"s".repeat(59))
        .symlink("etc/60", &"s".repeat(60))
        .pax("linkpath", "x".repeat(4094))
        .symlink("etc/long", "")
        .dir("dev", 0o755)
        .char_device("dev/null", 0o666, 1, 3)
        .block_device("dev/loop300", 0o660, 7, 300)
        .block_device("dev/large", 0o660, 4095, 1_048_575)
        .fifo("dev/fifo", 0o600)
        .dir("tmp", 0o1777)
        .file("tmp/su", 0o4755, b"su")
        .owner(u64::from(u32::MAX) - 1, 3_000_000)
        .mtime("-1.5")
        .file("tmp/before-1970", 0, &[1])
        .mtime("8589934592.999999999")
        .file("tmp/far-future", 0o400, &[2; 4096])
        .file("tmp/one-more", 0o777, &[3; 4097])
        .file("tmp/large", 0o777, &pattern(3 << 20, 1))
        .file([b'n'; 255], 0o644, b"a long name")
        .file(b"\xff\xfe\x80", 0o644, b"no UTF-8");
    layer = layer.dir("many", 0o755);
    for number in 0..400 {
        layer = layer.dir(format!("many/subdirectory-{number:03}"), 0o700);
    }
    layer.finish()
}

pub(crate) fn every_kind_of_file_is_held() -> Verdict {
    let layer = every_kind_of_file();
    holds(layer.clone(), &Ext4Rootfs::new())?;
    holds(
        layer.clone(),
        &Ext4Rootfs::new().journal(Journal::None)?.size(300 * MIB)?.label("sixteen bytes ok")?,
    )?;
    holds(layer, &Ext4Rootfs::new().journal(Journal::Bytes(200 * MIB))?.size(9 << 30)?.uuid([7; 16]))
}

pub(crate) fn the_files_of_an_image_stay_where_e2fsck_looks() -> Verdict {
    let of = |layer: LayerBuilder| smallest(&[layer.finish()], &Ext4Rootfs::new());
    let own = of(root().dir("lost+found", 0o755).file("lost+found/#12", 0o644, b"found"))?;
    fsck(&own)?;
    let mount = Mount::new("ext4", &*own, "loop,ro")?;
    assert_eq!(fs::read(mount.path().join("lost+found/#12"))?, b"found");
    assert_eq!(fs::metadata(mount.path())?.nlink(), 3);
    let file = of(root().file("lost+found", 0o644, b"a file"))?;
    // e2fsck looks for a directory only when it needs one.
    fsck(&file)?;
    let mount = Mount::new("ext4", &*file, "loop,ro")?;
    assert_eq!(fs::read(mount.path().join("lost+found"))?, b"a file");
    Ok(())
}

/// Around each form of a directory: one block, a tree of one level, of two.
pub(crate) fn directories_of_any_size() -> Vec<u8> {
    let mut layer = root();
    for count in [0, 1, 2, 100, 253, 254, 255, 300, 2_000] {
        layer = layer.dir(format!("d{count}"), 0o755);
        for number in 0..count {
            layer = layer.file(format!("d{count}/{number:08x}"), 0o644, b"");
        }
    }
    // Each block has 15 names of this length, the root of a tree 507 blocks.
    layer = layer.dir("long", 0o755);
    for number in 0..9_000 {
        layer = layer.symlink(format!("long/{number:0255}"), "x");
    }
    layer.finish()
}

pub(crate) fn directories_of_any_size_are_found_by_name() -> Verdict {
    let layer = directories_of_any_size();
    holds(layer.clone(), &Ext4Rootfs::new())?;
    let disk = smallest(&[layer], &Ext4Rootfs::new())?;
    let dump =
        |name: &str| Run::new("debugfs").args(["-R", &format!("htree_dump /{name}")]).arg(&*disk).success();
    let said = dump("long")?;
    assert!(said.stdout.contains("Indirect levels: 1"), "{said}");
    assert!(dump("d254")?.stdout.contains("Indirect levels: 0"));
    assert!(!dump("d253")?.stdout.contains("Indirect levels"));
    Ok(())
}

/// Written to afterwards: the kernel splits the full blocks.
pub(crate) fn a_directory_of_100_000_names_takes_more() -> Verdict {
    let mut layer = root().dir("d", 0o755);
    for number in 0..100_000_u32 {
        layer = layer.hard_link_or_file(number);
    }
    let disk = disk(&[layer.finish()], &Ext4Rootfs::new())?;
    fsck(&disk)?;
    let mount = Mount::new("ext4", &*disk, "loop")?;
    let folder = mount.path().join("d");
    let name = |number: u32| format!("{:08x}", number.wrapping_mul(0x9E37_79B1));
    for number in 0..100_000 {
        assert!(folder.join(name(number)).exists(), "{number}");
    }
    for number in 0..2_000_u32 {
        File::create(folder.join(format!("new-{number}")))?;
        fs::remove_file(folder.join(name(number * 7)))?;
    }
    assert_eq!(fs::read_dir(&folder)?.count(), 100_000);
    mount.unmount()?;
    fsck_used(&disk)
}

trait Many {
    fn hard_link_or_file(self, number: u32) -> Self;
}

impl Many for LayerBuilder {
    /// Ten names a file, so that the layer has few inodes.
    fn hard_link_or_file(self, number: u32) -> Self {
        let name = |number: u32| format!("d/{:08x}", number.wrapping_mul(0x9E37_79B1));
        if number.is_multiple_of(10) {
            return self.file(name(number), 0o644, b"x");
        }
        self.hard_link(name(number), &name(number - number % 10))
    }
}

/// In the inode, in a block of their own or shared, and in inodes.
pub(crate) fn attributes_of_any_size() -> Vec<u8> {
    let acl: Vec<u8> =
        [(1, 7, u32::MAX), (2, 5, 1000), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 1, u32::MAX)]
            .iter()
            .flat_map(|(tag, permissions, id)| [*tag, *permissions, *id as u16, (id >> 16) as u16])
            .flat_map(u16::to_le_bytes)
            .collect();
    let acl = [&2_u32.to_le_bytes()[..], &acl].concat();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut layer = root()
        .xattr("system.posix_acl_access", &acl)
        .xattr("system.posix_acl_default", &acl)
        .dir("acl", 0o751)
        .xattr("security.capability", capability)
        .file("capability", 0o755, b"x")
        .xattr("trusted.large", pattern(65_536, 3))
        .dir("64k", 0o755)
        .xattr("trusted.large", pattern(65_536, 3))
        .xattr("user.other", pattern(65_536, 4))
        .xattr("user.small", "1")
        .file("two", 0o644, b"")
        .xattr("trusted.link", pattern(3_000, 5))
        .xattr("trusted.more", pattern(3_000, 6))
        .symlink("link", "two");
    for size in [0, 1, 3, 4, 59, 60, 61, 63, 64, 65, 4_000, 4_028, 4_032, 4_036, 4_040, 4_096, 10_000] {
        layer = layer.xattr("user.v", pattern(size, size)).file(format!("v{size}"), 0o644, b"data");
    }
    // One set of 2,100 files: three blocks, whose values are in inodes that all three name.
    layer = layer.dir("shared", 0o755);
    for number in 0..2_100 {
        layer = layer.xattr("user.a", pattern(5_000, 7)).xattr("user.b", pattern(200, 8)).file(
            format!("shared/{number}"),
            0o644,
            b"",
        );
    }
    layer.finish()
}

pub(crate) fn attributes_of_any_size_are_held() -> Verdict {
    let layer = attributes_of_any_size();
    // No folder here holds values of that size, so that it is not unpacked.
    let expected = plyfold_conformance::tree::stacked(vec![read(&layer)?])?;
    let layers = [layer];
    for disk in [smallest(&layers, &Ext4Rootfs::new())?, disk(&layers, &Ext4Rootfs::new())?] {
        fsck(&disk)?;
        let mount = Mount::new("ext4", &*disk, "loop,ro")?;
        equal(&shown(mount.path())?, &expected);
    }
    // The kernel changes and removes what is in inodes.
    let disk = disk(&layers, &Ext4Rootfs::new())?;
    let mount = Mount::new("ext4", &*disk, "loop")?;
    fs::remove_file(mount.path().join("two"))?;
    for number in 0..1_500 {
        fs::remove_file(mount.path().join(format!("shared/{number}")))?;
    }
    mount.unmount()?;
    fsck_used(&disk)
}

fn read(layer: &[u8]) -> Result<Vec<plyfold_conformance::tree::LayerEntry>, Failure> {
    let mut tar = LayerTar::new(std::io::Cursor::new(layer.to_vec()), LayerOptions::default())?;
    Ok(plyfold_conformance::tree::read_layer(&mut tar)?)
}

/// Files of holes, of as many pieces as need a tree of one and of two levels, and the largest one.
pub(crate) fn files_with_holes_are_held() -> Verdict {
    let piece: &[u8] = b"a piece";
    let pieces =
        |count: u64| -> Vec<(u64, &[u8])> { (0..count).map(|at| (at * 70_000 + 5, piece)).collect() };
    let largest = (1 << 44) - 4096;
    let zeros = [&pattern(70_000, 2)[..], &vec![0; 300_000], b"end", &vec![0; 100_000]].concat();
    let layer = root()
        .sparse_file("hole", 0o644, 1 << 40, &[])
        .sparse_file("four", 0o644, 1 << 20, &pieces(4))
        .sparse_file("five", 0o644, 1 << 20, &pieces(5))
        .sparse_file("hundreds", 0o644, 200 << 20, &pieces(1_000))
        .sparse_file("thousands", 0o644, 200 << 20, &pieces(2_500))
        .sparse_file("largest", 0o644, largest, &[(0, b"first"), (largest - 4, b"last")])
        .file("zeros", 0o644, &zeros)
        .file("nothing", 0o644, &[0; 10_000])
        .finish();
    let expected = plyfold_conformance::tree::stacked(vec![read(&layer)?])?;
    let disk = smallest(&[layer], &Ext4Rootfs::new().journal(Journal::None)?)?;
    fsck(&disk)?;
    assert!(fs::metadata(&disk)?.len() < 64 * MIB);
    let mount = Mount::new("ext4", &*disk, "loop,ro")?;
    let allocated = |name: &str| fs::metadata(mount.path().join(name)).map(|found| found.blocks() / 8);
    for (name, blocks) in [("hole", 0), ("four", 4), ("five", 6), ("hundreds", 1_003), ("largest", 2)] {
        assert_eq!(allocated(name)?, blocks, "{name}");
    }
    // 18 blocks, a hole, one block, a hole.
    assert_eq!(allocated("zeros")?, 19);
    // The largest one takes hours to read.
    let part = |lines: Vec<TreeLine>| {
        lines.into_iter().filter(|line| line.path != "/largest" && line.path != "/hole").collect::<Vec<_>>()
    };
    let largest_file = File::open(mount.path().join("largest"))?;
    let mut end = [0; 5];
    std::os::unix::fs::FileExt::read_exact_at(&largest_file, &mut end, largest - 5)?;
    assert_eq!(&end, b"\0last");
    drop(largest_file);
    let copy = tempfile::tempdir()?;
    for name in ["four", "five", "hundreds", "thousands", "zeros", "nothing"] {
        fs::copy(mount.path().join(name), copy.path().join(name))?;
    }
    let content = |lines: Vec<TreeLine>| {
        lines.into_iter().map(|line| (line.path, line.what)).skip(1).collect::<Vec<_>>()
    };
    assert_eq!(content(mounted(copy.path())?), content(part(expected)));
    Ok(())
}

/// A disk takes writes until it is full, and all of them are there.
pub(crate) fn a_populated_disk_takes_writes() -> Verdict {
    let layers: Vec<Vec<u8>> =
        samples::rootfs().images[0].layers.iter().map(|layer| layer.tar.to_vec()).collect();
    for (size, journal) in
        [(None, Journal::Auto), (Some(200 * MIB), Journal::None), (Some(1 << 30), Journal::Bytes(8 * MIB))]
    {
        let rootfs = Ext4Rootfs::new().journal(journal)?;
        let rootfs = size.map_or(Ok(rootfs.clone()), |size| rootfs.size(size))?;
        let disk = disk(&layers, &rootfs)?;
        assert!(size.is_none_or(|size| fs::metadata(&disk).is_ok_and(|found| found.len() == size)));
        fsck(&disk)?;
        let mount = Mount::new("ext4", &*disk, "loop")?;
        let before = shown(mount.path())?;
        let folder = mount.path().join("new");
        fs::create_dir(&folder)?;
        let chunk = pattern(1 << 20, 9);
        let mut count = 0;
        let full = loop {
            let written =
                File::create(folder.join(count.to_string())).and_then(|mut file| file.write_all(&chunk));
            match written {
                Ok(()) => count += 1,
                Err(e) => break e,
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
        assert!(count > 30, "{count} MiB are free");
        mount.unmount()?;
        fsck_used(&disk)?;
        let mount = Mount::new("ext4", &*disk, "loop")?;
        for number in 0..count {
            assert!(fs::read(folder_of(&mount).join(number.to_string()))? == chunk, "file {number}");
        }
        fs::remove_dir_all(folder_of(&mount))?;
        let mut after = shown(mount.path())?;
        after[0].mtime = before[0].mtime;
        equal(&after, &before);
        mount.unmount()?;
        fsck_used(&disk)?;
    }
    Ok(())
}

fn folder_of(mount: &Mount) -> std::path::PathBuf {
    mount.path().join("new")
}
