//! Compressed files: from the header behind an inode to the bytes of the file.

mod decode;
mod decoded;
mod extent;
mod file;
mod header;
mod index;
mod kept;
mod records;

pub(super) use decoded::Decoded;
pub(super) use header::FileMap;
pub(crate) use kept::KeptFile;
