//! The record of what copies by plyfold have given a name in the directory, before any image there needs it. By that alone it
//! is removed when no image comes to need it: other programs write files of such names, too, and may not have ended.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use plyfold_core::{Error, Result};
use rustix::fs::OFlags;

use crate::files;

/// The file: a name and the number of its inode on each line.
pub(super) const RECORD: &str = ".plyfold-written";
/// Bytes of it that are read.
const LIMIT: u64 = 16 << 20;

/// Names of files, with the numbers of their inodes: another program may write a file of the same name.
pub(super) type Written = HashSet<(String, u64)>;

/// Records a file that is about to get this name.
pub(super) fn add(folder: &Path, name: &str, file: &File) -> Result<()> {
    let path = folder.join(RECORD);
    let writing = |e| Error::io(format!("writing {}", path.display()), e);
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let line = format!("{name} {}\n", file.metadata().map_err(writing)?.ino());
    let record = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(&path);
    let mut record = record.map_err(writing)?;
    // In one piece, also where several processes do so.
    record.write_all(line.as_bytes()).and_then(|()| record.sync_data()).map_err(writing)
}

/// What is recorded.
pub(super) fn read(folder: &Path) -> Result<Written> {
    let path = folder.join(RECORD);
    let reading = |e| Error::io(format!("reading {}", path.display()), e);
    let Some(file) = files::open(&path).map_err(reading)? else { return Ok(Written::new()) };
    let mut bytes = Vec::new();
    file.take(LIMIT).read_to_end(&mut bytes).map_err(reading)?;
    let text = String::from_utf8_lossy(&bytes);
    let line = |line: &str| {
        let (name, inode) = line.strip_suffix('\n')?.split_once(' ')?;
        Some((name.to_owned(), inode.parse().ok()?))
    };
    Ok(text.split_inclusive('\n').filter_map(line).collect())
}
