//! The disk as it is written: blocks in any order, those that follow each other in large pieces.

use std::io::SeekFrom;

use plyfold_core::tree::{MergedTree, NodeId};
use plyfold_core::{Error, Output, Result};

use crate::extents::Extents;
use crate::format::{BLOCK_SIZE, Block};
use crate::space::Space;

/// Bytes gathered before they are written.
const GATHER: usize = 1 << 20;
/// Blocks of zeros that are written; more are left out, as the disk is zeros where nothing is written.
const ZEROS: u64 = 64;
const BLOCK: u64 = BLOCK_SIZE as u64;

/// An empty disk that becomes one with files.
pub(crate) struct Disk<'a> {
    out: &'a mut dyn Output,
    pub(crate) space: Space,
    gathered: Vec<u8>,
    /// Where the gathered bytes go.
    start: u64,
    /// Where the output stands.
    position: u64,
}

impl<'a> Disk<'a> {
    /// A disk of so many blocks.
    pub(crate) fn new(out: &'a mut dyn Output, space: Space, blocks: u64) -> Result<Self> {
        out.set_len(blocks * BLOCK).map_err(|e| Error::io("setting the length of an ext4 disk", e))?;
        let position = out.seek(SeekFrom::Start(0)).map_err(failed)?;
        Ok(Self { out, space, gathered: Vec::with_capacity(GATHER), start: 0, position })
    }

    /// Adds whole blocks to a file, from its block `logical` on.
    pub(crate) fn append(&mut self, file: &mut Extents, mut logical: u64, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (start, count) = self.space.take(bytes.len() as u64 / BLOCK)?;
            file.push(logical, start, count);
            let (part, rest) = bytes.split_at((count * BLOCK) as usize);
            self.put(start, part)?;
            (logical, bytes) = (logical + count, rest);
        }
        Ok(())
    }

    /// Adds all bytes of an image's file of `size` bytes to an empty one. What is behind its end in its last block stays
    /// unwritten.
    pub(crate) fn copy(
        &mut self,
        file: &mut Extents,
        image: &MergedTree,
        (id, size): (NodeId, u64),
    ) -> Result<()> {
        self.flush()?;
        let mut done = 0;
        while done < size {
            let (start, count) = self.space.take((size - done).div_ceil(BLOCK))?;
            file.push(done / BLOCK, start, count);
            let (at, length) = (start * BLOCK, (count * BLOCK).min(size - done));
            if at != self.position {
                self.out.seek(SeekFrom::Start(at)).map_err(failed)?;
            }
            image.copy_to(id, done, length, self.out)?;
            self.position = at + length;
            done += length;
        }
        // What comes next is put where the disk says.
        self.start = self.position;
        Ok(())
    }

    /// Adds blocks of zeros to a file.
    pub(crate) fn reserve(&mut self, file: &mut Extents, mut logical: u64, mut blocks: u64) -> Result<()> {
        while blocks > 0 {
            let (start, count) = self.space.take(blocks)?;
            file.push(logical, start, count);
            if blocks <= ZEROS {
                self.put(start, &vec![0; (count * BLOCK) as usize])?;
            }
            (logical, blocks) = (logical + count, blocks - count);
        }
        Ok(())
    }

    /// Gives a block of its own a place.
    pub(crate) fn store(&mut self, encode: impl FnOnce(u64) -> Block) -> Result<u64> {
        let (place, _) = self.space.take(1)?;
        self.put(place, &encode(place))?;
        Ok(place)
    }

    /// Writes bytes from a block on.
    pub(crate) fn put(&mut self, block: u64, bytes: &[u8]) -> Result<()> {
        let at = block * BLOCK;
        let follows = at == self.start + self.gathered.len() as u64;
        if !follows || self.gathered.len() + bytes.len() > GATHER {
            self.flush()?;
            self.start = at;
        }
        if bytes.len() >= GATHER {
            self.write(at, bytes)?;
            self.start = at + bytes.len() as u64;
            return Ok(());
        }
        self.gathered.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes what is gathered.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        let written = self.write(self.start, &gathered);
        self.gathered = gathered;
        self.start += self.gathered.len() as u64;
        self.gathered.clear();
        written
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if at != self.position {
            self.out.seek(SeekFrom::Start(at)).map_err(failed)?;
        }
        self.out.write_all(bytes).map_err(failed)?;
        self.position = at + bytes.len() as u64;
        Ok(())
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("writing an ext4 disk", error)
}
