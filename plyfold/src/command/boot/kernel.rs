//! The kernel of the virtual machine, and its modules.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::disk_file::open_error;
use crate::{Error, Result};

/// What a guest needs of its kernel: the disks, and the file systems on them, with what these may need.
const MODULES: [&str; 24] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "crc16",
    "crc32c_generic",
    "libcrc32c",
    "mbcache",
    "jbd2",
    "ext4",
    "sha256_generic",
    "dm_mod",
    "dm_bufio",
    "reed_solomon",
    "dm_verity",
    "lz4_decompress",
    "zstd_decompress",
    "fscache",
    "netfs",
    "cachefiles",
    "erofs",
    "overlay",
];

/// Finds the kernel: the given one, that which runs here, or the newest one that can be read.
///
/// # Errors
/// [`NotFound`](crate::ErrorKind::NotFound) with the places where it was looked for, and those of opening a given one.
pub(super) fn find(given: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(file) = given {
        return readable(&file);
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    find_in(Path::new("/"), release.trim())
}

/// A file that can be opened, by its absolute path: it is then no option and no protocol of QEMU's.
pub(super) fn readable(file: &Path) -> Result<PathBuf> {
    let opened = File::open(file).and_then(|_| std::path::absolute(file));
    opened.map_err(|e| {
        open_error("opening a file for the virtual machine", e).with_context("path", file.display())
    })
}

fn find_in(root: &Path, release: &str) -> Result<PathBuf> {
    let boot = root.join("boot");
    let mut places =
        vec![boot.join(format!("vmlinuz-{release}")), root.join("lib/modules").join(release).join("vmlinuz")];
    let mut others: Vec<PathBuf> = fs::read_dir(&boot)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz-"))
        .map(|entry| entry.path())
        .collect();
    others.sort_by_key(|path| fs::metadata(path).and_then(|data| data.modified()).ok());
    places.extend(others.into_iter().rev());
    places.extend([boot.join("vmlinuz"), root.join("vmlinuz")]);
    let found = places
        .iter()
        .find(|path| File::open(path).is_ok_and(|file| file.metadata().is_ok_and(|data| data.is_file())));
    found.cloned().ok_or_else(|| {
        let places: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
        Error::not_found("no kernel for the virtual machine can be read")
            .with_context("looked for", places.join(", "))
            .with_hint("give one by --kernel FILE")
    })
}

/// The folder with the modules of a kernel: of its package, where that was unpacked, or of this machine. A kernel that has
/// everything built in has none.
pub(super) fn modules(kernel: &Path) -> Option<PathBuf> {
    let kernel = fs::canonicalize(kernel).ok()?;
    let release = release(&kernel)?;
    let folder = kernel.parent()?;
    let near =
        ["../usr/lib/modules", "../lib/modules", "lib/modules", "modules"].map(|near| folder.join(near));
    let places = near.into_iter().chain(["/lib/modules".into(), "/usr/lib/modules".into()]);
    places.map(|place| place.join(&release)).find(|place| place.is_dir())
}

/// The release of a kernel: from its header (`Documentation/arch/x86/boot.rst`, `kernel_version`), else from its name.
fn release(kernel: &Path) -> Option<String> {
    let in_name = || {
        let name = kernel.file_name()?.to_str()?;
        name.split_once('-').map(|(_, release)| release.to_owned())
    };
    File::open(kernel).and_then(|file| in_header(&file)).ok().flatten().or_else(in_name)
}

fn in_header(file: &File) -> io::Result<Option<String>> {
    let mut header = [0; 0x10];
    file.read_exact_at(&mut header, 0x202)?;
    let place = u16::from_le_bytes([header[0xc], header[0xd]]);
    if !header.starts_with(b"HdrS") || place == 0 {
        return Ok(None);
    }
    let mut text = [0; 256];
    let length = file.read_at(&mut text, u64::from(place) + 0x200)?;
    let word = text[..length].split(|byte| *byte == 0 || *byte == b' ').next().unwrap_or_default();
    let is_plain = !word.is_empty() && word.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'/');
    Ok(is_plain.then(|| String::from_utf8_lossy(word).into_owned()))
}

/// The files of the modules that a guest needs, in the order of [`MODULES`]. What is not there is taken to be built in.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) when the folder cannot be read.
pub(super) fn needed(folder: &Path) -> Result<Vec<PathBuf>> {
    let at = |e| Error::io("looking for modules", e).with_context("path", folder.display());
    let mut found: Vec<(usize, PathBuf)> = Vec::new();
    let mut folders = vec![folder.join("kernel")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(at)? {
            let entry = entry.map_err(at)?;
            if entry.file_type().map_err(at)?.is_dir() {
                folders.push(entry.path());
                continue;
            }
            let name = entry.file_name().to_string_lossy().replace('-', "_");
            let Some((name, _)) = name.split_once(".ko") else { continue };
            found
                .extend(MODULES.iter().position(|module| *module == name).map(|index| (index, entry.path())));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn bz_image(release: &str) -> Vec<u8> {
        let mut bytes = vec![0; 0x600];
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&0x300_u16.to_le_bytes());
        bytes[0x500..0x500 + release.len()].copy_from_slice(release.as_bytes());
        bytes
    }

    #[test]
    fn the_running_kernel_is_first_and_the_newest_one_next() {
        let root = tempfile::tempdir().unwrap();
        let error = find_in(root.path(), "6.12").unwrap_err();
        assert!(error.context("looked for").unwrap().contains("/boot/vmlinuz-6.12, "), "{error:?}");
        write(&root.path().join("vmlinuz"), b"");
        assert_eq!(find_in(root.path(), "6.12").unwrap(), root.path().join("vmlinuz"));
        for (name, age) in [("boot/vmlinuz-6.9", 10), ("boot/vmlinuz-6.10", 20), ("boot/vmlinuz-6.12", 5)] {
            write(&root.path().join(name), b"");
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(age);
            File::open(root.path().join(name)).unwrap().set_modified(time).unwrap();
        }
        assert_eq!(find_in(root.path(), "6.12").unwrap(), root.path().join("boot/vmlinuz-6.12"));
        assert_eq!(find_in(root.path(), "6.6").unwrap(), root.path().join("boot/vmlinuz-6.10"));
    }

    #[test]
    fn modules_are_those_of_the_release_in_the_header() {
        let root = tempfile::tempdir().unwrap();
        let kernel = root.path().join("boot/vmlinuz");
        write(&kernel, &bz_image("6.12.1+x (gcc) #1"));
        assert_eq!(modules(&kernel), None);
        let folder = root.path().join("usr/lib/modules/6.12.1+x");
        for name in ["kernel/fs/erofs/erofs.ko.xz", "kernel/a/virtio-blk.ko", "kernel/fs/ext2/ext2.ko"] {
            write(&folder.join(name), b"");
        }
        let found = fs::canonicalize(modules(&kernel).unwrap()).unwrap();
        assert_eq!(found, fs::canonicalize(&folder).unwrap());
        let names: Vec<_> =
            needed(&found).unwrap().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["virtio-blk.ko", "erofs.ko.xz"]);
        // Another architecture's kernel has its release in its name alone.
        let other = root.path().join("boot/vmlinuz-6.12.1+x");
        write(&other, &[0; 0x600]);
        assert!(modules(&other).is_some());
        write(&kernel, &bz_image("../../etc"));
        assert_eq!(modules(&kernel), None);
    }
}
