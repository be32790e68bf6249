//! The record of what copies by plyfold have given a name in the directory, before any image there needs it. By that alone it
//! is removed when no image comes to need it: other programs write files of such names, too, and may not have ended.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use plyfold_core::{Error, Result};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::files;

/// The file: a name and the number of its inode on each line.
pub(super) const RECORD: &str = ".plyfold-written";
/// Bytes of it that are read.
const LIMIT: u64 = 16 << 20;

/// Names of files, with the numbers of their inodes: another program may write a file of the same name.
pub(super) type Written = HashSet<(String, u64)>;

/// Records a file that is about to get this name, where the record is or can be a file of this user's own. Without it the file stays
/// when the copy is killed.
pub(super) fn add(folder: &Path, name: &str, file: &File) -> Result<()> {
    let path = folder.join(RECORD);
    let writing = |e| Error::io(format!("writing {}", path.display()), e);
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let line = format!("{name} {}\n", file.metadata().map_err(writing)?.ino());
    let record = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(&path);
    let mut record = match record {
        Err(e) if is_of_others(&e) => return Ok(()),
        record => record.map_err(writing)?,
    };
    // A hard link may lead to a file elsewhere.
    let found = record.metadata().map_err(writing)?;
    if !found.is_file() || found.nlink() != 1 {
        return Ok(());
    }
    // In one piece, also where several processes do so.
    record.write_all(line.as_bytes()).and_then(|()| record.sync_data()).map_err(writing)
}

/// Whether a link, a folder or a pipe stands in the place of the record, or a file that this user may not open.
fn is_of_others(error: &io::Error) -> bool {
    const OTHERS: [Errno; 5] = [Errno::ACCESS, Errno::ISDIR, Errno::LOOP, Errno::NXIO, Errno::PERM];
    Errno::from_io_error(error).is_some_and(|errno| OTHERS.contains(&errno))
}

/// What is recorded.
pub(super) fn read(folder: &Path) -> Result<Written> {
    let path = folder.join(RECORD);
    let reading = |e| Error::io(format!("reading {}", path.display()), e);
    let file = match files::open(&path) {
        Err(e) if is_of_others(&e) => None,
        opened => opened.map_err(reading)?,
    };
    let Some(file) = file else { return Ok(Written::new()) };
    let mut bytes = Vec::new();
    file.take(LIMIT).read_to_end(&mut bytes).map_err(reading)?;
    let text = String::from_utf8_lossy(&bytes);
    let line = |line: &str| {
        let (name, inode) = line.strip_suffix('\n')?.split_once(' ')?;
        Some((name.to_owned(), inode.parse().ok()?))
    };
    Ok(text.split_inclusive('\n').filter_map(line).collect())
}
