//! The checksum of a blob, kept with its file: an extended attribute.
//!
//! It is computed while the blob comes and is verified, and compared where the blob is copied as a file. It names the file that it
//! is of, by inode and time of creation: with a copy of the file, which others may have made and changed, it is of no use. A file
//! system without such attributes keeps none, and the digest is computed again. Only the store asks for it: a layout
//! directory may be of other users.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::UNIX_EPOCH;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;

const NAME: &str = "user.plyfold.xxh3";

/// Bytes of the longest text: 16 digits of XXH3, and two numbers.
const LONGEST: usize = 16 + 1 + 20 + 1 + 39;

/// Keeps the checksum with a file, if its file system can.
pub(super) fn keep(file: &File, xxh3: u64) -> io::Result<()> {
    let Some(of) = file_of(file)? else { return Ok(()) };
    match fsetxattr(file, NAME, format!("{xxh3:016x} {of}").as_bytes(), XattrFlags::empty()) {
        Err(Errno::ACCESS | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        kept => kept.map_err(Into::into),
    }
}

/// The checksum that is kept with a file.
pub(super) fn of(file: &File) -> Option<u64> {
    let mut text = [0; LONGEST];
    let length = fgetxattr(file, NAME, &mut text[..]).ok()?;
    let (xxh3, of) = std::str::from_utf8(text.get(..length)?).ok()?.split_once(' ')?;
    (file_of(file).ok()?? == of).then(|| u64::from_str_radix(xxh3, 16).ok())?
}

/// The inode, and when it was made, in nanoseconds since 1970, where the file system knows that.
fn file_of(file: &File) -> io::Result<Option<String>> {
    let metadata = file.metadata()?;
    let created = metadata.created().ok().and_then(|created| created.duration_since(UNIX_EPOCH).ok());
    Ok(created.map(|created| format!("{} {}", metadata.ino(), created.as_nanos())))
}
