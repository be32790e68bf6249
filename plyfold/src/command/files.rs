//! `ls` and `cat`: the files of an image or of a disk, without mounting it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufWriter, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::blocking::{Stop, blocking};
use crate::disk_file::{self, format_of};
use crate::files::{FileInfo, FileType, Files, FilesFault};
use crate::{Error, PullOptions, Result, printable, shell};

use super::args::{Cat, Ls};
use super::listed::{JsonList, TextList, escaped};
use super::pipe::Pipe;
use super::reading::Reading;
use super::session::Session;
use super::terminal::Terminal;
use super::vmdk_parts::with_descriptor;

/// Bytes gathered before they are written to standard output.
const GATHER: usize = 256 << 10;
/// Endings of names that disks have and images have not.
const DISKS: [&str; 5] = ["erofs", "ext4", "gpt", "raw", "vmdk"];
/// How a superblock of dm-verity begins.
const TREE: &[u8] = b"verity\0\0";

/// Lists files: those in a directory, all below it, or the one file that is named.
pub(crate) async fn ls(
    session: impl Future<Output = Result<Session>>,
    image: OsString,
    options: Ls,
    terminal: Terminal,
) -> Result<()> {
    let Ls { path, long, recursive, reading, .. } = options;
    let path = path.map_or_else(|| b"/".to_vec(), |path| path.as_bytes().to_vec());
    let list = move |files: &mut dyn Files, stop: &Stop| {
        let mut pipe = Pipe::new(stop);
        let out = BufWriter::with_capacity(GATHER, &mut pipe);
        let listed = if terminal.json {
            let mut list = JsonList::new(out);
            walk(files, &path, long, recursive, |path, info| list.put(path, info)).and_then(|()| list.end())
        } else {
            let mut list = TextList::new(out, long);
            walk(files, &path, long, recursive, |path, info| list.put(path, info)).and_then(|()| list.end())
        };
        pipe.outcome(listed)
    };
    with(&image, reading, session, list).await
}

/// Shows the files to `show`, each by its path from the root of what is listed: names alone in a directory.
fn walk(
    files: &mut dyn Files,
    path: &[u8],
    long: bool,
    recursive: bool,
    mut show: impl FnMut(&[u8], &FileInfo) -> Result<()>,
) -> Result<()> {
    // As `ls` does it: a link to a directory is the directory, but with `-l` it is the link.
    let found = files.file(path, !long);
    let is_dangling = |e: &Error| matches!(e.detail(), Some(FilesFault::Missing(_)));
    let found = match found {
        Err(e) if !long && is_dangling(&e) => files.file(path, false)?,
        found => found?,
    };
    if found.kind != FileType::Directory {
        return show(path, &found);
    }
    let mut pending = vec![(path.to_vec(), Vec::new())];
    while let Some((directory, below)) = pending.pop() {
        let mut directories = Vec::new();
        for info in files.list(&directory)? {
            let shown = joined(&below, &info.name);
            show(&shown, &info)?;
            if recursive && info.kind == FileType::Directory {
                directories.push((joined(&directory, &info.name), shown));
            }
        }
        pending.extend(directories.into_iter().rev());
    }
    Ok(())
}

fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let slash = !directory.is_empty() && !directory.ends_with(b"/");
    [directory, if slash { b"/" } else { b"" }, name].concat()
}

/// Writes the content of files to standard output, one after the other.
pub(crate) async fn cat(
    session: impl Future<Output = Result<Session>>,
    options: Cat,
    terminal: Terminal,
) -> Result<()> {
    let Cat { image, paths, reading } = options;
    if terminal.json {
        return Err(Error::config("--json has no form for the content of a file"));
    }
    let copy = move |files: &mut dyn Files, stop: &Stop| {
        let mut pipe = Pipe::new(stop);
        let mut out = BufWriter::with_capacity(GATHER, &mut pipe);
        let failed = |e| Error::io("writing to standard output", e);
        let copied = paths.iter().try_for_each(|path| {
            files.read(path.as_bytes(), &mut |bytes| out.write_all(bytes).map_err(failed))
        });
        // Also what was read before an error.
        let written = out.flush().map_err(failed);
        drop(out);
        pipe.outcome(copied.and(written))
    };
    with(&image, reading, session, copy).await
}

/// Runs work with the files of a disk or of an image, which is pulled if need be, on a thread that may wait.
async fn with(
    of: &OsStr,
    reading: Reading,
    session: impl Future<Output = Result<Session>>,
    work: impl FnOnce(&mut dyn Files, &Stop) -> Result<()> + Send + 'static,
) -> Result<()> {
    let done = if let Some(path) = disk(of)? {
        // Needs no store.
        let shown = path.display().to_string();
        let done = blocking(move |stop| work(&mut *disk_file::files(&path)?, stop)).await;
        done.map_err(|e| e.with_context("path", shown))
    } else {
        let Some(image) = of.to_str() else {
            return Err(Error::config("the name of an image is not UTF-8").with_image(escaped(of.as_bytes())));
        };
        let session = session.await?;
        let image = session.read(image, reading.policy.map(Into::into), PullOptions::default()).await?;
        let mut files = session.images.files(&image, reading.bounds.layer()).await?;
        let done = blocking(move |stop| work(&mut files, stop)).await;
        done.map_err(|e| e.with_image(&image.reference))
    };
    let path = Path::new(of);
    let of = shell::quoted(path);
    done.map_err(|e| with_descriptor(e, path, "ls")).map_err(|e| match e.detail() {
        Some(FilesFault::Missing(_)) => e.with_hint(format!("`plyfold ls -R {of}` lists what is there")),
        Some(FilesFault::Directory(path)) => {
            let hint = format!("`plyfold ls {of} {}` lists what is in it", shell::word(path));
            e.with_hint(hint)
        }
        _ => e,
    })
}

/// The path of a disk, if the argument is one: what a file holds decides, where there is one.
pub(crate) fn disk(of: &OsStr) -> Result<Option<PathBuf>> {
    let path = Path::new(of);
    let has_ending = path.extension().is_some_and(|ending| DISKS.iter().any(|disk| ending == *disk));
    if !path.exists() {
        // `ghcr.io/org/app:1.erofs` may be a name in a registry.
        return Ok(None);
    }
    match format_of(path)? {
        None if has_ending && path.is_file() => Err(Error::corrupt(
            "the file is none of the disks that are known",
        )
        .with_context("path", printable(&path.to_string_lossy()))
        .with_hint(
            "EROFS images, ext4 file systems, VMDKs and disks with partitions are known by their first bytes",
        )),
        None if let Some(refusal) = of_tree(path)? => Err(refusal),
        None => Ok(None),
        Some(_) => Ok(Some(path.to_owned())),
    }
}

/// Refuses the files of hash trees, which no file is in.
fn of_tree(path: &Path) -> Result<Option<Error>> {
    if !path.is_file() {
        return Ok(None);
    }
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(TREE.len() as u64).read_to_end(&mut start));
    read.map_err(|e| Error::io("reading a file", e).with_context("path", path.display()))?;
    let (why, hint) = if start == TREE {
        (
            "the file is a dm-verity hash tree, and no disk",
            "`plyfold verity FILE --hash-tree TREE --check ROOT` verifies the disk that it is of",
        )
    } else if path.extension().is_some_and(|ending| ending == "dmverity") {
        (
            "the file says where the hash tree of a disk is, and is no disk",
            "`plyfold inspect FILE` shows the disk that it is of, `plyfold verity FILE --check ROOT` verifies that",
        )
    } else {
        return Ok(None);
    };
    let error = Error::config(why).with_context("path", printable(&path.to_string_lossy()));
    Ok(Some(error.with_hint(hint)))
}
