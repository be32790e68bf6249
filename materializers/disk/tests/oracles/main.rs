//! Disks as the kernel, partitioning programs and qemu see them.

use std::fs::File;
use std::io::Write as _;

use plyfold_conformance::oracle::{Failure, LoopDevice, Mount, Need, Run, Verdict};
use plyfold_conformance::oracle_tests;
use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::{InputArtifact, Materializer as _};
use plyfold_disk::{Gpt, Raw};
use plyfold_erofs::Options;
use tempfile::TempDir;

#[path = "../common/mod.rs"]
mod common;
mod suite;

use common::{entries, layers, with_merged};
use suite::the_suite_through_the_kernel;

oracle_tests! {
    the_suite_through_the_kernel needs [
        Need::KERNEL_EROFS, Need::KERNEL_OVERLAY, Need::Mounts, Need::QEMU_IMG, Need::SFDISK, Need::SGDISK
    ];
    every_partition_is_found needs [Need::Mounts, Need::SFDISK, Need::SGDISK];
    small_blocks_mount needs [Need::KERNEL_EROFS, Need::Mounts];
    a_disk_shares_the_blocks_of_its_files needs [Need::Mounts, Need::FileSystem("xfs"), Need::MKFS_XFS];
}

/// Also in a table that has grown.
fn every_partition_is_found() -> Verdict {
    let folder = TempDir::new()?;
    let tar = LayerBuilder::new().file("f", 0o644, b"f").finish();
    let layer = layers(&[tar], folder.path(), &Options::default())?.remove(0);
    for count in [1, 128, 129, 255] {
        let path = folder.path().join(format!("{count}.gpt"));
        let mut disk = File::options().read(true).write(true).create_new(true).open(&path)?;
        Gpt::default().join(&vec![layer.clone(); count], &mut disk)?;
        suite::table_is_sound(&path)?;
        let device = LoopDevice::with_partitions(&path)?;
        for (entry, number) in entries(&disk, 1)?.iter().zip(1..) {
            let name = device.partition(number);
            let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let says = |what: &str| -> Result<u64, Failure> {
                let text = std::fs::read_to_string(format!("/sys/class/block/{name}/{what}"))?;
                text.trim().parse().map_err(|_| Failure::new(text))
            };
            let expected = (entry.first / 512, (entry.last + 1 - entry.first) / 512);
            assert_eq!((says("start")?, says("size")?), expected, "{name} of {count}");
        }
        assert!(!device.partition(count + 1).exists(), "{count}");
    }
    Ok(())
}

/// With blocks of 512 bytes a layer begins anywhere on the raw disk.
fn small_blocks_mount() -> Verdict {
    let folder = TempDir::new()?;
    let tar = |name: &str, size: usize| {
        LayerBuilder::new().file(name, 0o644, &vec![name.as_bytes()[0]; size]).finish()
    };
    let (tars, options) = ([tar("a", 700), tar("b", 5000), tar("c", 513)], Options::default());
    let mut shown = Vec::new();
    for options in [options.clone(), options.with_block_size(512)?] {
        let folder = TempDir::new_in(folder.path())?.keep();
        let layers = layers(&tars, &folder, &options)?;
        let (raw, gpt) = (folder.join("raw"), folder.join("gpt"));
        let files = with_merged(&layers, &raw, &options)?;
        let create = |path| File::options().read(true).write(true).create_new(true).open(path);
        Raw::with_block_size(512).join(&files, &mut create(&raw)?)?;
        Gpt::with_block_size(512).join(&files, &mut create(&gpt)?)?;
        shown.extend([suite::tree_of_raw(&raw)?, suite::tree_of_gpt(&gpt)?]);
    }
    assert!(
        shown[0].iter().any(|line| line.path == "/c" && line.what.starts_with("file 513 ")),
        "{:?}",
        shown[0]
    );
    assert!(shown.windows(2).all(|two| two[0] == two[1]), "{shown:?}");
    Ok(())
}

/// On a file system with reflinks.
fn a_disk_shares_the_blocks_of_its_files() -> Verdict {
    let place = TempDir::new()?;
    let volume = place.path().join("xfs");
    File::create(&volume)?.set_len(512 << 20)?;
    Run::new("mkfs.xfs").arg("-q").arg(&volume).success()?;
    let mount = Mount::new("xfs", &volume, "loop")?;
    let noise: Vec<u8> = (0..16_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let tars = [("a", &noise[..]), ("b", &noise[1..])]
        .map(|(name, content)| LayerBuilder::new().file(name, 0o644, content).finish());
    let layers = layers(&tars, mount.path(), &Options::default())?;
    let files = with_merged(&layers, &mount.path().join("disk"), &Options::default())?;
    let size: u64 = files.iter().map(|file: &InputArtifact| file.artifact.size()).sum();
    assert!(size > 32 << 20);
    let free = || -> Result<u64, Failure> {
        // What waits to be written has no blocks yet.
        rustix::fs::syncfs(File::open(mount.path())?)?;
        let found = rustix::fs::statvfs(mount.path())?;
        Ok(found.f_bfree * found.f_frsize)
    };
    for name in ["raw", "gpt"] {
        let before = free()?;
        let mut disk =
            File::options().read(true).write(true).create_new(true).open(mount.path().join(name))?;
        match name {
            "raw" => Raw::default().join(&files, &mut disk)?,
            _ => Gpt::default().join(&files, &mut disk)?,
        };
        disk.flush()?;
        let taken = before.saturating_sub(free()?);
        assert!(taken < 2 << 20, "{name} of {size} bytes takes {taken} of its own");
    }
    drop(files);
    drop(layers);
    Ok(())
}
