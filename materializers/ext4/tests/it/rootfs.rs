//! Whole images without any tool: bytes, options, refusals, failing outputs.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use plyfold_conformance::samples::{self, LayerBuilder};
use plyfold_core::digest::sha256;
use plyfold_core::{ErrorKind, Materializer as _, Role};
use plyfold_ext4::{Ext4Fault, Ext4Rootfs, Journal, resize};

use crate::Full;
use crate::common::{disk, merged, smallest};

const MIB: u64 = 1 << 20;

fn layers() -> Vec<Vec<u8>> {
    samples::rootfs().images[0].layers.iter().map(|layer| layer.tar.to_vec()).collect()
}

/// Files, a large directory, values of attributes in inodes.
fn elaborate() -> Vec<u8> {
    let mut layer = LayerBuilder::new().dir("./", 0o755).dir("d", 0o755);
    for number in 0..600 {
        layer = layer.file(format!("d/{number:04}"), 0o644, &vec![7; number * 11]);
    }
    layer = layer.xattr("user.large", vec![b'v'; 9_000]).file("large", 0o644, b"");
    layer.xattr("user.large", vec![b'v'; 9_000]).file("large-2", 0o644, b"").finish()
}

/// The bytes are part of the cache key: a change of them raises `Format::version`.
#[test]
fn same_input_same_bytes() {
    let digest = |tars: &[Vec<u8>], rootfs: &Ext4Rootfs| {
        sha256(&fs::read(smallest(tars, rootfs).unwrap()).unwrap()).digest().to_owned()
    };
    let plain = Ext4Rootfs::new();
    let none = Ext4Rootfs::new().journal(Journal::None).unwrap().label("label").unwrap().uuid([7; 16]);
    assert_eq!(
        [digest(&layers(), &plain), digest(&layers(), &none), digest(&[elaborate()], &plain)],
        [
            "3d46316ac9b76ff59ffab495f06870a514d16e3b15ffa747ee1707dda9a7ec05",
            "3a0df76b2a79935253ae58b81e5c7729700c40493ea9909c2ea8c82ed625b070",
            "0ee9890be36c030eaec98cfcfdfe764d0ab11e2bf31bda12d061855257316e2a",
        ]
    );
}

/// Only what is said counts, not in which order, and not in how many layers.
#[test]
fn the_order_of_entries_changes_no_byte() {
    let file = |layer: LayerBuilder, number: usize| {
        layer.xattr("user.shared", format!("{}", number % 5)).file(
            format!("d{}/{number:03}", number % 3),
            0o644,
            &vec![number as u8 | 1; number * 97],
        )
    };
    let root = || {
        let layer = LayerBuilder::new().dir("./", 0o755);
        (0..3).fold(layer, |layer, number| layer.dir(format!("d{number}"), 0o755))
    };
    let up = (0..90).fold(root(), file).hard_link("link", "d1/001");
    let down = (0..90).rev().fold(root(), file).hard_link("link", "d1/001");
    let halves = [(45..90).fold(root(), file), (0..45).fold(root(), file).hard_link("link", "d1/001")];
    // The seed of hashes follows from the layers, and no directory here has a hash tree.
    let rootfs = Ext4Rootfs::new().uuid([1; 16]);
    let bytes = |tars: &[Vec<u8>]| {
        let mut bytes = fs::read(smallest(tars, &rootfs).unwrap()).unwrap();
        bytes[1024..2048].fill(0);
        bytes
    };
    let first = bytes(&[up.finish()]);
    assert!(first == bytes(&[down.finish()]), "backwards");
    assert!(first == bytes(&halves.map(LayerBuilder::finish)), "in two layers");
}

/// Where the zeros came from does not matter: holes of the tar, or bytes.
#[test]
fn holes_follow_from_the_bytes_alone() {
    let size = 12 * MIB as usize + 700;
    let long = vec![1; 100_000];
    let runs: [(u64, &[u8]); 4] =
        [(100, b"start"), (3 * MIB, &long), (3 * MIB + 160_000, b"close"), (9 * MIB - 3, b"end")];
    let mut data = vec![0; size];
    for (offset, run) in runs {
        data[usize::try_from(offset).unwrap()..][..run.len()].copy_from_slice(run);
    }
    let sparse = LayerBuilder::new().sparse_file("f", 0o644, size as u64, &runs).finish();
    let plain = LayerBuilder::new().file("f", 0o644, &data).finish();
    let rootfs = Ext4Rootfs::new().uuid([1; 16]).journal(Journal::None).unwrap();
    let (sparse, plain) = (smallest(&[sparse], &rootfs).unwrap(), smallest(&[plain], &rootfs).unwrap());
    // The seed of hashes follows from the layers.
    let without_superblock = |path: &std::path::Path| fs::read(path).unwrap().split_off(4096);
    assert!(without_superblock(&sparse) == without_superblock(&plain), "the files differ");
    assert!(fs::metadata(&plain).unwrap().blocks() * 512 < MIB);
}

#[test]
fn a_size_that_is_too_small_is_refused_before_a_byte_is_written() {
    let image = merged(&layers()).unwrap();
    let mut whole = tempfile::tempfile().unwrap();
    Ext4Rootfs::new().image(&image, &mut whole).unwrap();
    let least = whole.metadata().unwrap().len();
    for size in [4096, MIB, least - 4096] {
        let mut disk = tempfile::tempfile().unwrap();
        let error = Ext4Rootfs::new().size(size).unwrap().image(&image, &mut disk).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Config);
        assert!(matches!(error.detail(), Some(Ext4Fault::TooSmall(_))), "{error:?}");
        assert!(error.hint().is_some_and(|hint| hint.contains(&least.to_string())), "{error:?}");
        assert_eq!(disk.metadata().unwrap().len(), 0);
        // Where the file is in the cache already.
        let error = Ext4Rootfs::new().size(size).unwrap().adapt(Role::Image, &mut whole).unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains(&least.to_string())), "{error:?}");
        assert_eq!(whole.metadata().unwrap().len(), least);
    }
    let exact = Ext4Rootfs::new().size(least).unwrap();
    exact.image(&image, &mut tempfile::tempfile().unwrap()).unwrap();
    exact.adapt(Role::Image, &mut whole).unwrap();
    assert_eq!(whole.metadata().unwrap().len(), least);
}

#[test]
fn growing_writes_descriptors_alone() {
    let disk = disk(&layers(), &Ext4Rootfs::new().size(1 << 40).unwrap()).unwrap();
    let found = fs::metadata(&disk).unwrap();
    assert_eq!(found.len(), 1 << 40);
    assert!(found.blocks() * 512 < 4 * MIB, "{} sectors", found.blocks());
}

#[test]
fn what_ext4_cannot_hold_is_refused_with_the_path() {
    let refused = |layer: LayerBuilder| {
        let error = smallest(&[layer.finish()], &Ext4Rootfs::new()).unwrap_err();
        (error.kind().clone(), error.context("path").map(str::to_owned))
    };
    let limit = |path: &str| (ErrorKind::Limit, Some(path.to_owned()));
    let new = LayerBuilder::new;
    assert_eq!(refused(new().sparse_file("f", 0o600, 1 << 44, &[])), limit("/f"));
    assert_eq!(refused(new().pax("linkpath", "x".repeat(4096)).symlink("l", "")), limit("/l"));
    let many = (0..300).fold(new(), |layer, number| layer.xattr(&format!("user.{number:0200}"), ""));
    assert_eq!(refused(many.file("x", 0o600, b"")), limit("/x"));
    for time in ["-2147483649", "15032385536", "1099511627776"] {
        assert_eq!(refused(new().mtime(time).file("t", 0o600, b"")), limit("/t"), "{time}");
    }
    for time in ["-2147483648", "15032385535.999999999"] {
        smallest(&[new().mtime(time).file("t", 0o600, b"").finish()], &Ext4Rootfs::new()).unwrap();
    }
    let acl = new().xattr("system.posix_acl_access", "no ACL").file("a", 0o600, b"");
    assert_eq!(refused(acl), (ErrorKind::Corrupt, Some("/a".to_owned())));
    let mut links = new().file("f", 0o644, b"");
    for number in 1..=65_000 {
        links = links.hard_link(format!("{number}"), "f");
    }
    assert_eq!(refused(links), limit("/1"));
}

/// overlayfs' own and those that no Linux file system shows.
#[test]
fn attributes_that_are_not_the_images_are_left_out() {
    let layer = LayerBuilder::new()
        .xattr("trusted.overlay.opaque", "y")
        .xattr("system.nfs4_acl", "acl")
        .file("f", 0o644, b"");
    let disk = fs::read(smallest(&[layer.finish()], &Ext4Rootfs::new()).unwrap()).unwrap();
    assert!(!disk.chunks(4).any(|word| word == 0xea02_0000_u32.to_le_bytes()));
}

#[test]
fn a_full_disk_at_any_write_is_an_io_error_and_leaves_no_superblock() {
    let image = merged(&[elaborate()]).unwrap();
    for writes_left in 0..200 {
        let mut disk = Full { file: tempfile::tempfile().unwrap(), writes_left };
        let Err(error) = Ext4Rootfs::new().image(&image, &mut disk) else {
            assert!(writes_left > 8, "{writes_left}");
            return;
        };
        assert_eq!(error.kind(), &ErrorKind::Io);
        let mut magic = [0; 2];
        disk.seek(SeekFrom::Start(1024 + 0x38)).unwrap();
        assert!(disk.read_exact(&mut magic).is_err() || magic == [0; 2]);
    }
    panic!("the disk was never written whole");
}

/// Growing that fails leaves the file system of its old size.
#[test]
fn a_disk_that_cannot_grow_keeps_its_superblock() {
    let whole = smallest(&[elaborate()], &Ext4Rootfs::new()).unwrap();
    let old = fs::read(&whole).unwrap();
    let mut long = 0;
    for writes_left in 0..100 {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &old).unwrap();
        let mut disk = Full { file, writes_left };
        if resize(&mut disk, 20 << 30).is_ok() {
            assert!(writes_left > 5);
            assert_eq!(long, 1, "the file keeps its new length");
            return;
        }
        let mut superblock = [0; 1024];
        disk.seek(SeekFrom::Start(1024)).unwrap();
        disk.read_exact(&mut superblock).unwrap();
        assert!(superblock == old[1024..2048]);
        // But for the last write, which is that of the superblock: it may have come to the disk.
        if disk.seek(SeekFrom::End(0)).unwrap() != old.len() as u64 {
            long += 1;
        }
    }
    panic!("the disk never grew");
}

/// Nothing is read of a hole behind the file system: 8 TiB of it would take hours.
#[test]
fn a_file_that_is_longer_already_grows() {
    let mut disk = File::options()
        .read(true)
        .write(true)
        .open(smallest(&[elaborate()], &Ext4Rootfs::new()).unwrap())
        .unwrap();
    let old = disk.metadata().unwrap().len();
    disk.set_len(8 << 40).unwrap();
    assert_eq!(resize(&mut disk, 8 << 40).unwrap(), 8 << 40);
    // What is behind it, and is no hole.
    disk.set_len(old).unwrap();
    disk.set_len((8 << 40) + 4096).unwrap();
    disk.write_all_at(b"x", 8 << 40).unwrap();
    assert_eq!(*resize(&mut disk, 9 << 40).unwrap_err().kind(), ErrorKind::Config);
}

#[test]
fn what_is_no_file_system_does_not_grow() {
    for bytes in [vec![], vec![0; 100], vec![0; 1 << 20], vec![0xff; 1 << 20]] {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &bytes).unwrap();
        assert_eq!(*resize(&mut file, 1 << 30).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(file.metadata().unwrap().len(), bytes.len() as u64);
    }
}
