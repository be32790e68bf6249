//! Descriptors as imago reads them, which is libkrun's reader.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use imago::vmdk::Vmdk as Reader;
use imago::{FormatAccess, FormatDriverBuilder as _, PermissiveImplicitOpenGate};
use plyfold_vmdk::{Descriptor, Extent, Vmdk};

use crate::disk::{Disk, GIB};

/// Rule M 155 `vmdk_reads_back_identical`, at both ends of each file and around each 2 GiB of it.
#[test]
fn vmdk_reads_back_identical() {
    let files =
        [("fsmeta.erofs", 8192), ("l/large", 4 * GIB + 8192), ("d/a:b 'ü'", 4096), ("exact", 2 * GIB)];
    for vmdk in [Vmdk::new(), Vmdk::new().split(true)] {
        let disk = Disk::new(&vmdk, &files).unwrap();
        let path = disk.folder.path().join("disk.vmdk");
        let reader = Reader::<imago::file::File>::builder_path(path);
        let reader = FormatAccess::new(reader.open(PermissiveImplicitOpenGate::default()).unwrap());
        let mut start = 0;
        for layer in &disk.files {
            let file = File::open(disk.folder.path().join(&layer.name)).unwrap();
            let inside =
                (0..layer.artifact.size()).step_by(1 << 30).flat_map(|at| [at.saturating_sub(4096), at]);
            for offset in inside.chain([layer.artifact.size() - 4096]) {
                let (mut expected, mut read) = ([0; 4096], [1; 4096]);
                file.read_exact_at(&mut expected, offset).unwrap();
                reader.read(&mut read[..], start + offset).unwrap();
                assert!(read == expected, "{} differs at {offset}", layer.name);
            }
            start += layer.artifact.size();
        }
        assert_eq!(reader.size(), start);
    }
}

/// Parts of one file, in any order, between others, as a disk of partitions has them.
#[test]
fn parts_of_a_file_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let sectors = |first: u8| -> Vec<u8> { (first..first + 16).flat_map(|byte| [byte; 512]).collect() };
    std::fs::write(folder.path().join("a"), sectors(0)).unwrap();
    std::fs::write(folder.path().join("b"), sectors(100)).unwrap();
    let extents = [("a", 3, 8), ("b", 16, 0), ("a", 1, 0), ("b", 1, 15), ("a", 8, 8)];
    let extents = extents.map(|(name, sectors, from)| Extent::new(name, sectors, from).unwrap());
    let text = Descriptor::new(7, extents.to_vec()).unwrap().to_string();
    std::fs::write(folder.path().join("disk.vmdk"), text).unwrap();
    let reader = Reader::<imago::file::File>::builder_path(folder.path().join("disk.vmdk"));
    let reader = FormatAccess::new(reader.open(PermissiveImplicitOpenGate::default()).unwrap());
    let mut read = vec![0; 29 * 512];
    reader.read(&mut read[..], 0).unwrap();
    let firsts: Vec<u8> = read.chunks(512).map(|sector| sector[0]).collect();
    let expected: Vec<u8> = (8..11).chain(100..116).chain([0, 115]).chain(8..16).collect();
    assert_eq!(firsts, expected);
}
