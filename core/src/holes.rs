//! Holes of files.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

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

/// Whether all bytes are zeros.
pub fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: &[u8] = &[0; 4096];
    // Data hardly ever starts and ends with a zero: the first and the last byte decide most of it.
    let may_be = bytes.first().is_none_or(|byte| *byte == 0) && bytes.last().is_none_or(|byte| *byte == 0);
    may_be && bytes.chunks(ZEROS.len()).all(|part| ZEROS.get(..part.len()) == Some(part))
}

/// The same file by another descriptor, which has a position of its own.
///
/// # Errors
/// What the file system reports.
pub fn reopened(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
