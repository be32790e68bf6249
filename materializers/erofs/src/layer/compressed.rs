//! Compresses the files of one layer, in one pass over its tar.
//!
//! A file's inode is not known before the last entry: the time that most inodes have need not be stored, and
//! attributes that several files have are shared. Where its last part stands is decided with the most that the inode may
//! take.

use std::fs::File;
use std::ops::Range;

use plyfold_core::Result;
use plyfold_core::layer::{DataExtent, LayerTar, TreeLimits};

use super::bodies::{Bodies, LayerFile};
use super::source::Data;
use crate::compress::algorithm::{BATCH, BLOCK, Compression, PIECE, SIZE_MAX, SIZE_MIN, WHOLE};
use crate::compress::buffers::{Buffer, Buffers};
use crate::compress::clusters::{ClusterWriter, Room, Written};
use crate::compress::extents::ExtentWriter;
use crate::compress::pool::{Queue, Taker, in_order};
use crate::compress::segment::{Behind, Compressor, Segment};
use crate::content::Content;
use crate::data;
use crate::stream::BlockStream;

/// Jobs for each thread, each with its bytes: the one that it does, and one that waits.
const WINDOW: u64 = 2;

/// One file.
#[derive(Clone, Copy)]
struct Source {
    file: LayerFile,
    room: Room,
}

/// What one thread does at once: all of some files, or a piece of one, with their bytes.
enum Job {
    Files(Vec<Source>, Buffer),
    Piece(Source, u64, Buffer),
}

/// What comes of it, with the bytes of the files and the clusters.
enum Done {
    Files(Vec<(Source, Option<Segment>)>, Buffer, Buffer),
    Piece(Source, Range<u64>, Segment, Buffer),
}

/// Takes the files of a tar, one after the other.
pub(super) struct Files<'a, 'b, 'c> {
    queue: &'a mut Queue<Job, Done, Writer<'b, 'c>>,
    buffers: &'b Buffers,
    /// Small files that are not given to a thread yet, and their bytes.
    batch: (Vec<Source>, Buffer),
}

/// Gives the files that `read` takes from a tar to the threads, and writes them into the image; where their data is.
pub(super) fn write(
    compression: &Compression,
    scratch: File,
    limits: TreeLimits,
    out: &mut BlockStream<'_>,
    read: impl FnOnce(&mut Files<'_, '_, '_>) -> Result<()>,
) -> Result<Bodies> {
    let buffers = Buffers::default();
    let clusters = ClusterWriter::new(ExtentWriter::new(scratch));
    let writer = Writer { bodies: Bodies::new(limits), buffers: &buffers, clusters, out };
    let state = || Compressor::new(compression);
    let work = |compressor: &mut Compressor, job| compress(compressor, &buffers, job);
    let writer = in_order(compression.workers(), WINDOW, state, work, writer, |queue| {
        let batch = (Vec::new(), buffers.take());
        let mut files = Files { queue, buffers: &buffers, batch };
        read(&mut files)?;
        files.end_batch()
    })?;
    let Writer { mut bodies, clusters, .. } = writer;
    bodies.end(compression, clusters.extents.finish()?);
    Ok(bodies)
}

impl Files<'_, '_, '_> {
    /// The current file of the tar, of `size` bytes.
    pub(super) fn take(
        &mut self,
        tar: &mut LayerTar,
        own: u64,
        size: u64,
        runs: Option<&[DataExtent]>,
    ) -> Result<LayerFile> {
        if size == 0 {
            return Ok(LayerFile::EMPTY);
        }
        let file = self.queue.taker.bodies.add()?;
        let whole = [DataExtent { offset: 0, length: size }];
        let mut data = Data::new(size, runs.unwrap_or(&whole));
        if size > SIZE_MAX || data.is_mostly_holes() {
            self.end_batch()?;
            self.queue.drain()?;
            let Writer { bodies, out, .. } = &mut self.queue.taker;
            bodies.place(file, data::copy(tar, size, runs, out, BLOCK)?)?;
            return Ok(file);
        }
        let source = Source { file, room: Room { size, own, is_exact: false } };
        if size <= WHOLE {
            if self.batch.1.len() as u64 + size > BATCH {
                self.end_batch()?;
            }
            data.read(tar, size, &mut self.batch.1)?;
            self.batch.0.push(source);
            data.end()?;
            return Ok(file);
        }
        self.end_batch()?;
        let mut start = 0;
        while start < size {
            let length = (size - start).min(PIECE.into());
            let mut bytes = self.buffers.take();
            data.read(tar, length, &mut bytes)?;
            self.queue.push(Job::Piece(source, start, bytes))?;
            start += length;
        }
        data.end()?;
        Ok(file)
    }

    fn end_batch(&mut self) -> Result<()> {
        if self.batch.0.is_empty() {
            return Ok(());
        }
        let (files, bytes) = std::mem::replace(&mut self.batch, (Vec::new(), self.buffers.take()));
        self.queue.push(Job::Files(files, bytes))
    }
}

/// What a thread does.
fn compress(compressor: &mut Compressor, buffers: &Buffers, job: Job) -> Result<Done> {
    let mut clusters = buffers.take();
    match job {
        Job::Piece(source, start, bytes) => {
            let range = start..start + bytes.len() as u64;
            let behind = if range.end == source.room.size { Behind::End } else { Behind::More };
            let segment = compressor.compress(&bytes, behind, &mut clusters)?;
            buffers.give_back(bytes);
            Ok(Done::Piece(source, range, segment, clusters))
        }
        Job::Files(files, bytes) => {
            let mut left = &bytes[..];
            let files = files.into_iter().map(|source| {
                let (file, rest) = left.split_at(source.room.size as usize);
                left = rest;
                let compress = |file| compressor.compress(file, Behind::End, &mut clusters);
                let segment =
                    Some(file).filter(|_| source.room.size >= SIZE_MIN).map(compress).transpose()?;
                Ok((source, segment))
            });
            let files = files.collect::<Result<_>>()?;
            Ok(Done::Files(files, bytes, clusters))
        }
    }
}

/// Writes what the threads have made, one file after the other.
pub(super) struct Writer<'a, 'b> {
    bodies: Bodies,
    buffers: &'a Buffers,
    clusters: ClusterWriter,
    out: &'a mut BlockStream<'b>,
}

impl Taker<Done> for Writer<'_, '_> {
    fn take(&mut self, done: Done) -> Result<()> {
        match done {
            Done::Files(files, bytes, clusters) => {
                let (mut at, mut of_clusters) = (0, 0);
                for (source, segment) in files {
                    let next = at + source.room.size as usize;
                    let length = segment.as_ref().map_or(0, |segment| segment.length);
                    let clusters = &clusters[of_clusters..of_clusters + length];
                    self.file(source, segment, &bytes[at..next], clusters)?;
                    at = next;
                    of_clusters += length;
                }
                self.buffers.give_back(bytes);
                self.buffers.give_back(clusters);
                Ok(())
            }
            Done::Piece(source, range, segment, clusters) => {
                if range.start == 0 {
                    self.clusters.begin(self.out)?;
                }
                self.clusters.append(source.room, segment, &clusters, self.out)?;
                self.buffers.give_back(clusters);
                if range.end == source.room.size { self.end(source) } else { Ok(()) }
            }
        }
    }
}

impl Writer<'_, '_> {
    /// Writes a file that came at once, compressed if that makes it smaller.
    fn file(
        &mut self,
        source: Source,
        segment: Option<Segment>,
        bytes: &[u8],
        clusters: &[u8],
    ) -> Result<()> {
        if let Some(segment) = segment.filter(|segment| source.room.is_less(segment)) {
            self.clusters.begin(self.out)?;
            self.clusters.append(source.room, segment, clusters, self.out)?;
            return self.end(source);
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % BLOCK as usize);
        let start = self.out.block()?;
        self.out.write(whole)?;
        self.plain(source, start, rest)
    }

    fn end(&mut self, source: Source) -> Result<()> {
        let Written { recorded, is_smaller, rest } = self.clusters.end()?;
        if is_smaller {
            return self.bodies.place_compressed(source.file, recorded);
        }
        self.plain(source, recorded.start, &rest)
    }

    /// A file whose whole blocks are written, and what follows them.
    fn plain(&mut self, source: Source, start: u32, rest: &[u8]) -> Result<()> {
        if rest.is_empty() || !source.room.fits_rest() {
            self.out.write(rest)?;
            return self.bodies.place(source.file, Content::blocks(0, start));
        }
        let at = self.clusters.extents.position();
        self.clusters.extents.bytes(rest)?;
        self.bodies.place_inline(source.file, start, at);
        Ok(())
    }
}
