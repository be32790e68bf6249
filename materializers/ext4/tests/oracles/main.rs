//! Disks as e2fsck, resize2fs and the kernel see them. Here: the empty upper.

#[path = "../common/mod.rs"]
mod common;
mod damaged;
mod files;
mod journal;
mod newest;
mod resize;
mod rootfs;
mod suite;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use damaged::a_damaged_disk_is_the_same_to_the_kernel;
use files::{
    a_summary_is_what_dumpe2fs_says, files_are_those_that_mke2fs_wrote,
    files_are_those_that_the_kernel_wrote, names_are_found_by_each_hash,
};
use journal::{
    a_journal_of_the_kernel_is_read_as_if_it_was_replayed, fast_commits_and_journals_elsewhere_are_refused,
    journals_of_all_versions_are_read_as_e2fsck_replays_them,
};
use newest::{
    NEWEST_E2FSCK, the_newest_e2fsck_finds_nothing_in_a_used_disk,
    the_newest_e2fsck_finds_nothing_in_an_image, the_newest_e2fsck_finds_nothing_in_an_upper,
};
use plyfold_conformance::oracle::{Failure, Mount, Need, Run, Verdict};
use plyfold_conformance::oracle_tests;
use plyfold_core::Materializer as _;
use plyfold_core::layer::{Metadata, Timestamp};
use plyfold_ext4::{Ext4Upper, MAX_SIZE, MIN_SIZE};
use resize::{
    a_disk_grows_by_any_number_of_groups, a_disk_grows_to_16_tib,
    a_disk_that_is_in_use_or_unsound_does_not_grow, a_grown_disk_takes_writes,
};
use rootfs::{
    a_directory_of_100_000_names_takes_more, a_populated_disk_takes_writes, attributes_of_any_size_are_held,
    directories_of_any_size_are_found_by_name, every_kind_of_file_is_held, files_with_holes_are_held,
    the_files_of_an_image_stay_where_e2fsck_looks,
};
use suite::{the_suite_on_whole_images, the_suite_through_the_kernel};
use tempfile::TempPath;

oracle_tests! {
    fsck_is_clean needs [Need::E2FSCK];
    fsck_is_clean_at_16_tib needs [Need::E2FSCK, Need::Mounts];
    dumpe2fs_reads_what_was_meant needs [Need::Tool { name: "dumpe2fs", package: "e2fsprogs" }];
    a_lost_superblock_comes_back_from_the_backup needs [Need::E2FSCK];
    a_disk_grows_with_resize2fs needs [Need::E2FSCK, Need::Tool { name: "resize2fs", package: "e2fsprogs" }];
    ext4_upper_takes_writes_64_mib needs [Need::E2FSCK, EXT4, Need::Mounts];
    ext4_upper_takes_writes_1_gib needs [Need::E2FSCK, EXT4, Need::Mounts];
    ext4_upper_takes_writes_1_tib needs [Need::E2FSCK, EXT4, Need::Mounts];
    the_kernel_sees_the_root_metadata needs [EXT4, Need::Mounts];
    the_suite_through_the_kernel needs [Need::E2FSCK, EXT4, Need::Mounts];
    the_suite_on_whole_images needs [Need::E2FSCK, EXT4, Need::Mounts];
    every_kind_of_file_is_held needs [Need::E2FSCK, EXT4, Need::Mounts, Need::GNU_TAR];
    the_files_of_an_image_stay_where_e2fsck_looks needs [Need::E2FSCK, EXT4, Need::Mounts];
    directories_of_any_size_are_found_by_name needs
        [Need::E2FSCK, DEBUGFS, EXT4, Need::Mounts, Need::GNU_TAR];
    a_directory_of_100_000_names_takes_more needs [Need::E2FSCK, EXT4, Need::Mounts];
    attributes_of_any_size_are_held needs [Need::E2FSCK, EXT4, Need::Mounts];
    files_with_holes_are_held needs [Need::E2FSCK, EXT4, Need::Mounts];
    a_populated_disk_takes_writes needs [Need::E2FSCK, EXT4, Need::Mounts];
    a_disk_grows_by_any_number_of_groups needs [Need::E2FSCK];
    a_disk_grows_to_16_tib needs [Need::E2FSCK, Need::Mounts];
    a_grown_disk_takes_writes needs [Need::E2FSCK, EXT4, Need::Mounts];
    a_disk_that_is_in_use_or_unsound_does_not_grow needs [Need::E2FSCK, MKE2FS, EXT4, Need::Mounts];
    files_are_those_that_the_kernel_wrote needs [EXT4, Need::Mounts];
    files_are_those_that_mke2fs_wrote needs [MKE2FS];
    a_damaged_disk_is_the_same_to_the_kernel needs
        [MKE2FS, DEBUGFS, Need::E2FSCK, EXT4, Need::Mounts];
    a_journal_of_the_kernel_is_read_as_if_it_was_replayed needs [MKE2FS, DEBUGFS, EXT4, Need::Mounts];
    journals_of_all_versions_are_read_as_e2fsck_replays_them needs [MKE2FS, DEBUGFS, Need::E2FSCK];
    fast_commits_and_journals_elsewhere_are_refused needs [MKE2FS, EXT4, Need::Mounts];
    names_are_found_by_each_hash needs
        [MKE2FS, DEBUGFS, Need::Tool { name: "tune2fs", package: "e2fsprogs" }, EXT4, Need::Mounts];
    a_summary_is_what_dumpe2fs_says needs [Need::Tool { name: "dumpe2fs", package: "e2fsprogs" }];
    the_newest_e2fsck_finds_nothing_in_an_upper needs [NEWEST_E2FSCK];
    the_newest_e2fsck_finds_nothing_in_an_image needs [NEWEST_E2FSCK];
    the_newest_e2fsck_finds_nothing_in_a_used_disk needs [NEWEST_E2FSCK, EXT4, Need::Mounts];
    overlayfs_takes_the_disk needs [Need::E2FSCK, EXT4, Need::KERNEL_OVERLAY, Need::Mounts];
}

const DEBUGFS: Need = Need::Tool { name: "debugfs", package: "e2fsprogs" };
const EXT4: Need = Need::FileSystem("ext4");
const MKE2FS: Need = Need::Tool { name: "mke2fs", package: "e2fsprogs" };
const MIB: u64 = 1 << 20;

fn disk(upper: &Ext4Upper) -> Result<TempPath, Failure> {
    let mut file = tempfile::NamedTempFile::new()?;
    upper.join(&[], file.as_file_mut())?;
    Ok(file.into_temp_path())
}

/// Clean also means: nothing to say. What e2fsck would repair silently, it reports with `-n`.
fn fsck(disk: &Path) -> Verdict {
    clean_by("e2fsck", disk)
}

fn clean_by(e2fsck: &str, disk: &Path) -> Verdict {
    let said = Run::new(e2fsck).arg("-fn").arg(disk).success()?;
    let expected = |line: &str| line.starts_with("Pass ") || line.contains(" files (");
    match said.stdout.lines().find(|line| !expected(line)) {
        Some(line) => Err(Failure::new(format!("e2fsck says {line:?}\n{said}"))),
        None => Ok(()),
    }
}

/// Metadata with attributes that fit into the inode (`note` of 8 bytes) or need a block (more).
fn root(note: usize) -> Metadata {
    let acl: Vec<u8> =
        [(1, 7, u32::MAX), (2, 5, 1000), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 1, u32::MAX)]
            .iter()
            .flat_map(|(tag, permissions, id)| [*tag, *permissions, *id as u16, (id >> 16) as u16])
            .flat_map(u16::to_le_bytes)
            .collect();
    Metadata {
        mode: 0o1771,
        uid: 100_000,
        gid: 0xffff_fffe,
        mtime: Timestamp { seconds: 5_000_000_000, nanos: 999_999_999 },
        xattrs: vec![
            (b"security.plyfold".to_vec(), b"label\0".to_vec()),
            (b"system.posix_acl_default".to_vec(), [&2_u32.to_le_bytes()[..], &acl].concat()),
            ("user.\u{e9}".into(), vec![b'x'; note]),
        ],
    }
}

fn fsck_is_clean() -> Verdict {
    // Around each boundary of the layout: one group, a guest in group 0, a short last group, a backup.
    let group = 128 * MIB;
    let metadata = 514 * 4096;
    let sizes = [
        MIN_SIZE,
        group,
        group + 4096,
        group + metadata - 4096,
        group + metadata,
        2 * group - 4096,
        2 * group,
        2 * group + 4096,
        3 * group + metadata + 4096,
        1 << 30,
        (1 << 30) + 4096,
        8 << 30,
        1 << 40,
    ];
    for size in sizes {
        let plain = Ext4Upper::new(size)?;
        for upper in [
            plain.clone(),
            plain.clone().journal(false),
            plain.clone().root(root(8))?,
            plain.root(root(900))?,
        ] {
            fsck(&disk(&upper)?).map_err(|e| Failure::new(format!("{upper:?}: {e:?}")))?;
        }
    }
    Ok(())
}

/// On a tmpfs, because ext4 itself holds no file of that size.
fn fsck_is_clean_at_16_tib() -> Verdict {
    let host = Mount::new("tmpfs", "none", "size=64m")?;
    let path = host.path().join("disk");
    let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
    Ext4Upper::new(MAX_SIZE)?.join(&[], &mut file)?;
    drop(file);
    fsck(&path)?;
    host.unmount()?;
    Ok(())
}

/// What e2fsck does not check: features, no lazy initialisation, the kernel's short cut to `df`'s sizes.
fn dumpe2fs_reads_what_was_meant() -> Verdict {
    let upper = Ext4Upper::new(1 << 30)?.uuid(*b"0123456789abcdef").label("a label")?;
    let said = Run::new("dumpe2fs").arg(&*disk(&upper)?).success()?;
    let value = |key: &str| {
        let line = said.stdout.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.map(str::trim).ok_or_else(|| Failure::new(format!("no {key} in\n{said}")))
    };
    for (key, expected) in [
        ("Filesystem volume name", "a label"),
        ("Filesystem UUID", "30313233-3435-3637-3839-616263646566"),
        (
            "Filesystem features",
            "has_journal ext_attr dir_index sparse_super2 filetype extent 64bit flex_bg large_file huge_file \
             dir_nlink extra_isize metadata_csum",
        ),
        ("Filesystem state", "clean"),
        ("Backup block groups", "1"),
        ("Journal features", "journal_64bit journal_checksum_v3"),
        ("Total journal size", "32M"),
    ] {
        assert_eq!(value(key)?, expected, "{key}");
    }
    let number = |key: &str| Ok::<u64, Failure>(value(key)?.parse()?);
    let directories = 4;
    let used = number("Overhead clusters")? + directories;
    assert_eq!(number("Block count")? - number("Free blocks")?, used);
    let groups: Vec<_> = said.stdout.lines().filter(|line| line.contains("(Blocks ")).collect();
    assert_eq!(groups.len(), 8);
    assert!(groups.iter().all(|group| group.contains("ITABLE_ZEROED")), "{groups:?}");
    assert!(groups[1..7].iter().all(|group| group.contains("BLOCK_UNINIT")), "{groups:?}");
    Ok(())
}

fn a_lost_superblock_comes_back_from_the_backup() -> Verdict {
    let disk = disk(&Ext4Upper::new(256 * MIB)?)?;
    File::options().write(true).open(&disk)?.write_all_at(&[0; 8192], 0)?;
    // 1: errors corrected.
    let said = Run::new("e2fsck").args(["-fy", "-b", "32768", "-B", "4096"]).arg(&disk).output()?;
    assert_eq!(said.status.code(), Some(1), "{said}");
    fsck(&disk)
}

fn a_disk_grows_with_resize2fs() -> Verdict {
    for (from, to) in [(MIN_SIZE, 5 << 30), (128 * MIB + 4096, 300 * MIB), (1 << 30, 20 << 30)] {
        let disk = disk(&Ext4Upper::new(from)?)?;
        File::options().write(true).open(&disk)?.set_len(to)?;
        fsck(&disk)?;
        Run::new("resize2fs").arg("-f").arg(&disk).success()?;
        Run::new("e2fsck").arg("-fn").arg(&disk).success()?;
    }
    Ok(())
}

fn ext4_upper_takes_writes_64_mib() -> Verdict {
    takes_writes(64 * MIB, 9, 10)
}

fn ext4_upper_takes_writes_1_gib() -> Verdict {
    takes_writes(1 << 30, 9, 10)
}

/// 90 % of a sparse TiB does not fit onto most hosts: that much of it is preallocated instead of written.
fn ext4_upper_takes_writes_1_tib() -> Verdict {
    let disk = disk(&Ext4Upper::new(1 << 40)?)?;
    let mount = Mount::new("ext4", &*disk, "loop")?;
    for part in 0..9 {
        let file = File::create(mount.path().join(format!("upper/{part}")))?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 100 << 30)?;
    }
    mount.unmount()?;
    fsck_used(&disk)?;
    // The guest's lazy initialisation would write 16 GiB of inode tables.
    let allocated = fs::metadata(&disk)?.blocks() * 512;
    assert!(allocated < 64 * MIB, "{allocated} bytes allocated");
    takes_writes(1 << 40, 1, 1000)
}

fn fsck_used(disk: &Path) -> Verdict {
    Run::new("e2fsck").arg("-fn").arg(disk).success()?;
    Ok(())
}

/// Rule M 156, `ext4_upper_takes_writes`: fills a share of the disk, and reads it back from a second mount.
fn takes_writes(size: u64, share: u64, of: u64) -> Verdict {
    let disk = disk(&Ext4Upper::new(size)?)?;
    let mount = Mount::new("ext4", &*disk, "loop")?;
    let free = rustix::fs::statvfs(mount.path())?;
    let bytes = free.f_bavail * free.f_frsize / of * share;
    let chunk: Vec<u8> = (0..MIB).map(|at| (at % 251) as u8).collect();
    for index in 0..bytes / MIB {
        // Files of 1 MiB, a thousand to a folder.
        let folder = mount.path().join(format!("upper/{}", index / 1000));
        fs::create_dir_all(&folder)?;
        let mut file = File::create(folder.join(index.to_string()))?;
        file.write_all(&index.to_le_bytes())?;
        file.write_all(&chunk[8..])?;
    }
    mount.unmount()?;
    fsck_used(&disk)?;
    let mount = Mount::new("ext4", &*disk, "loop,ro")?;
    for index in 0..bytes / MIB {
        let read = fs::read(mount.path().join(format!("upper/{}/{index}", index / 1000)))?;
        assert!(read[..8] == index.to_le_bytes() && read[8..] == chunk[8..], "file {index} differs");
    }
    mount.unmount()?;
    Ok(())
}

fn the_kernel_sees_the_root_metadata() -> Verdict {
    for note in [8, 900] {
        let root = root(note);
        let disk = disk(&Ext4Upper::new(MIN_SIZE)?.root(root.clone())?)?;
        let mount = Mount::new("ext4", &*disk, "loop,ro")?;
        let upper = mount.path().join("upper");
        let seen = fs::metadata(&upper)?;
        assert_eq!((seen.mode(), seen.uid(), seen.gid()), (0o041_771, root.uid, root.gid));
        assert_eq!((seen.mtime(), seen.mtime_nsec()), (root.mtime.seconds, i64::from(root.mtime.nanos)));
        for (name, value) in &root.xattrs {
            let mut seen = vec![0; 4096];
            let length = rustix::fs::getxattr(&upper, CString::new(name.clone())?, &mut seen[..])?;
            assert_eq!(&seen[..length], value, "{}", name.escape_ascii());
        }
        let mut names: Vec<_> = fs::read_dir(mount.path())?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<Result<_, Failure>>()?;
        names.sort();
        assert_eq!(names, ["lost+found", "upper", "work"]);
    }
    Ok(())
}

fn overlayfs_takes_the_disk() -> Verdict {
    let lower = tempfile::tempdir()?;
    fs::write(lower.path().join("below"), "below")?;
    fs::write(lower.path().join("hidden"), "below")?;
    let disk = disk(&Ext4Upper::new(MIN_SIZE)?.root(root(8))?)?;
    for again in [false, true] {
        let upper = Mount::new("ext4", &*disk, "loop")?;
        let merged = Mount::overlay(&[lower.path()], Some(upper.path()))?;
        let at = |name| merged.path().join(name);
        assert_eq!(fs::metadata(merged.path())?.mode(), 0o041_771);
        if again {
            assert_eq!(fs::read(at("below"))?, b"changed");
            assert!(!at("hidden").exists());
        } else {
            assert_eq!(fs::read(at("below"))?, b"below");
            fs::write(at("below"), "changed")?;
            fs::remove_file(at("hidden"))?;
            fs::create_dir(at("new"))?;
        }
        merged.unmount()?;
        upper.unmount()?;
        fsck_used(&disk)?;
    }
    Ok(())
}
