//! What stands behind an image before it is patched.
//!
//! A patch begins with a block that says so, and keeps the superblock which was right until then. A process that is
//! killed leaves it behind the old image, where the next patch finds it and cuts it off. In a patched image it is a block
//! like any other that no file has.

use plyfold_core::{Error, Result, is_zero};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::file::{PatchFile, read_exact};
use crate::fault::ErofsFault;
use crate::format::{Superblock, checksum};

const MAGIC: [u8; 16] = *b"plyfold-patch-1\n";
/// A superblock of dm-verity.
const VERITY: &[u8] = b"verity\0\0";
/// Where one may stand: at multiples of so many bytes.
const VERITY_BLOCKS: [u64; 4] = [512, 1024, 2048, 4096];
/// Bytes read at once.
const BUFFER: u64 = 1 << 20;

/// The first bytes of a patch.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Mark {
    magic: [u8; 16],
    /// The length of the file before, in bytes.
    length: U64,
    /// The superblock before.
    superblock: [u8; size_of::<Superblock>()],
    /// Of all that stands before it, as a superblock has it.
    checksum: U32,
}

/// Where an image ends, and what is behind it.
pub(super) struct ImageEnd {
    /// The image's size in bytes.
    pub(super) end: u64,
    /// The length of its file. All between is zeros.
    pub(super) length: u64,
}

impl ImageEnd {
    /// Looks at what stands behind the image of this superblock, and cuts off what a killed process has left there.
    pub(super) fn find(file: &dyn PatchFile, superblock: &Superblock) -> Result<Self> {
        let end = u64::from(superblock.blocks) * superblock.block_size();
        let length = file.length().map_err(|e| Error::io("looking at the image", e))?;
        let found = Self { end, length };
        if let Some(length) = found.left_by_a_patch(file, superblock)? {
            let found = Self { end, length };
            found.restore(file)?;
            return Ok(found);
        }
        found.check_zeros(file)?;
        Ok(found)
    }

    /// The length that the file had before a patch that was not finished.
    fn left_by_a_patch(&self, file: &dyn PatchFile, superblock: &Superblock) -> Result<Option<u64>> {
        if self.length - self.end < size_of::<Mark>() as u64 {
            return Ok(None);
        }
        let mut bytes = [0; size_of::<Mark>()];
        read_exact(file, self.end, &mut bytes)?;
        let Ok(mark) = Mark::ref_from_bytes(&bytes) else { return Ok(None) };
        let is_of_this = mark.magic == MAGIC && mark.superblock == superblock.as_bytes();
        let is_whole = mark.checksum == checksum(&bytes[..bytes.len() - size_of::<U32>()]);
        let is_sound = is_of_this && is_whole && (self.end..=self.length).contains(&mark.length.get());
        Ok(is_sound.then_some(mark.length.get()))
    }

    fn check_zeros(&self, file: &dyn PatchFile) -> Result<()> {
        let mut buffer = vec![0; BUFFER.min(self.length - self.end) as usize];
        let mut at = self.end;
        while at < self.length {
            let part = &mut buffer[..BUFFER.min(self.length - at) as usize];
            read_exact(file, at, part)?;
            let bytes = self.length - self.end;
            if !is_zero(part) {
                let places = VERITY_BLOCKS.map(|size| self.end.next_multiple_of(size) - self.end);
                let is_verity = at == self.end
                    && places
                        .iter()
                        .any(|place| part[(*place as usize).min(part.len())..].starts_with(VERITY));
                let cut = format!("`truncate -s {} FILE`", self.end);
                return Err(if is_verity {
                    let hint =
                        format!("{cut} removes the tree; patch the image then, and make its tree again");
                    Error::from(ErofsFault::PatchVerity).with_better_hint(hint)
                } else {
                    let hint = format!("{cut} cuts them off, if nothing needs them");
                    Error::from(ErofsFault::PatchTail(self.end, bytes)).with_better_hint(hint)
                });
            }
            at += part.len() as u64;
        }
        Ok(())
    }

    /// The first block of a patch.
    pub(super) fn mark(&self, superblock: &Superblock) -> Vec<u8> {
        let mut own = [0; size_of::<Superblock>()];
        own.copy_from_slice(superblock.as_bytes());
        let mut mark = Mark { magic: MAGIC, length: self.length.into(), superblock: own, checksum: 0.into() };
        let summed = size_of::<Mark>() - size_of::<U32>();
        mark.checksum = checksum(&mark.as_bytes()[..summed]).into();
        let mut block = mark.as_bytes().to_vec();
        block.resize(superblock.block_size() as usize, 0);
        block
    }

    /// Makes the file what it was: all behind the image is zeros.
    pub(super) fn restore(&self, file: &dyn PatchFile) -> Result<()> {
        let cut = file.set_length(self.end).and_then(|()| file.set_length(self.length));
        cut.map_err(|e| Error::io("cutting off what a patch has appended", e))
    }
}
