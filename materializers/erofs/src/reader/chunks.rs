//! Files of chunks, each with a place of its own.

use std::io::{Read, Seek};

use plyfold_core::Result;
use zerocopy::little_endian::U32;

use super::image::Reader;
use crate::content::{Content, Run};
use crate::fault::ErofsFault;
use crate::format::{CHUNK_48BIT, CHUNK_INDEX_SIZE, CHUNK_INDEXES, ChunkIndex, Inode, NULL_BLOCK};

/// Bytes of a block's number.
const BLOCK_NUMBER_SIZE: u64 = 4;

impl<R: Read + Seek> Reader<R> {
    pub(super) fn chunks(&mut self, inode: &Inode, tail: u64) -> Result<Content> {
        let (format, size) = (inode.location.get() as u16, inode.size.get());
        if format & !(31 | CHUNK_INDEXES | CHUNK_48BIT) != 0 {
            return Err(ErofsFault::ChunkFormat(format).into());
        }
        // Without indexes there are numbers of blocks alone.
        let unit = if format & CHUNK_INDEXES == 0 { BLOCK_NUMBER_SIZE } else { CHUNK_INDEX_SIZE };
        let bits = (format & 31) as u8;
        let (chunk_blocks, block_size) = (1u64 << bits, self.superblock.block_size());
        let count = size.div_ceil(block_size << bits);
        self.claim(count.saturating_mul(unit))?;
        let indexes = tail.next_multiple_of(unit);
        let mut runs: Vec<Run> = Vec::new();
        let mut device = None;
        for chunk in 0..count {
            let Some((on, start)) = self.chunk(indexes + chunk * unit, format)? else { continue };
            if *device.get_or_insert(on) != on {
                return Err(ErofsFault::Devices.into());
            }
            let blocks = size.div_ceil(block_size) - chunk * chunk_blocks;
            let start = self.check_run(on, start, blocks.min(chunk_blocks))?;
            match runs.last_mut() {
                Some(run)
                    if run.first + run.count == chunk
                        && u64::from(run.start) + run.count * chunk_blocks == u64::from(start) =>
                {
                    run.count += 1;
                }
                _ => runs.push(Run { first: chunk, count: 1, start }),
            }
        }
        let device = device.unwrap_or(0);
        match *runs {
            [Run { first: 0, count: all, start }] if all == count => Ok(Content::blocks(device, start)),
            _ => Ok(Content::chunks(device, bits, runs)),
        }
    }

    /// The device and the first block of a chunk that is no hole.
    fn chunk(&mut self, at: u64, format: u16) -> Result<Option<(u16, u64)>> {
        if format & CHUNK_INDEXES == 0 {
            let start = self.source.record::<U32>(at)?.get();
            return Ok((start != NULL_BLOCK).then_some((0, start.into())));
        }
        let index: ChunkIndex = self.source.record(at)?;
        let (upper, hole) = match format & CHUNK_48BIT {
            0 => (0, index.startblk_lo == NULL_BLOCK),
            _ => (index.startblk_hi.get(), index.startblk_lo == NULL_BLOCK && index.startblk_hi == u16::MAX),
        };
        let start = u64::from(upper) << 32 | u64::from(index.startblk_lo);
        Ok((!hole).then_some((index.device_id.get(), start)))
    }

    /// The number of the first of some blocks of a device, if it has them.
    pub(super) fn check_run(&self, device: u16, start: u64, blocks: u64) -> Result<u32> {
        let size = match device.checked_sub(1) {
            None => self.superblock.block_count(),
            Some(device) => self.devices.get(usize::from(device)).map_or(0, |device| device.blocks.into()),
        };
        if start + blocks > size {
            return Err(ErofsFault::DeviceEnd(size).into());
        }
        u32::try_from(start).map_err(|_| ErofsFault::BlockNumber(start).into())
    }
}
