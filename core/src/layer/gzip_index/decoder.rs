//! A decoder of a gzip blob in a file, from any place that an index has.

use std::io;
use std::ops::Range;

use super::point::Point;
use crate::layer::fault::LayerFault;
use crate::layer::gunzip::{Members, Sum};
use crate::page_buffer::PageBuffer;
use crate::{Error, ReadAt, Result};

/// Bytes that are read of the blob at a time.
const INPUT: usize = 128 << 10;

pub(super) const OTHER: LayerFault = LayerFault::GzipIndex("it is not the index of this blob");

/// What ends the bytes of a span.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'a> {
    /// How many bytes are decoded by then, with all that comes before the span.
    pub(super) offset: u64,
    /// Where the next span begins; `None` behind the last one.
    pub(super) next: Option<&'a Point>,
}

pub(super) struct Decoder {
    members: Members,
    input: PageBuffer,
    /// What of the input is not decoded.
    left: Range<usize>,
    /// Where the next byte is that is not in the input, and how many the file has.
    at: u64,
    size: u64,
    /// How many bytes are decoded, with all that comes before the place of the start.
    offset: u64,
    /// Whether a block has just ended.
    is_at_block: bool,
}

impl Decoder {
    /// At the first byte of a file of so many bytes.
    pub(super) fn new(size: u64) -> Self {
        let (members, input) = (Members::new(), PageBuffer::new(INPUT + 1));
        Self { members, input, left: 0..0, at: 0, size, offset: 0, is_at_block: false }
    }

    /// Goes to a place.
    pub(super) fn enter(&mut self, file: &dyn ReadAt, point: &Point) -> Result<()> {
        let mut first = [0];
        if !point.bit.is_multiple_of(8) {
            file.read_exact_at(&mut first, point.byte()).map_err(failed)?;
        }
        self.at = point.enter(&mut self.members, first[0])?;
        (self.left, self.offset, self.is_at_block) = (0..0, point.offset, false);
        Ok(())
    }

    /// Decodes into a buffer until it is full, or all but full, or the span ends; how many bytes, and whether it has ended, as
    /// the place of the next one says.
    pub(super) fn fill(
        &mut self,
        file: &dyn ReadAt,
        buffer: &mut [u8],
        end: End<'_>,
    ) -> Result<(usize, bool)> {
        let left = usize::try_from(end.offset.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        // The last bytes of a span leave room: nothing may follow them that is still of its last block.
        let ends = left < buffer.len();
        let room = if ends { left } else { buffer.len().min(left - 1) };
        let within = end.next.and_then(|next| Some((next, next.within.as_ref()?.sum))).filter(|_| ends);
        let mut filled = 0;
        if let Some((next, sum)) = within {
            while !(filled == room && self.is_at_block && self.taken() == next.bit.div_ceil(8)) {
                let step = self.step(file, &mut buffer[filled..=room], Some(next))?;
                filled += step.ok_or(OTHER)?;
                if filled > room || self.taken() > next.bit.div_ceil(8) {
                    return Err(OTHER.into());
                }
            }
            // Only now it may be seen that the block was the last one.
            self.members.step(&[], &mut [], false)?;
            if self.members.last() != sum || !self.members.is_within() {
                return Err(OTHER.into());
            }
            return Ok((filled, true));
        }
        while filled < room {
            filled += self.step(file, &mut buffer[filled..room], None)?.ok_or(OTHER)?;
        }
        if ends {
            self.close(file, end.next.map_or(self.size, Point::byte))?;
        }
        Ok((filled, ends))
    }

    /// Checks that a member ends here, at this byte of the file.
    fn close(&mut self, file: &dyn ReadAt, end: u64) -> Result<()> {
        while !(self.members.is_between() && self.taken() == end) {
            if self.taken() > end {
                return Err(OTHER.into());
            }
            self.step(file, &mut [], None)?.ok_or(OTHER)?;
        }
        Ok(())
    }

    /// Decodes into a buffer until it is full or the file ends; how many bytes.
    pub(super) fn stream(&mut self, file: &dyn ReadAt, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let Some(written) = self.step(file, &mut buffer[filled..], None)? else {
                self.members.finish()?;
                break;
            };
            filled += written;
        }
        Ok(filled)
    }

    /// One step, to the end of a block at most where a place within a member comes next; how many bytes are decoded, `None` when
    /// nothing is left that could be.
    fn step(
        &mut self,
        file: &dyn ReadAt,
        output: &mut [u8],
        within: Option<&Point>,
    ) -> Result<Option<usize>> {
        if self.left.is_empty() {
            let left = usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
            // The end of a block is seen where a byte follows.
            let is_cut =
                within.is_some_and(|point| point.bit.div_ceil(8).checked_sub(self.at) == Some(INPUT as u64));
            let length = (INPUT + usize::from(is_cut)).min(left);
            file.read_exact_at(&mut self.input[..length], self.at).map_err(failed)?;
            self.at += length as u64;
            self.left = 0..length;
        }
        let step = self.members.step(&self.input[self.left.clone()], output, within.is_some())?;
        self.left.start += step.read;
        self.offset += step.written as u64;
        self.is_at_block = step.block;
        Ok((step.moved || step.block).then_some(step.written))
    }

    /// How many bytes of the file are decoded, with all that comes before the place of the start.
    pub(super) fn taken(&self) -> u64 {
        self.at - self.left.len() as u64
    }

    /// CRC-32 and length of the member up to the last byte that was decoded.
    pub(super) fn last(&self) -> Sum {
        self.members.last()
    }
}

fn failed(error: io::Error) -> Error {
    Error::io("reading a layer", error)
}
