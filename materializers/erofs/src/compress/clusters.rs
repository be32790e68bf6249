//! The clusters of files on their way into the image, one file after the other.

use plyfold_core::{Error, ErrorKind, Result};
use zerocopy::IntoBytes as _;

use super::algorithm::{BLOCK, Compression};
use super::extents::{Extent, ExtentReader, ExtentWriter, Recorded};
use super::format::{
    ADVISE_2B, ADVISE_BIG_1, ADVISE_BIG_2, ADVISE_FRAGMENT, ADVISE_INLINE, HEADER_ALIGNMENT, MapHeader, Packs,
};
use super::index::IndexWriter;
use super::segment::{Segment, Tail};
use crate::stream::BlockStream;

const BLOCK_SIZE: u64 = BLOCK as u64;
/// How much more indexes may take at another place: the first of them fill packs of other sizes.
const SLACK: u64 = 64;

/// What a file takes in the metadata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Of the file, in bytes.
    pub(crate) size: u64,
    /// The bytes of its inode and xattrs.
    pub(crate) own: u64,
    /// Whether `own` is exact; otherwise it is an upper bound.
    pub(crate) is_exact: bool,
}

impl Room {
    /// Whether the bytes behind the file's whole blocks and its inode fit into one block.
    pub(crate) fn fits_rest(self) -> bool {
        self.own + self.size % BLOCK_SIZE <= BLOCK_SIZE
    }

    /// Whether a last cluster of so many bytes stands in one block behind the indexes. What takes more than a block starts at
    /// one.
    fn fits_cluster(self, bytes: u64) -> bool {
        let end = self.indexes_end();
        if self.is_exact { end % BLOCK_SIZE + bytes <= BLOCK_SIZE } else { end + SLACK + bytes <= BLOCK_SIZE }
    }

    /// The bytes from the inode to the end of the indexes.
    fn indexes_end(self) -> u64 {
        Packs::behind(self.own, self.size.div_ceil(BLOCK_SIZE)).end()
    }

    /// Whether a file that came at once takes less when it is compressed so.
    pub(crate) fn is_less(self, segment: &Segment) -> bool {
        if !segment.is_smaller {
            return false;
        }
        let tail = segment.tail.as_ref().map_or(0, |tail| tail.bytes.len() as u64);
        let tail = if self.fits_cluster(tail) { tail } else { BLOCK_SIZE };
        let rest = match self.size % BLOCK_SIZE {
            rest if rest == 0 || self.fits_rest() => rest,
            _ => BLOCK_SIZE,
        };
        let plain = self.own + self.size / BLOCK_SIZE * BLOCK_SIZE + rest;
        segment.length as u64 + self.indexes_end() + tail < plain
    }
}

/// Writes the clusters of files, and records where they are.
#[derive(Debug)]
pub(crate) struct ClusterWriter {
    pub(crate) extents: ExtentWriter,
    current: Option<Written>,
}

/// A file of which pieces have been written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) recorded: Recorded,
    /// Whether a piece is compressed. Otherwise all its whole blocks are there as they are.
    pub(crate) is_smaller: bool,
    /// In that case what follows these.
    pub(crate) rest: Vec<u8>,
}

impl ClusterWriter {
    pub(crate) fn new(extents: ExtentWriter) -> Self {
        Self { extents, current: None }
    }

    /// Begins a file.
    pub(crate) fn begin(&mut self, out: &mut BlockStream<'_>) -> Result<()> {
        self.begin_as(false, out)
    }

    /// Begins the file of all fragments, which has extents even if none of it gets smaller.
    pub(crate) fn begin_packed(&mut self, out: &mut BlockStream<'_>) -> Result<()> {
        self.begin_as(true, out)
    }

    fn begin_as(&mut self, is_smaller: bool, out: &mut BlockStream<'_>) -> Result<()> {
        let (at, start) = (self.extents.position(), out.block()?);
        let recorded = Recorded { at, extents: 0, tail: 0, fragment: None, start, blocks: 0 };
        self.current = Some(Written { recorded, is_smaller, rest: Vec::new() });
        Ok(())
    }

    /// Writes its next piece, of which these are the clusters.
    pub(crate) fn append(
        &mut self,
        room: Room,
        segment: Segment,
        clusters: &[u8],
        out: &mut BlockStream<'_>,
    ) -> Result<()> {
        let Some(Written { recorded, is_smaller, rest }) = &mut self.current else { return Err(no_start()) };
        *is_smaller |= segment.is_smaller;
        recorded.blocks += (clusters.len() as u64 / BLOCK_SIZE) as u32;
        recorded.extents += segment.extents.len() as u32;
        segment.extents.iter().try_for_each(|extent| self.extents.extent(*extent))?;
        out.write(clusters)?;
        let Some(Tail { length, is_plain, bytes, plain }) = segment.tail else { return Ok(()) };
        if !*is_smaller {
            // It stands behind the inode, or in a block, without any of this.
            *rest = bytes;
            return Ok(());
        }
        recorded.extents += 1;
        if room.fits_cluster(bytes.len() as u64) {
            self.extents.extent(Extent { length, blocks: 1, is_plain })?;
            recorded.tail = bytes.len() as u32;
            return self.extents.bytes(&bytes);
        }
        recorded.blocks += 1;
        let plain = if is_plain { &bytes } else { &plain };
        let is_plain = !plain.is_empty();
        self.extents.extent(Extent { length, blocks: 1, is_plain })?;
        if is_plain {
            out.write(plain)?;
            return out.block().map(drop);
        }
        out.zeros(BLOCK_SIZE - bytes.len() as u64)?;
        out.write(&bytes)
    }

    /// The last extent of the file is a fragment, of so many bytes, which stands there.
    pub(crate) fn append_fragment(&mut self, length: u32, at: u32) -> Result<()> {
        let Some(Written { recorded, .. }) = &mut self.current else { return Err(no_start()) };
        recorded.extents += 1;
        recorded.fragment = Some(at);
        self.extents.extent(Extent { length, blocks: 0, is_plain: false })
    }

    /// Ends the file.
    pub(crate) fn end(&mut self) -> Result<Written> {
        self.current.take().ok_or_else(no_start)
    }
}

/// Appends what stands behind the inode and xattrs of a compressed file: header, indexes and the last cluster.
pub(crate) fn write_behind_inode(
    compression: &Compression,
    extents: &ExtentReader,
    recorded: &Recorded,
    size: u64,
    out: &mut Vec<u8>,
) -> Result<()> {
    let packs = Packs::behind(out.len() as u64, size.div_ceil(BLOCK_SIZE));
    out.resize(out.len().next_multiple_of(HEADER_ALIGNMENT as usize), 0);
    let big = if compression.is_big() { ADVISE_BIG_1 | ADVISE_BIG_2 } else { 0 };
    let (place, last) = match recorded {
        Recorded { fragment: Some(at), .. } => (*at, ADVISE_FRAGMENT),
        Recorded { tail, .. } => (tail << 16, if *tail > 0 { ADVISE_INLINE } else { 0 }),
    };
    let header = MapHeader {
        fragmentoff: place.into(),
        advise: (ADVISE_2B | big | last).into(),
        algorithms: compression.algorithm.number(),
        clusterbits: 0,
    };
    out.extend_from_slice(header.as_bytes());
    let mut indexes = IndexWriter::new(packs, compression.is_big(), recorded.start, out);
    let tail = extents.for_each(recorded, |extent| indexes.extent(extent))?;
    indexes.finish();
    if recorded.tail > 0 && out.len() as u64 % BLOCK_SIZE + u64::from(recorded.tail) > BLOCK_SIZE {
        return Err(Error::new(ErrorKind::Internal, "a last cluster does not stand in one block"));
    }
    out.extend_from_slice(&tail);
    Ok(())
}

fn no_start() -> Error {
    Error::new(ErrorKind::Internal, "a piece of a file came before its start")
}
