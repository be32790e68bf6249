//! The programs of others that a virtual machine needs.

use std::env;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// QEMU for amd64.
const QEMU: &str = "qemu-system-x86_64";
/// Where busybox is if it is not in `PATH`.
const BUSYBOX: [&str; 3] = ["/bin/busybox", "/usr/sbin/busybox", "/usr/lib/initramfs-tools/bin/busybox"];

/// Finds QEMU in `PATH`.
pub(super) fn qemu() -> Result<PathBuf> {
    let found = in_path(QEMU).next();
    found.ok_or_else(|| {
        let packages = "install it (qemu-system-x86 on Debian, qemu-system-x86-core on Fedora)";
        Error::not_found(format!("{QEMU} is not in PATH")).with_hint(packages)
    })
}

/// Finds a busybox that runs without libraries, which the initramfs has none of.
pub(super) fn busybox() -> Result<PathBuf> {
    let places = in_path("busybox").chain(BUSYBOX.map(PathBuf::from));
    let found =
        places.into_iter().find(|path| File::open(path).and_then(|file| is_static(&file)).unwrap_or(false));
    found.ok_or_else(|| {
        let message = format!("no static busybox is in PATH, nor one of {}", BUSYBOX.join(", "));
        Error::not_found(message).with_hint("install busybox-static, or give an initramfs by --initrd FILE")
    })
}

fn in_path(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
    let name = name.to_owned();
    folders.into_iter().map(move |folder| folder.join(&name)).filter(|path| Path::is_file(path))
}

/// Whether it is a program of x86-64 (ELF, `e_machine` 62) that asks for no interpreter (`PT_INTERP`).
fn is_static(file: &File) -> io::Result<bool> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)?;
    let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    // 64-bit, little-endian, x86-64.
    if header[..6] != *b"\x7fELF\x02\x01" || word(18) != 62 {
        return Ok(false);
    }
    let table = u64::from_le_bytes(header[32..40].try_into().unwrap_or_default());
    let (size, count) = (u64::from(word(54)), u64::from(word(56)));
    for index in 0..count {
        let mut kind = [0; 4];
        file.read_exact_at(&mut kind, table.saturating_add(index * size))?;
        if u32::from_le_bytes(kind) == 3 {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn program(headers: &[u32]) -> File {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18] = 62;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = u8::try_from(headers.len()).unwrap();
        for kind in headers {
            bytes.extend(kind.to_le_bytes());
            bytes.extend([0; 52]);
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn a_program_with_an_interpreter_is_not_static() {
        assert!(is_static(&program(&[1, 1, 4])).unwrap());
        assert!(!is_static(&program(&[6, 3, 1])).unwrap());
        let mut script = tempfile::tempfile().unwrap();
        script.write_all(&[b'#'; 100]).unwrap();
        assert!(!is_static(&script).unwrap());
        assert!(is_static(&tempfile::tempfile().unwrap()).is_err());
    }
}
