//! A program of this machine with its libraries, for a guest that has none.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::{Error, Result};
use tokio::process::Command;

use super::cpio::{Archive, content};

/// The folder of a guest that has a program, its loader and its libraries.
const FOLDER: &str = "programs";
/// The longest name of a loader that is read, in bytes: that of the longest path.
const LONGEST_NAME: usize = 4096;

/// A program, and what it needs to run.
#[derive(Debug)]
pub(super) struct LinkedProgram {
    name: &'static str,
    path: PathBuf,
    /// Its loader, and its libraries by the names that the loader looks for; `None` for a static program.
    loader: Option<(PathBuf, Vec<(String, PathBuf)>)>,
}

impl LinkedProgram {
    /// Asks the program's loader which libraries it would load.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a program of another machine, and where a library is missing;
    /// [`Io`](crate::ErrorKind::Io).
    pub(super) async fn read(name: &'static str, path: PathBuf) -> Result<Self> {
        let at = |e: Error| e.with_context("path", path.display());
        let found = File::open(&path).and_then(|file| linking(&file));
        let loader = match found.map_err(|e| at(Error::io("reading a program for the guest", e)))? {
            Linking::Foreign => return Err(at(Error::unsupported("the program does not run on x86-64"))),
            Linking::Static => None,
            Linking::Loader(loader) => {
                let mut command = Command::new(&loader);
                let said = command.arg("--list").arg(&path).kill_on_drop(true).output().await;
                let said = said.map_err(|e| at(Error::io("asking for the libraries of a program", e)))?;
                let libraries = libraries(&said.stdout).filter(|_| said.status.success());
                let missing = || Error::unsupported("the libraries of the program are not found");
                Some((loader, libraries.ok_or_else(|| at(missing()))?))
            }
        };
        Ok(Self { name, path, loader })
    }

    /// Adds it as a command of the guest's.
    pub(super) fn add_to(&self, archive: &mut Archive) -> Result<()> {
        let name = self.name;
        let Some((loader, libraries)) = &self.loader else {
            archive.program(&format!("bin/{name}"), &content(&self.path)?);
            return Ok(());
        };
        archive.directory(FOLDER);
        archive.program(&format!("{FOLDER}/{name}"), &content(&self.path)?);
        archive.program(&format!("{FOLDER}/loader"), &content(loader)?);
        for (name, path) in libraries {
            archive.program(&format!("{FOLDER}/{name}"), &content(path)?);
        }
        let script =
            format!("#!/bin/sh\nexec /{FOLDER}/loader --library-path /{FOLDER} /{FOLDER}/{name} \"$@\"\n");
        archive.program(&format!("bin/{name}"), script.as_bytes());
        Ok(())
    }
}

/// How a program is started.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Linking {
    /// It is no program of x86-64.
    Foreign,
    /// By itself.
    Static,
    /// By this loader.
    Loader(PathBuf),
}

/// Whether it is a program of x86-64 (ELF, `e_machine` 62), and which interpreter it asks for (`PT_INTERP`).
pub(super) fn linking(file: &File) -> io::Result<Linking> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)?;
    let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    // 64-bit, little-endian, x86-64.
    if header[..6] != *b"\x7fELF\x02\x01" || word(18) != 62 {
        return Ok(Linking::Foreign);
    }
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    let table = number(&header[32..40]);
    let (size, count) = (u64::from(word(54)), u64::from(word(56)));
    for index in 0..count {
        let mut entry = [0; 40];
        file.read_exact_at(&mut entry, table.saturating_add(index * size))?;
        if entry[..4] == [3, 0, 0, 0] {
            let length = usize::try_from(number(&entry[32..40])).unwrap_or(usize::MAX);
            let mut name = vec![0; length.min(LONGEST_NAME)];
            file.read_exact_at(&mut name, number(&entry[8..16]))?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            return Ok(Linking::Loader(OsStr::from_bytes(name).into()));
        }
    }
    Ok(Linking::Static)
}

/// What a loader lists by `--list`, one a line: `NAME => PATH (ADDRESS)`. The loader itself and what the kernel gives have
/// no arrow. `None` when one is not found.
fn libraries(said: &[u8]) -> Option<Vec<(String, PathBuf)>> {
    let lines = said.split(|byte| *byte == b'\n').filter_map(|line| {
        let arrow = line.windows(4).position(|window| window == b" => ")?;
        Some((line[..arrow].trim_ascii(), &line[arrow + 4..]))
    });
    let library = |(name, rest): (&[u8], &[u8])| {
        let end = rest.windows(2).rposition(|window| window == b" (").unwrap_or(rest.len());
        let path = Path::new(OsStr::from_bytes(&rest[..end]));
        let name = Path::new(OsStr::from_bytes(name)).file_name()?.to_str()?.to_owned();
        path.is_absolute().then(|| (name, path.to_owned()))
    };
    lines.map(library).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_path() {
        let said = b"\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/a b/libc.so.6 (0x00007f00)\n\t/lib64/ld.so.2 (0x1)\n";
        let expected = vec![("libc.so.6".to_owned(), PathBuf::from("/lib/a b/libc.so.6"))];
        assert_eq!(libraries(said), Some(expected));
        assert_eq!(libraries(b"\tliba.so.1 => not found\n"), None);
        assert_eq!(libraries(b"\tstatically linked\n"), Some(Vec::new()));
    }

    #[tokio::test]
    async fn a_program_comes_with_its_libraries() {
        // This test is linked with libraries, or with none at all.
        let path = std::env::current_exe().unwrap();
        let program = LinkedProgram::read("test", path).await.unwrap();
        let mut archive = Archive::default();
        program.add_to(&mut archive).unwrap();
        let bytes = archive.finish();
        let has = |name: &str| bytes.windows(name.len()).any(|window| window == name.as_bytes());
        assert!(has("bin/test\0"));
        assert_eq!(program.loader.is_some(), has("programs/loader\0"));
        assert!(
            program
                .loader
                .is_none_or(|(_, libraries)| libraries.iter().any(|(name, _)| name.starts_with("libc.")))
        );
        let error = LinkedProgram::read("test", "/etc/passwd".into()).await.unwrap_err();
        assert_eq!(*error.kind(), crate::ErrorKind::Unsupported);
    }
}
