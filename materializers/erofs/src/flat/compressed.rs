//! Compresses the files of a whole image.

use std::fs::File;
use std::iter;
use std::num::NonZero;
use std::thread;

use plyfold_core::tree::{FileData, Kind, MergedTree, NodeId};
use plyfold_core::{Error, ErrorKind, Result};

use super::bodies::Bodies;
use crate::compress::algorithm::{BLOCK, Compression};
use crate::compress::codec::Codec;
use crate::compress::extents::{Extent, ExtentWriter, Recorded};
use crate::compress::format::Packs;
use crate::compress::pool::in_order;
use crate::compress::segment::{Compressor, Segment, Tail};
use crate::data;
use crate::inodes::Inodes;
use crate::stream::BlockStream;

/// Smaller files get no smaller: header and indexes take as much.
const SIZE_MIN: u64 = 64;
/// The indexes of larger files would take more than a few MiB of memory.
const SIZE_MAX: u64 = 16 << 30;
/// Bytes of small files that are one job.
const BATCH: u64 = 256 << 10;
/// What all threads together hold of files.
const MEMORY: usize = 256 << 20;
/// How often a thread holds a segment: what it reads, what it makes, and two that wait to be written.
const COPIES: usize = 4;

const BLOCK_SIZE: u64 = BLOCK as u64;

/// One file.
#[derive(Clone, Copy)]
struct Source {
    /// The number of its inode.
    at: usize,
    id: NodeId,
    size: u64,
}

/// What one thread does at once.
enum Job {
    /// Files, each with whether it is to be compressed.
    Files(Vec<(Source, bool)>),
    /// A piece of a file: its start and its length.
    Piece(Source, u64, u32),
}

/// What comes of it.
enum Done {
    Files(Vec<(Source, Option<Segment>)>),
    Piece(Source, u64, Segment),
}

/// Writes the data of all files, compressed where that makes them smaller, in the order of the inodes.
pub(super) fn write(
    bodies: &mut Bodies<'_>,
    inodes: &Inodes<'_, FileData>,
    compression: &Compression,
    scratch: File,
    out: &mut BlockStream<'_>,
) -> Result<()> {
    let image = bodies.image;
    let segment = compression.segment();
    let most = NonZero::new(MEMORY / (segment as usize * COPIES)).unwrap_or(NonZero::<usize>::MIN);
    let threads = compression.threads.or_else(|| thread::available_parallelism().ok());
    let threads = threads.unwrap_or(NonZero::<usize>::MIN).min(most);
    let mut writer = Writer { inodes, bodies, extents: ExtentWriter::new(scratch), current: None, out };
    let state = || {
        let codec = Codec::new(compression)?;
        Ok((Compressor::new(codec, compression.cluster), Vec::new()))
    };
    let work =
        |(compressor, buffer): &mut (Compressor, Vec<u8>), job| compress(image, compressor, buffer, job);
    in_order(threads, jobs(image, inodes, segment), state, work, |done| writer.take(done))?;
    let extents = writer.extents.finish()?;
    bodies.end_compressed(compression, extents);
    Ok(())
}

/// The work in the order of the inodes, cut in the same way on every machine.
fn jobs<'a>(
    image: &'a MergedTree,
    inodes: &'a Inodes<'_, FileData>,
    segment: u32,
) -> impl Iterator<Item = Result<Job>> + use<'a> {
    let mut files = inodes.planned.iter().enumerate().filter_map(|(at, planned)| {
        let Kind::File { size, .. } = image.tree().node(planned.id).kind else { return None };
        (size > 0).then_some(Source { at, id: planned.id, size })
    });
    let mut buffer = vec![0; BATCH as usize];
    let mut next: Option<Source> = None;
    // The file that is cut into pieces, and where the next one starts.
    let mut cut: Option<(Source, u64)> = None;
    iter::from_fn(move || {
        if let Some((source, start)) = cut {
            let length = (source.size - start).min(segment.into());
            cut = Some((source, start + length)).filter(|(source, start)| *start < source.size);
            return Some(Ok(Job::Piece(source, start, length as u32)));
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(source) = next.take().or_else(|| files.next()) {
            if bytes > 0 && bytes + source.size > BATCH {
                next = Some(source);
                break;
            }
            let compressed = match is_compressed(image, source, &mut buffer) {
                Ok(compressed) => compressed,
                Err(error) => return Some(Err(error)),
            };
            if compressed && source.size > segment.into() {
                if batch.is_empty() {
                    cut = Some((source, segment.into()));
                    return Some(Ok(Job::Piece(source, 0, segment)));
                }
                next = Some(source);
                break;
            }
            batch.push((source, compressed));
            // Other files are written without being read here.
            bytes += if compressed { source.size } else { SIZE_MIN };
        }
        (!batch.is_empty()).then_some(Ok(Job::Files(batch)))
    })
}

fn is_compressed(image: &MergedTree, source: Source, buffer: &mut [u8]) -> Result<bool> {
    let Source { id, size, .. } = source;
    if !(SIZE_MIN..=SIZE_MAX).contains(&size) {
        return Ok(false);
    }
    Ok(size < data::hole_size(size) || !data::is_mostly_holes(image, id, size, buffer)?)
}

/// What a thread does.
fn compress(image: &MergedTree, compressor: &mut Compressor, buffer: &mut Vec<u8>, job: Job) -> Result<Done> {
    let mut piece = |source: Source, start: u64, length: usize| {
        buffer.resize(length, 0);
        image.read_at(source.id, start, buffer)?;
        compressor.compress(buffer, start + length as u64 == source.size)
    };
    match job {
        Job::Piece(source, start, length) => {
            Ok(Done::Piece(source, start, piece(source, start, length as usize)?))
        }
        Job::Files(files) => {
            let files = files.into_iter().map(|(source, compressed)| {
                let segment = compressed.then(|| piece(source, 0, source.size as usize)).transpose()?;
                Ok((source, segment))
            });
            files.collect::<Result<_>>().map(Done::Files)
        }
    }
}

/// Writes what the threads have made, one file after the other.
struct Writer<'a, 'b, 'c, 'd> {
    inodes: &'a Inodes<'c, FileData>,
    bodies: &'a mut Bodies<'b>,
    extents: ExtentWriter,
    /// The file that comes in pieces.
    current: Option<Current>,
    out: &'a mut BlockStream<'d>,
}

/// A file that comes in pieces.
struct Current {
    recorded: Recorded,
    is_smaller: bool,
}

impl Writer<'_, '_, '_, '_> {
    fn take(&mut self, done: Done) -> Result<()> {
        match done {
            Done::Files(files) => files.into_iter().try_for_each(|(source, segment)| {
                match segment.map(|segment| self.file(source, segment)).transpose()? {
                    Some(true) => Ok(()),
                    Some(false) | None => {
                        self.bodies.write_file(self.inodes, source.at, source.id, source.size, self.out)
                    }
                }
            }),
            Done::Piece(source, start, segment) => self.piece(source, start, segment),
        }
    }

    /// Writes a file that came at once, if that makes it smaller.
    fn file(&mut self, source: Source, segment: Segment) -> Result<bool> {
        let Source { at, size, .. } = source;
        if !segment.is_smaller {
            return Ok(false);
        }
        let tail = segment.tail.as_ref().map_or(0, |tail| tail.bytes.len() as u64);
        let end = self.indexes_end(source)?;
        let compressed = segment.blocks.len() as u64 + end + if fits(end, tail) { tail } else { BLOCK_SIZE };
        let own = self.own_size(at)?;
        let whole = size / BLOCK_SIZE * BLOCK_SIZE;
        let rest = match size % BLOCK_SIZE {
            rest if rest == 0 || self.bodies.rest_fits(self.inodes, at, size)? => rest,
            _ => BLOCK_SIZE,
        };
        if compressed >= own + whole + rest {
            return Ok(false);
        }
        self.begin()?;
        self.append(source, segment)?;
        self.end(source)?;
        Ok(true)
    }

    fn piece(&mut self, source: Source, start: u64, segment: Segment) -> Result<()> {
        if start == 0 {
            self.begin()?;
        }
        let is_last = segment.tail.is_some() || start + segment_length(&segment) == source.size;
        self.append(source, segment)?;
        if is_last { self.end(source) } else { Ok(()) }
    }

    fn begin(&mut self) -> Result<()> {
        let (at, start) = (self.extents.position(), self.out.block()?);
        let recorded = Recorded { at, extents: 0, tail: 0, start, blocks: 0 };
        self.current = Some(Current { recorded, is_smaller: false });
        Ok(())
    }

    fn append(&mut self, source: Source, segment: Segment) -> Result<()> {
        let end = self.indexes_end(source)?;
        let Some(Current { recorded, is_smaller }) = &mut self.current else { return Err(no_start()) };
        *is_smaller |= segment.is_smaller;
        // What is not compressed at all has its last part behind the inode, or in a block, without any of this.
        let tail = segment.tail.filter(|_| *is_smaller);
        let mut blocks = segment.blocks;
        recorded.blocks += (blocks.len() as u64 / BLOCK_SIZE) as u32;
        recorded.extents += segment.extents.len() as u32;
        segment.extents.iter().try_for_each(|extent| self.extents.extent(*extent))?;
        if let Some(Tail { length, is_plain, mut bytes }) = tail {
            let is_inline = fits(end, bytes.len() as u64);
            let is_plain = is_plain || (!is_inline && u64::from(length) <= BLOCK_SIZE);
            recorded.extents += 1;
            self.extents.extent(Extent { length, blocks: 1, is_plain })?;
            if is_inline {
                recorded.tail = bytes.len() as u32;
                self.extents.bytes(&bytes)?;
            } else {
                recorded.blocks += 1;
                if is_plain {
                    bytes.resize(length as usize, 0);
                    self.bodies.image.read_at(source.id, source.size - u64::from(length), &mut bytes)?;
                }
                let padding = vec![0; BLOCK as usize - bytes.len()];
                let parts = if is_plain { [bytes, padding] } else { [padding, bytes] };
                blocks.extend(parts.into_iter().flatten());
            }
        }
        self.out.write(&blocks)
    }

    fn end(&mut self, source: Source) -> Result<()> {
        let Some(Current { recorded, is_smaller }) = self.current.take() else { return Err(no_start()) };
        if is_smaller {
            return self.bodies.place_compressed(source.id, recorded);
        }
        let Source { at, id, size } = source;
        self.bodies.place_plain(self.inodes, at, (id, size), recorded.start, self.out)
    }

    /// The bytes of an inode and its xattrs.
    fn own_size(&self, at: usize) -> Result<u64> {
        let inode = self.inodes.inode(at)?;
        Ok(self.inodes.own_size(&inode) + inode.xattr_size())
    }

    /// The bytes of a file's inode up to the end of its indexes.
    fn indexes_end(&self, source: Source) -> Result<u64> {
        Ok(Packs::behind(self.own_size(source.at)?, source.size.div_ceil(BLOCK_SIZE)).end())
    }
}

/// Whether a last cluster of so many bytes stands in one block behind indexes that end there. What takes more than a
/// block starts at one.
fn fits(end: u64, tail: u64) -> bool {
    end % BLOCK_SIZE + tail <= BLOCK_SIZE
}

fn segment_length(segment: &Segment) -> u64 {
    segment.extents.iter().map(|extent| u64::from(extent.length)).sum()
}

fn no_start() -> Error {
    Error::new(ErrorKind::Internal, "a piece of a file came before its start")
}
