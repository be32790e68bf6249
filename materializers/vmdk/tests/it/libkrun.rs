//! Descriptors as imago reads them, which is libkrun's reader.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use imago::vmdk::Vmdk as Reader;
use imago::{FormatAccess, FormatDriverBuilder as _, PermissiveImplicitOpenGate};
use plyfold_vmdk::Vmdk;

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
