//! The programs of others that a virtual machine needs.

use std::env;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::linked::{LinkedProgram, Linking, linking};
use crate::{Error, Result};

/// QEMU for amd64.
const QEMU: &str = "qemu-system-x86_64";
/// Opens dm-verity devices.
const VERITYSETUP: &str = "veritysetup";
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

/// Finds veritysetup, and the libraries that it needs.
pub(super) async fn veritysetup() -> Result<LinkedProgram> {
    let mut places =
        in_path(VERITYSETUP).chain(["/usr/sbin", "/sbin"].map(|at| Path::new(at).join(VERITYSETUP)));
    let found = places.find(|path| path.is_file()).ok_or_else(|| {
        Error::not_found(format!("{VERITYSETUP} is not in PATH")).with_hint(
            "install it (cryptsetup-bin on Debian, veritysetup on Fedora), or give an initramfs by --initrd FILE",
        )
    })?;
    LinkedProgram::read(VERITYSETUP, found).await
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

fn is_static(file: &File) -> io::Result<bool> {
    Ok(linking(file)? == Linking::Static)
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
        let end = 64 + 56 * headers.len() as u64;
        for kind in headers {
            bytes.extend(kind.to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(end.to_le_bytes());
            bytes.extend([0; 16]);
            bytes.extend(5_u64.to_le_bytes());
            bytes.extend([0; 16]);
        }
        bytes.extend(b"/a/b\0");
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn a_program_with_an_interpreter_is_not_static() {
        assert!(is_static(&program(&[1, 1, 4])).unwrap());
        assert_eq!(linking(&program(&[6, 3, 1])).unwrap(), Linking::Loader("/a/b".into()));
        let mut script = tempfile::tempfile().unwrap();
        script.write_all(&[b'#'; 100]).unwrap();
        assert_eq!(linking(&script).unwrap(), Linking::Foreign);
        assert!(is_static(&tempfile::tempfile().unwrap()).is_err());
    }
}
