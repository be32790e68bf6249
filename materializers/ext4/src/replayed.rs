//! A file system as it is once its journal is replayed: blocks that are in the journal are read there.

use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};

use crate::fields::JOURNAL_MAGIC;
use crate::journal::Places;

/// What a file system is in, and its newer blocks.
pub(crate) struct Replayed<R> {
    source: R,
    block_size: u64,
    places: Places,
    position: u64,
}

impl<R: Read + Seek> Replayed<R> {
    pub(crate) fn new(source: R, block_size: u32, places: Places) -> Self {
        Self { source, block_size: block_size.into(), places, position: 0 }
    }
}

impl<R: Read + Seek> Read for Replayed<R> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let size = self.block_size;
        let (block, within) = (self.position / size, self.position % size);
        let (from, most, is_escaped) = match self.places.range(block..).next() {
            Some((at, place)) if *at == block => {
                (place.block * size + within, size - within, place.is_escaped)
            }
            Some((at, _)) => (self.position, (at - block) * size - within, false),
            None => (self.position, u64::MAX, false),
        };
        let most = bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        self.source.seek(SeekFrom::Start(from))?;
        let count = self.source.read(&mut bytes[..most])?;
        if is_escaped {
            let magic = JOURNAL_MAGIC.to_be_bytes();
            let magic = magic.get(within as usize..).unwrap_or_default();
            bytes[..count].iter_mut().zip(magic).for_each(|(byte, right)| *byte = *right);
        }
        self.position += count as u64;
        Ok(count)
    }
}

impl<R: Seek> Seek for Replayed<R> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.position = match to {
            SeekFrom::Start(position) => position,
            SeekFrom::End(_) => self.source.seek(to)?,
            SeekFrom::Current(by) => {
                self.position.checked_add_signed(by).ok_or(ErrorKind::InvalidInput).map_err(Error::from)?
            }
        };
        Ok(self.position)
    }
}
