//! The data of one regular file, from the layer's stream or a whole image to its place in the image.
//!
//! Data is written as it comes. A run of zeros of [`hole_size`] or more becomes a hole, and the file one of
//! chunks (Linux 5.15); all others are plain runs of blocks, and an image of such files mounts from Linux 5.4.

use plyfold_core::layer::{DataExtent, LayerTar};
use plyfold_core::tree::{MergedTree, NodeId};
use plyfold_core::{Result, is_zero};

use crate::content::{Content, DataLayout, Run};
use crate::fault::ErofsFault;
use crate::stream::BlockStream;

/// The smallest chunk. Chunks grow with the file, so that its indexes stay below 256 KiB.
const CHUNK_MIN: u64 = 64 << 10;
const CHUNKS_MAX: u64 = 32 << 10;
/// The shortest run of zeros that becomes a hole: holes need a newer kernel.
const HOLE_MIN: u64 = 1 << 20;

/// Blocks in which holes are looked for: chunks are multiples of them.
const HOLE_UNIT: u64 = 4096;

/// The chunk size of a file that turns out to have holes.
fn chunk_size(size: u64) -> u64 {
    (size / CHUNKS_MAX).next_power_of_two().max(CHUNK_MIN)
}

/// The shortest run of zeros that becomes a hole.
pub(crate) fn hole_size(size: u64) -> u64 {
    chunk_size(size).max(HOLE_MIN)
}

/// Copies the current file of the tar, of `size` bytes, into the image.
pub(crate) fn copy(
    tar: &mut LayerTar,
    size: u64,
    extents: Option<&[DataExtent]>,
    image: &mut BlockStream<'_>,
    block_size: u32,
) -> Result<Content> {
    if size == 0 {
        return Ok(Content::EMPTY);
    }
    let whole = [DataExtent { offset: 0, length: size }];
    let mut file = File::new(image, size)?;
    for extent in extents.unwrap_or(&whole) {
        let gap = extent.offset.checked_sub(file.position()).filter(|_| extent.offset <= size);
        file.zeros += gap.ok_or(ErofsFault::Malformed("the runs of a sparse file are not in order"))?;
        tar.copy_data(extent.length, |bytes| file.write(bytes))?;
    }
    let gap = size.checked_sub(file.position());
    file.zeros += gap.ok_or(ErofsFault::Malformed("the runs of a sparse file reach beyond its end"))?;
    file.finish(block_size)
}

/// As [`copy`], but the last `size % block_size` bytes are put into `rest`, if the file turns out to have no holes.
pub(crate) fn copy_but_rest(
    tar: &mut LayerTar,
    size: u64,
    image: &mut BlockStream<'_>,
    block_size: u32,
    rest: &mut Vec<u8>,
) -> Result<Content> {
    let length = size % u64::from(block_size);
    let take_rest = |tar: &mut LayerTar, rest: &mut Vec<u8>| {
        tar.copy_data(length, |bytes| {
            rest.extend_from_slice(bytes);
            Ok(())
        })
    };
    rest.clear();
    if size == length {
        take_rest(tar, rest)?;
        return Ok(Content::inline(0, 0));
    }
    let mut file = File::new(image, size)?;
    tar.copy_data(size - length, |bytes| file.write(bytes))?;
    take_rest(tar, rest)?;
    let content = file.finish_before(rest, block_size)?;
    if !matches!(content.0, DataLayout::Inline { .. }) {
        rest.clear();
    }
    Ok(content)
}

/// Copies a file of a whole image, of `size` bytes, into the image: all of it, or all but its last `rest` bytes, which
/// the caller writes, if the file turns out to have no holes. Pieces are as large as `buffer`.
///
/// Holes that the file had before count as zeros: what becomes a hole depends on the bytes alone.
pub(crate) fn copy_file(
    source: &MergedTree,
    (id, size, rest): (NodeId, u64, u64),
    image: &mut BlockStream<'_>,
    block_size: u32,
    buffer: &mut [u8],
) -> Result<Content> {
    if size == 0 {
        return Ok(Content::EMPTY);
    }
    if size == rest {
        return Ok(Content::inline(0, 0));
    }
    if !source.may_have_holes(id, hole_size(size) / HOLE_UNIT)? {
        // No byte of a large file is looked at.
        let start = image.block()?;
        image.copy(source, id, size - rest)?;
        return Ok(if rest > 0 { Content::inline(start, 0) } else { Content::blocks(0, start) });
    }
    let mut file = File::new(image, size)?;
    file.read(source, id, size - rest, buffer)?;
    if rest > 0 {
        let rest = &mut buffer[..rest as usize];
        source.read_at(id, size - rest.len() as u64, rest)?;
        return file.finish_before(rest, block_size);
    }
    file.finish(block_size)
}

/// Whether at least half of a file of a whole image would become holes. It follows from the bytes alone, as holes do.
pub(crate) fn is_mostly_holes(source: &MergedTree, id: NodeId, size: u64, buffer: &mut [u8]) -> Result<bool> {
    if !source.may_have_holes(id, hole_size(size) / HOLE_UNIT)? {
        return Ok(false);
    }
    let (mut holes, mut run, mut at) = (0, 0, 0);
    let mut extents = source.extents(id).peekable();
    while at < size {
        let piece = (size - at).min(CHUNK_MIN);
        while extents.next_if(|extent| extent.offset + extent.length <= at).is_some() {}
        let has_data = extents.peek().is_some_and(|extent| extent.offset < at + piece);
        let zeros = !has_data || {
            let bytes = &mut buffer[..piece as usize];
            source.read_at(id, at, bytes)?;
            is_zero(bytes)
        };
        at += piece;
        run = if zeros { run + piece } else { 0 };
        // The run counts from where it is long enough to be a hole.
        match run.checked_sub(hole_size(size)) {
            Some(beyond) if beyond < piece => holes += run,
            Some(_) => holes += piece,
            None => {}
        }
    }
    Ok(holes * 2 >= size && holes > 0)
}

struct File<'a, 'b> {
    image: &'a mut BlockStream<'b>,
    size: u64,
    /// The first block of the data.
    start: u32,
    /// How far the file is written, holes included.
    written: u64,
    /// Zeros that come next, not yet known to be a hole.
    zeros: u64,
    /// Holes in chunks: first and count.
    holes: Vec<(u64, u64)>,
}

impl<'a, 'b> File<'a, 'b> {
    fn new(image: &'a mut BlockStream<'b>, size: u64) -> Result<Self> {
        Ok(Self { start: image.block()?, image, size, written: 0, zeros: 0, holes: Vec::new() })
    }

    /// Writes a file of a whole image up to its byte `end`.
    fn read(&mut self, source: &MergedTree, id: NodeId, end: u64, buffer: &mut [u8]) -> Result<()> {
        for extent in source.extents(id).take_while(|extent| extent.offset < end) {
            let gap = extent.offset.checked_sub(self.position());
            self.zeros += gap.ok_or(ErofsFault::Malformed("the runs of a sparse file are not in order"))?;
            let extent_end = (extent.offset + extent.length).min(end);
            while self.position() < extent_end {
                let count = (extent_end - self.position()).min(buffer.len() as u64) as usize;
                let count = source.read_at(id, self.position(), &mut buffer[..count])?;
                self.write(&buffer[..count])?;
            }
        }
        self.zeros += end - self.position();
        Ok(())
    }

    fn position(&self) -> u64 {
        self.written + self.zeros
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        // Pieces end on multiples of the smallest chunk, so that no zero chunk hides between data.
        while !bytes.is_empty() {
            let piece = (CHUNK_MIN - self.position() % CHUNK_MIN).min(bytes.len() as u64) as usize;
            let mut end = piece;
            if is_zero(&bytes[..piece]) {
                self.zeros += piece as u64;
            } else {
                self.settle_zeros()?;
                // Neighbouring pieces of data go out in one write.
                while end < bytes.len() {
                    let next = (end + CHUNK_MIN as usize).min(bytes.len());
                    if is_zero(&bytes[end..next]) {
                        break;
                    }
                    end = next;
                }
                self.image.write(&bytes[..end])?;
                self.written += end as u64;
            }
            bytes = &bytes[end..];
        }
        Ok(())
    }

    fn settle_zeros(&mut self) -> Result<()> {
        let chunk = chunk_size(self.size);
        let (start, end) = (self.written, self.position());
        let first = start.div_ceil(chunk);
        // The last chunk may be a short one.
        let last = if end == self.size { end.div_ceil(chunk) } else { end / chunk };
        self.zeros = 0;
        self.written = end;
        let hole = (last * chunk).min(end).saturating_sub(first * chunk);
        if hole < hole_size(self.size) {
            return self.image.fill(end - start);
        }
        self.image.fill(first * chunk - start)?;
        self.image.fill(end.saturating_sub(last * chunk))?;
        self.holes.push((first, last - first));
        Ok(())
    }

    /// Ends a file whose last bytes are `rest`: they are left out, if it has no holes.
    fn finish_before(mut self, rest: &[u8], block_size: u32) -> Result<Content> {
        let zeros = self.zeros + if is_zero(rest) { rest.len() as u64 } else { 0 };
        if self.holes.is_empty() && zeros < hole_size(self.size) {
            self.settle_zeros()?;
            return Ok(Content::inline(self.start, 0));
        }
        self.write(rest)?;
        self.finish(block_size)
    }

    fn finish(mut self, block_size: u32) -> Result<Content> {
        self.settle_zeros()?;
        if self.holes.is_empty() {
            return Ok(Content::blocks(0, self.start));
        }
        let chunk = chunk_size(self.size);
        let chunk_blocks = chunk / u64::from(block_size);
        let chunks = self.size.div_ceil(chunk);
        let mut runs = Vec::with_capacity(self.holes.len() + 1);
        let (mut first, mut start) = (0, u64::from(self.start));
        for (hole, count) in self.holes.iter().copied().chain([(chunks, 0)]) {
            if hole > first {
                runs.push(Run { first, count: hole - first, start: start as u32 });
                start += (hole - first) * chunk_blocks;
            }
            first = hole + count;
        }
        let bits = chunk_blocks.ilog2() as u8;
        Ok(Content::chunks(0, bits, runs))
    }
}
