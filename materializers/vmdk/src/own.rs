//! Whether a VMDK is what is written here, to the byte, so that every reader takes it for the same disk.
//!
//! A file of another maker may name files of the machine that it is opened on: as an extent, or as the disk below it, which
//! readers find by `parentFileNameHint` or by what one of them takes for an extent, and another one for a remark.

use plyfold_core::{Error, Result};

use crate::descriptor::Descriptor;
use crate::sparse::is_framed;

impl Descriptor {
    /// Reads a descriptor that is exactly what `Display` writes.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for any other text.
    pub fn parse_exactly(text: &str) -> Result<Self> {
        let descriptor = Self::parse(text)?;
        let written = descriptor.to_string();
        if written == text {
            return Ok(descriptor);
        }
        Err(Error::corrupt("the VMDK descriptor has more than the extents of a disk, or another form"))
    }
}

/// Checks that a VMDK in one file is framed exactly as [`VmdkStream`](crate::VmdkStream) writes it, by its first 21 sectors,
/// the header and the descriptor, and its last three, with the header again. Of the grains and tables in between nothing is
/// said.
///
/// # Errors
/// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for any other file.
pub fn check_stream(first: &[u8], last: &[u8]) -> Result<()> {
    if is_framed(first, last) {
        return Ok(());
    }
    Err(Error::corrupt("the VMDK in one file does not begin and end as plyfold writes it"))
}
