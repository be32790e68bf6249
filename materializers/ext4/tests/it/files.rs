//! Files and superblocks that are read.

use std::fs::File;
use std::io::{Cursor, Read as _, Seek as _};
use std::os::unix::fs::FileExt as _;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::ErrorKind;
use plyfold_core::files::{FileType, Files as _, FilesFault};
use plyfold_ext4::{Ext4Fault, Ext4Files, Ext4Rootfs, Journal, MIN_SIZE, Summary};

use super::{Ext4Upper, elaborate, image};
use crate::common::{disk, smallest};

/// The start of a disk, which has all that is not zero but the journal's superblock.
fn start(upper: &Ext4Upper) -> Vec<u8> {
    let mut disk = image(upper);
    disk.rewind().unwrap();
    let mut bytes = Vec::new();
    disk.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn an_upper_is_listed() {
    let mut files = Ext4Files::new(image(&elaborate())).unwrap();
    let names: Vec<_> = files.list(b"/").unwrap().into_iter().map(|file| file.name).collect();
    assert_eq!(names, [&b"lost+found"[..], b"upper", b"work"]);
    let upper = files.file(b"upper/../upper/.", false).unwrap();
    let found = (upper.kind, upper.mode, upper.uid, upper.gid, upper.mtime.seconds, upper.mtime.nanos);
    assert_eq!(found, (FileType::Directory, 0o1771, 100_000, 0xffff_fffe, 5_000_000_000, 999_999_999));
    assert_eq!(files.file(b"", true).unwrap().name, b"/");
    let missing = files.file(b"upper/none", true).unwrap_err();
    assert_eq!(missing.detail(), Some(&FilesFault::Missing("/upper/none".to_owned())));
    let directory = files.read(b"work", &mut |_| Ok(())).unwrap_err();
    assert_eq!(directory.detail(), Some(&FilesFault::Directory("/work".to_owned())));
}

#[test]
fn a_link_to_the_root_has_its_own_name() {
    let layer = LayerBuilder::new().symlink("link", "/").dir("d", 0o755).symlink("d/up", "..").finish();
    let disk = smallest(&[layer], &Ext4Rootfs::new()).unwrap();
    let mut files = Ext4Files::new(File::open(disk).unwrap()).unwrap();
    let mut name = |path: &str, follow| {
        let found = files.file(path.as_bytes(), follow).unwrap();
        (found.kind, String::from_utf8(found.name).unwrap())
    };
    for (path, own) in [("link", "link"), ("d/up", "up"), ("/link/d/up", "up")] {
        assert_eq!(name(path, false), (FileType::Symlink, own.to_owned()), "{path}");
        assert_eq!(name(path, true), (FileType::Directory, "/".to_owned()), "{path}");
        assert_eq!(name(&format!("{path}/"), false), (FileType::Directory, "/".to_owned()), "{path}");
    }
    assert_eq!(name("link/d", false), (FileType::Directory, "d".to_owned()));
}

/// All that the writer makes: any time, long texts of links, long paths, large attributes, and disks of 9 GiB with `meta_bg`.
#[test]
fn all_that_is_written_is_read() {
    let mut layer = LayerBuilder::new().mtime("-1").file("before", 0o644, b"1969");
    layer = layer.mtime("2147483648.5").file("after", 0o644, b"2038");
    layer = layer.pax("linkpath", "y".repeat(300)).symlink("long", "y").symlink("short", &"s".repeat(59));
    layer = layer.symlink("d60", &"s".repeat(60));
    layer = layer.xattr("user.large", vec![b'v'; 9_000]).file("attribute", 0o600, b"large");
    layer = layer.sparse_file("sparse", 0o644, 3 << 20, &[(1 << 20, b"data"), (2 << 20, b"more")]);
    let deep = "d/".repeat(1500);
    layer = (1..=1500).fold(layer, |layer, depth| layer.dir(&deep[..2 * depth - 1], 0o755));
    let layer = layer.file(format!("{deep}end"), 0o644, b"deep").finish();
    let path = disk(&[layer], &Ext4Rootfs::new().size(9 << 30).unwrap()).unwrap();
    let features = Summary::read(File::open(&path).unwrap()).unwrap().features;
    assert!(["meta_bg", "ea_inode"].iter().all(|name| features.iter().any(|feature| feature == name)));
    let mut files = Ext4Files::new(File::open(path).unwrap()).unwrap();
    let mut read = |path: &str| {
        let mut bytes = Vec::new();
        let mut take = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok(())
        };
        files.read(path.as_bytes(), &mut take).unwrap();
        bytes
    };
    for (path, content) in [("before", "1969"), ("after", "2038"), ("attribute", "large")] {
        assert_eq!(read(path), content.as_bytes());
    }
    assert_eq!(read(&format!("{deep}end")), b"deep");
    let mut sparse = vec![0; 3 << 20];
    sparse[1 << 20..][..4].copy_from_slice(b"data");
    sparse[2 << 20..][..4].copy_from_slice(b"more");
    assert!(read("sparse") == sparse);
    let listed = files.list(b"").unwrap();
    let found = |name: &str| listed.iter().find(|file| file.name == name.as_bytes()).unwrap();
    assert_eq!((found("before").mtime.seconds, found("before").mtime.nanos), (-1, 0));
    assert_eq!((found("after").mtime.seconds, found("after").mtime.nanos), (1 << 31, 500_000_000));
    for (name, length) in [("long", 300), ("short", 59), ("d60", 60)] {
        assert_eq!(found(name).target.as_ref().map(|target| target.len()), Some(length), "{name}");
    }
}

#[test]
fn a_summary_says_what_the_superblock_does() {
    let summary = Summary::read(image(&elaborate())).unwrap();
    let found = (summary.block_size, summary.blocks, summary.groups, summary.inodes, summary.inode_size);
    assert_eq!(found, (4096, 65_536, 2, 16_384, 256));
    assert_eq!((summary.uuid, &*summary.label), (*b"0123456789abcdef", &b"sixteen bytes ok"[..]));
    assert!(summary.is_clean && !summary.needs_recovery);
    assert_eq!(summary.inodes - summary.free_inodes, 13);
    let features = [
        "has_journal",
        "ext_attr",
        "dir_index",
        "sparse_super2",
        "filetype",
        "extent",
        "64bit",
        "flex_bg",
        "large_file",
        "huge_file",
        "dir_nlink",
        "extra_isize",
        "metadata_csum",
    ];
    assert_eq!(summary.features, features);
}

#[test]
fn what_is_damaged_is_a_typed_error() {
    let disk = start(&Ext4Upper::new(MIN_SIZE).unwrap());
    let fault = |bytes: Vec<u8>| Ext4Files::new(Cursor::new(bytes)).map(drop).unwrap_err();
    assert_eq!(fault(vec![0; 4096]).detail(), Some(&Ext4Fault::NoFileSystem));
    assert_eq!(fault(disk[..1500].to_vec()).detail(), Some(&Ext4Fault::NoFileSystem));
    let cut = fault(disk[..disk.len() / 2].to_vec());
    assert_eq!(
        (cut.kind(), cut.detail()),
        (&ErrorKind::Corrupt, Some(&Ext4Fault::Cut(16_384, 4096, MIN_SIZE / 2)))
    );
    let mut changed = disk.clone();
    changed[1024 + 0x78] ^= 1;
    assert_eq!(*fault(changed).kind(), ErrorKind::Corrupt);
    // Without a checksum the numbers themselves are judged.
    let mut plain = disk;
    plain[1024 + 0x65] &= !4;
    for (at, value) in [(0x18, 7_u32), (0x20, 0), (0x20, 40_000), (0x10, u32::MAX), (0x14, u32::MAX)] {
        let mut changed = plain.clone();
        changed[1024 + at..1024 + at + 4].copy_from_slice(&value.to_le_bytes());
        assert_eq!(*fault(changed).kind(), ErrorKind::Corrupt, "{at:#x}");
    }
    let mut groups = plain.clone();
    groups[1024 + 0x20..1024 + 0x24].copy_from_slice(&1_u32.to_le_bytes());
    groups[1024 + 0x04..1024 + 0x08].copy_from_slice(&(1_u32 << 30).to_le_bytes());
    assert_eq!(fault(groups).detail(), Some(&Ext4Fault::Groups(1 << 30, 1 << 20)));
    // Groups of clusters are larger.
    let mut clusters = plain.clone();
    clusters[1024 + 0x65] |= 2;
    clusters[1024 + 0x1c] = 6;
    clusters[1024 + 0x20..1024 + 0x24].copy_from_slice(&(16 * 32_768_u32).to_le_bytes());
    assert_eq!(Summary::read(Cursor::new(&clusters)).unwrap().groups, 1);
    assert_eq!(*fault(clusters.clone()).kind(), ErrorKind::Unsupported);
    clusters[1024 + 0x20] = 1;
    assert_eq!(*fault(clusters).kind(), ErrorKind::Corrupt);
    let mut unknown = plain;
    unknown[1024 + 0x62] |= 0x80;
    assert_eq!(*fault(unknown).kind(), ErrorKind::Unsupported);
}

/// Linux shows the names in front of the damage, and some of these cut at the zero byte.
#[test]
fn a_directory_that_linux_shows_in_part_is_damaged() {
    let mut disk = start(&Ext4Upper::new(MIN_SIZE).unwrap());
    // Without checksums.
    disk[1024 + 0x65] &= !4;
    let entry = disk.windows(10).position(|bytes| bytes == b"lost+found").unwrap() - 8;
    let table = u32::from_le_bytes(disk[4096 + 8..4096 + 12].try_into().unwrap()) as usize;
    let size = table * 4096 + 256 + 4;
    assert_eq!(disk[size..size + 4], 4096_u32.to_le_bytes());
    for (at, value) in [(entry + 8, 0), (entry + 10, b'/'), (entry + 6, 0), (entry + 3, 0x40), (size, 1)] {
        let mut changed = disk.clone();
        changed[at] = value;
        let listed = Ext4Files::new(Cursor::new(changed)).unwrap().list(b"/");
        assert_eq!(*listed.unwrap_err().kind(), ErrorKind::Corrupt, "{at}");
    }
    assert_eq!(Ext4Files::new(Cursor::new(disk)).unwrap().list(b"/").unwrap().len(), 3);
}

/// Any byte may be wrong: an error or another list, never a panic and never an endless loop.
#[test]
fn no_damage_panics() {
    let disk = image(&Ext4Upper::new(MIN_SIZE).unwrap());
    // Without checksums damage comes further.
    disk.write_all_at(&[0], 1024 + 0x65).unwrap();
    let mut start = vec![0; 1 << 20];
    disk.read_exact_at(&mut start, 0).unwrap();
    let used: Vec<usize> = (1024..start.len()).filter(|at| start[*at] != 0).collect();
    for (turn, at) in used.iter().step_by((used.len() / 300).max(1)).enumerate() {
        disk.write_all_at(&[start[*at] ^ 1 << (turn % 8)], *at as u64).unwrap();
        if let Ok(mut files) = Ext4Files::new(disk.try_clone().unwrap()) {
            for path in [&b"/"[..], b"upper", b"lost+found"] {
                let _ = files.list(path);
            }
        }
        disk.write_all_at(&[start[*at]], *at as u64).unwrap();
    }
}

/// A disk without checksums whose directory `d` has a hash tree, the path of each name in it, and where the tree begins.
fn indexed() -> (Vec<u8>, Vec<String>, usize) {
    let names: Vec<String> = (0..400).map(|number| format!("d/a-name-of-{number}")).collect();
    let layer =
        names.iter().fold(LayerBuilder::new().dir("d", 0o755), |layer, name| layer.file(name, 0o644, b"x"));
    let disk = smallest(&[layer.finish()], &Ext4Rootfs::new().journal(Journal::None).unwrap()).unwrap();
    let bytes = std::fs::read(disk).unwrap();
    let is_root = |block: &[u8]| block[24..32] == [0, 0, 0, 0, 1, 8, 0, 0] && block[8] == b'.';
    let root = bytes.chunks(4096).position(is_root).unwrap() * 4096;
    (bytes, names, root)
}

/// How many names are listed, or what is wrong, and the same of those that are found one by one.
type Found = (Result<usize, ErrorKind>, Result<usize, ErrorKind>);

fn found(bytes: Vec<u8>, names: &[String]) -> Found {
    let mut files = Ext4Files::new(Cursor::new(bytes)).unwrap();
    let listed = files.list(b"d").map(|files| files.len()).map_err(|error| error.kind().clone());
    let one_by_one = names.iter().map(|name| files.file(name.as_bytes(), false));
    let one_by_one = one_by_one.collect::<plyfold_core::Result<Vec<_>>>();
    (listed, one_by_one.map(|files| files.len()).map_err(|error| error.kind().clone()))
}

/// A tree whose root is not understood is not needed, as in Linux, unless it should have a checksum.
#[test]
fn names_are_found_without_their_tree() {
    let (mut bytes, names, root) = indexed();
    assert_eq!(found(bytes.clone(), &names), (Ok(400), Ok(400)));
    let cases = [(28, 9), (29, 7), (30, 3), (30, 2), (31, 1), (32, 0), (33, 0xff), (34, 0), (35, 0xff)];
    for (at, value) in cases {
        let mut changed = bytes.clone();
        changed[root + at] = value;
        let refused = Err(ErrorKind::Corrupt);
        assert_eq!(found(changed, &names), (refused.clone(), refused), "{at}");
    }
    // Without checksums, and with the limit that is right then.
    bytes[1024 + 0x65] &= !4;
    bytes[root + 32..root + 34].copy_from_slice(&u16::to_le_bytes((4096 - 32) / 8));
    assert_eq!(found(bytes.clone(), &names), (Ok(400), Ok(400)));
    for (at, value) in cases {
        let mut changed = bytes.clone();
        changed[root + at] = value;
        assert_eq!(found(changed, &names), (Ok(400), Ok(400)), "{at}");
    }
    // It does not matter then that the first entry is of the root.
    (bytes[root + 32], bytes[root + 36]) = (12, 0);
    assert_eq!(found(bytes, &names), (Ok(400), Ok(400)));
}

/// Linux lists by the tree: names that it does not lead to are not shown, and some are found that are not shown.
#[test]
fn a_damaged_tree_is_told_by_the_list_and_by_each_name() {
    let (mut bytes, names, root) = indexed();
    bytes[1024 + 0x65] &= !4;
    bytes[root + 32..root + 34].copy_from_slice(&u16::to_le_bytes((4096 - 32) / 8));
    let count = bytes[root + 34];
    assert!(count > 2, "{count} leaves");
    let second = &bytes[root + 44..root + 48];
    let cases: [(usize, &[u8]); 8] = [
        // A leaf in place of a node.
        (30, &[1]),
        // Fewer entries than blocks, or more.
        (34, &[1]),
        (34, &[count + 1]),
        // The root in itself, a block that is there twice, or one that is not there.
        (36, &[0, 0]),
        (36, second),
        (36, &[0xff, 0xff]),
        // Hashes out of order.
        (40, &[0xfe, 0xff, 0xff, 0xff]),
        (48, &[0, 0, 0, 0]),
    ];
    for (at, value) in cases {
        let mut changed = bytes.clone();
        changed[root + at..root + at + value.len()].copy_from_slice(value);
        let refused = Err(ErrorKind::Corrupt);
        assert_eq!(found(changed, &names), (refused.clone(), refused), "{at} {value:?}");
    }
    // A name in a leaf that is not the one of its hash is not found by Linux.
    let hash = u32::from_le_bytes(bytes[root + 40..root + 44].try_into().unwrap());
    bytes[root + 40..root + 44].copy_from_slice(&((hash / 2) & !1).to_le_bytes());
    assert_eq!(found(bytes, &names).0, Err(ErrorKind::Corrupt));
}
