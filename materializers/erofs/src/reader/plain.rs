//! The data of files that are not compressed.

use std::io::{Read, Seek};

use plyfold_core::Result;

use super::image::Reader;
use crate::content::{Chunks, DataLayout};

impl<R: Read + Seek> Reader<R> {
    /// As [`Reader::read`].
    pub(super) fn read_plain(
        &mut self,
        layout: &DataLayout,
        size: u64,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize> {
        let mut count = size.saturating_sub(offset).min(buffer.len() as u64);
        if count == 0 {
            return Ok(0);
        }
        let block_size = self.superblock.block_size();
        let place = match layout {
            DataLayout::Blocks { device, start } => Some((*device, u64::from(*start) * block_size + offset)),
            DataLayout::Inline { start, rest, .. } => {
                let in_blocks = size - size % block_size;
                if offset < in_blocks {
                    count = count.min(in_blocks - offset);
                    Some((0, u64::from(*start) * block_size + offset))
                } else {
                    Some((0, rest + (offset - in_blocks)))
                }
            }
            // Is read elsewhere.
            DataLayout::Compressed { .. } => None,
            DataLayout::Chunks(chunks) => {
                let Chunks { device, bits, runs } = &**chunks;
                let chunk = block_size << bits;
                let at = runs.partition_point(|run| run.first * chunk <= offset);
                let run = at.checked_sub(1).and_then(|at| runs.get(at));
                let run = run.filter(|run| offset < (run.first + run.count) * chunk);
                let end = match run {
                    Some(run) => (run.first + run.count) * chunk,
                    None => runs.get(at).map_or(size, |run| run.first * chunk),
                };
                count = count.min(end - offset);
                run.map(|run| (*device, u64::from(run.start) * block_size + offset - run.first * chunk))
            }
        };
        let buffer = &mut buffer[..count as usize];
        match place {
            None => buffer.fill(0),
            Some((device, at)) => {
                let flat = device.checked_sub(1).and_then(|device| self.devices.get(usize::from(device)));
                let base = flat.map_or(0, |device| u64::from(device.uniaddr) * block_size);
                self.source.data(base + at, buffer)?;
            }
        }
        Ok(buffer.len())
    }
}
