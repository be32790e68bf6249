//! Descriptors as qemu reads them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use plyfold_conformance::oracle::{Failure, Need, Run, Verdict};
use plyfold_conformance::oracle_tests;
use plyfold_vmdk::Vmdk;
use rustix::fs::SeekFrom;

#[path = "../disk/mod.rs"]
mod disk;
#[path = "../set/mod.rs"]
mod set;
mod stream;
mod suite;

use disk::{Disk, GIB};
use stream::{a_stream_reads_back_identical, files_of_qemu_are_read};
use suite::the_suite_through_qemu_and_the_kernel;

oracle_tests! {
    vmdk_reads_back_identical needs [Need::QEMU_IMG];
    files_beyond_2_gib_read_back_identical needs [Need::QEMU_IMG];
    the_folder_can_be_moved needs [Need::QEMU_IMG];
    odd_paths_are_read needs [Need::QEMU_IMG];
    qemu_knows_size_and_identity needs [Need::QEMU_IMG];
    a_stream_reads_back_identical needs [Need::QEMU_IMG];
    files_of_qemu_are_read needs [Need::QEMU_IMG];
    the_suite_through_qemu_and_the_kernel needs
        [Need::QEMU_IMG, Need::FSCK_EROFS, Need::KERNEL_EROFS, Need::KERNEL_OVERLAY, Need::Mounts];
}

/// Converts the disk, whose folder may have moved, with qemu and compares the outcome with the files, end to end.
fn reads_back(disk: &Disk, folder: &Path) -> Verdict {
    let raw = folder.join("raw");
    let convert = Run::new("qemu-img").args(["convert", "-f", "vmdk", "-O", "raw", "-S", "4k"]);
    convert.arg(folder.join("disk.vmdk")).arg(&raw).success()?;
    let raw = File::open(raw)?;
    let mut start = 0;
    for layer in &disk.files {
        let file = File::open(folder.join(&layer.name))?;
        // Where both have a hole both read as zeros.
        for (offset, length) in
            [data(&raw, start, layer.artifact.size())?, data(&file, 0, layer.artifact.size())?].concat()
        {
            let (mut left, mut right) = (vec![0; length], vec![1; length]);
            raw.read_exact_at(&mut left, start + offset)?;
            file.read_exact_at(&mut right, offset)?;
            assert!(left == right, "{} differs within {length} bytes at {offset}", layer.name);
        }
        start += layer.artifact.size();
    }
    assert_eq!(raw.metadata()?.len(), start);
    Ok(())
}

/// The runs of data in `size` bytes of a sparse file from `start` on, as offsets from there and lengths.
fn data(file: &File, start: u64, size: u64) -> Result<Vec<(u64, usize)>, Failure> {
    let mut runs = Vec::new();
    let mut at = start;
    while at < start + size {
        let from = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(from) if from < start + size => from,
            Ok(_) | Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        at = rustix::fs::seek(file, SeekFrom::Hole(from))?.min(start + size);
        runs.push((from - start, (at - from) as usize));
    }
    Ok(runs)
}

fn vmdk_reads_back_identical() -> Verdict {
    for vmdk in [Vmdk::new(), Vmdk::new().split(true)] {
        let disk =
            Disk::new(&vmdk, &[("fsmeta.erofs", 8192), ("l/1", 4096), ("l/2", 1 << 20), ("l/3", 4096)])?;
        reads_back(&disk, disk.folder.path())?;
    }
    let disk =
        Disk::new(&Vmdk::new().sector_blocks(), &[("index", 1536), ("layer.tar", 512), ("last", 10240)])?;
    reads_back(&disk, disk.folder.path())
}

/// An incumbent reads files wrong across this boundary.
fn files_beyond_2_gib_read_back_identical() -> Verdict {
    for vmdk in [Vmdk::new(), Vmdk::new().split(true)] {
        let disk = Disk::new(
            &vmdk,
            &[("small", 4096), ("large", 4 * GIB + 8192), ("exact", 2 * GIB), ("end", 4096)],
        )?;
        reads_back(&disk, disk.folder.path())?;
    }
    Ok(())
}

fn the_folder_can_be_moved() -> Verdict {
    let disk = Disk::new(&Vmdk::new(), &[("a", 4096), ("store/b", 8192)])?;
    let elsewhere = tempfile::tempdir()?;
    let moved = elsewhere.path().join("moved");
    fs::rename(disk.folder.path(), &moved)?;
    reads_back(&disk, &moved)
}

fn odd_paths_are_read() -> Verdict {
    let (long, deep) = ("n".repeat(255), format!("{}/{}", "d".repeat(255), "e".repeat(255)));
    assert_eq!(deep.len(), 511);
    for name in
        ["with space", "ünïcode'", "./nbd:host", "d/a:b", "%s%n", "back\\slash", "d/up..", &long, &deep]
    {
        let disk = Disk::new(&Vmdk::new(), &[(name, 4096), ("z", 4096)])?;
        reads_back(&disk, disk.folder.path())?;
    }
    Ok(())
}

fn qemu_knows_size_and_identity() -> Verdict {
    let disk = Disk::new(&Vmdk::new(), &[("a", 4096), ("b", 8192)])?;
    let said = Run::new("qemu-img")
        .args(["info", "-f", "vmdk"])
        .arg(disk.folder.path().join("disk.vmdk"))
        .success()?;
    let cid = Vmdk::new().descriptor(&disk.files)?.cid();
    for expected in ["virtual size: 12 KiB (12288 bytes)", &format!("cid: {cid}\n"), "parent cid: 4294967295"]
    {
        assert!(said.stdout.contains(expected), "{said}");
    }
    Ok(())
}
