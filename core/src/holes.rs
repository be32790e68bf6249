//! Holes of files.

use std::fs::File;
use std::io;

/// The first byte at `offset` or behind it that is in no hole; `None` where there is none.
///
/// The position of the file moves, and so does that of each descriptor that shares it.
///
/// # Errors
/// What the file system reports.
pub fn data_from(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(next) => Ok(Some(next)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        // The file system knows no holes.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            Ok(Some(offset))
        }
        Err(e) => Err(e.into()),
    }
}
