//! Disks that have grown, as e2fsck and the kernel see them.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use plyfold_conformance::oracle::{Mount, Run, Verdict};
use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::{Error, ErrorKind, Materializer as _, Role};
use plyfold_ext4::{Ext4Rootfs, Ext4Upper, Journal, MAX_SIZE, MIN_SIZE, resize};

use crate::common::{merged, smallest};
use crate::{MIB, fsck, fsck_used};

fn grow(path: &Path, size: u64) -> plyfold_core::Result<u64> {
    let file = File::options().read(true).write(true).open(path);
    resize(&mut file.map_err(|e| Error::io("opening", e))?, size)
}

fn layer(files: usize) -> Vec<u8> {
    let content: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
    let mut layer = LayerBuilder::new().dir("./", 0o755).dir("d", 0o755);
    for number in 0..files {
        layer = layer.file(format!("d/{number}"), 0o644, &content[..number % 100_000]);
    }
    layer.finish()
}

/// Sizes around every boundary: the end of a group, a last group that is too short, the end of a table of descriptors, and
/// of a group of tables.
pub(crate) fn a_disk_grows_by_any_number_of_groups() -> Verdict {
    let group = 128 * MIB;
    let tables = 64 * group;
    let sizes = [
        group - 4096,
        group,
        group + 4096,
        group + 514 * 4096,
        group + 516 * 4096,
        group + 517 * 4096,
        2 * group - 4096,
        2 * group,
        2 * group + 600 * 4096,
        3 * group,
        tables - 4096,
        tables,
        tables + 4096,
        tables + 515 * 4096,
        tables + 516 * 4096,
        tables + group,
        tables + 2 * group,
        tables + 2 * group + 4096,
        2 * tables - group,
        2 * tables,
        2 * tables + 3 * group,
        100 << 30,
        1 << 40,
    ];
    let layers = [layer(300)];
    let steps = Ext4Rootfs::new().journal(Journal::None)?;
    let stepped = smallest(&layers, &steps)?;
    let upper = |size| -> Result<_, plyfold_conformance::oracle::Failure> {
        let mut file = tempfile::NamedTempFile::new()?;
        Ext4Upper::new(size)?.join(&[], file.as_file_mut())?;
        Ok(file.into_temp_path())
    };
    let stepped_upper = upper(MIN_SIZE)?;
    let mut old = fs::metadata(&stepped)?.len();
    for size in sizes {
        let once = smallest(&layers, &steps)?;
        grow(&once, size)?;
        fsck(&once)?;
        // From each to the next.
        assert_eq!(grow(&stepped, size)?, old);
        old = size;
        fsck(&stepped)?;
        assert_eq!(fs::metadata(&stepped)?.len(), size);
        grow(&stepped_upper, size)?;
        fsck(&stepped_upper)?;
    }
    assert!(fs::metadata(&stepped)?.blocks() * 512 < 40 * MIB, "a grown disk is sparse");
    // The same again changes nothing.
    let before = fs::metadata(&stepped)?.len();
    grow(&stepped, before)?;
    fsck(&stepped)?;
    for from in [128 * MIB + 4096, 256 * MIB - 4096, 8 << 30] {
        let disk = upper(from)?;
        grow(&disk, 20 << 30)?;
        fsck(&disk)?;
    }
    Ok(())
}

/// On a tmpfs, because ext4 itself holds no file of that size.
pub(crate) fn a_disk_grows_to_16_tib() -> Verdict {
    let host = Mount::new("tmpfs", "none", "size=256m")?;
    let path = host.path().join("disk");
    let rootfs = Ext4Rootfs::new().size(MAX_SIZE)?;
    let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
    rootfs.image(&merged(&[layer(20)])?, &mut file)?;
    rootfs.adapt(Role::Image, &mut file)?;
    drop(file);
    fsck(&path)?;
    host.unmount()?;
    Ok(())
}

/// Between growths the kernel writes to it, also into the new groups.
pub(crate) fn a_grown_disk_takes_writes() -> Verdict {
    let disk = smallest(&[layer(100)], &Ext4Rootfs::new())?;
    let chunk: Vec<u8> = (0..MIB).map(|at| (at % 253) as u8).collect();
    for (number, size) in [200 * MIB, 400 * MIB, 9 << 30, 40 << 30].into_iter().enumerate() {
        grow(&disk, size)?;
        fsck_used(&disk)?;
        let mount = Mount::new("ext4", &*disk, "loop")?;
        let free = rustix::fs::statvfs(mount.path())?;
        assert!(
            free.f_bavail * free.f_frsize > size / 4,
            "{} of {size} are free",
            free.f_bavail * free.f_frsize
        );
        // Most of it is only reserved.
        let large = File::create(mount.path().join(format!("large-{number}")))?;
        rustix::fs::fallocate(
            &large,
            rustix::fs::FallocateFlags::empty(),
            0,
            free.f_bavail * free.f_frsize * 9 / 10,
        )?;
        drop(large);
        for index in 0..5 {
            File::create(mount.path().join(format!("d/new-{number}-{index}")))?.write_all(&chunk)?;
        }
        mount.unmount()?;
        fsck_used(&disk)?;
    }
    let mount = Mount::new("ext4", &*disk, "loop,ro")?;
    for number in 0..4 {
        for index in 0..5 {
            assert!(fs::read(mount.path().join(format!("d/new-{number}-{index}")))? == chunk);
        }
    }
    let content: Vec<u8> = (0..99_u32).map(|at| (at % 251) as u8).collect();
    assert_eq!(fs::read(mount.path().join("d/99"))?, content);
    Ok(())
}

/// What must not be grown is refused, and no byte of it changes.
pub(crate) fn a_disk_that_is_in_use_or_unsound_does_not_grow() -> Verdict {
    let kind = |path: &Path, size: u64| {
        let before = fs::read(path).expect("the disk can be read");
        let error = grow(path, size).expect_err("it is refused");
        assert!(fs::read(path).expect("the disk can be read") == before, "{error}");
        (error.kind().clone(), error.hint().unwrap_or_default().to_owned())
    };
    for journal in [Journal::None, Journal::Auto] {
        let disk = smallest(&[layer(10)], &Ext4Rootfs::new().journal(journal)?)?;
        grow(&disk, 64 * MIB)?;
        assert_eq!(kind(&disk, 32 * MIB).0, ErrorKind::Unsupported);
        let mount = Mount::new("ext4", &*disk, "loop")?;
        fs::write(mount.path().join("d/new"), "new")?;
        // What a crash leaves: the disk as it is while it is mounted.
        rustix::fs::sync();
        let crashed = tempfile::NamedTempFile::new()?.into_temp_path();
        fs::copy(&disk, &crashed)?;
        let (kind_of, hint) = kind(&crashed, 128 * MIB);
        assert_eq!(kind_of, ErrorKind::Config);
        assert!(hint.contains("unmount"), "{hint}");
        mount.unmount()?;
        grow(&disk, 128 * MIB)?;
        fsck_used(&disk)?;
        // Repaired by e2fsck, it grows.
        let repaired = Run::new("e2fsck").arg("-fy").arg(&*crashed).output()?;
        assert!(repaired.status.code().is_some_and(|code| code <= 1), "{repaired}");
        grow(&crashed, 128 * MIB)?;
        fsck_used(&crashed)?;
    }
    let sound = smallest(&[layer(10)], &Ext4Rootfs::new())?;
    let bytes = fs::read(&sound)?;
    // In the superblock, in the last group's descriptor, in its bitmap.
    for (at, expected) in [
        (1024 + 0x20, ErrorKind::Corrupt),
        (4096 + 5, ErrorKind::Corrupt),
        (2 * 4096 + 9, ErrorKind::Corrupt),
        (1024 + 0x38, ErrorKind::Corrupt),
    ] {
        let damaged = tempfile::NamedTempFile::new()?.into_temp_path();
        fs::write(&damaged, &bytes)?;
        let file = File::options().write(true).open(&damaged)?;
        file.write_all_at(&[bytes[at] ^ 1], at as u64)?;
        assert_eq!(kind(&damaged, 1 << 30).0, expected, "byte {at}");
    }
    // Something behind it.
    let longer = tempfile::NamedTempFile::new()?.into_temp_path();
    fs::write(&longer, [&bytes[..], &[0; 5000], b"x"].concat())?;
    assert_eq!(kind(&longer, 1 << 30).0, ErrorKind::Config);
    // Another maker's.
    let other = tempfile::NamedTempFile::new()?;
    other.as_file().set_len(64 * MIB)?;
    Run::new("mke2fs").args(["-q", "-t", "ext4"]).arg(other.path()).success()?;
    let (kind_of, hint) = kind(other.path(), 128 * MIB);
    assert_eq!((kind_of, hint.contains("resize2fs")), (ErrorKind::Unsupported, true));
    Ok(())
}
