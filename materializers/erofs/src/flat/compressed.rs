//! Compresses the files of a whole image.

use std::fs::File;
use std::iter;

use plyfold_core::Result;
use plyfold_core::tree::{FileData, Kind, MergedTree, NodeId};

use super::bodies::Bodies;
use crate::compress::algorithm::{BATCH, Compression, SIZE_MAX, SIZE_MIN};
use crate::compress::buffers::{Buffer, Buffers};
use crate::compress::clusters::{ClusterWriter, Room, Written};
use crate::compress::codec::Codec;
use crate::compress::extents::ExtentWriter;
use crate::compress::pool::{Taker, in_order};
use crate::compress::segment::{Compressor, Segment};
use crate::data;
use crate::inodes::Inodes;
use crate::stream::BlockStream;

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

/// What comes of it, and the clusters of all.
enum Done {
    Files(Vec<(Source, Option<Segment>)>, Buffer),
    Piece(Source, u64, Segment, Buffer),
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
    let buffers = Buffers::default();
    let clusters = ClusterWriter::new(ExtentWriter::new(scratch));
    let writer = Writer { inodes, bodies, buffers: &buffers, clusters, out };
    let state = || {
        let compressor = Compressor::new(Codec::new(compression)?, compression.cluster);
        Ok((compressor, Buffer::default()))
    };
    let work = |(compressor, buffer): &mut (Compressor, Buffer), job| {
        compress(image, compressor, buffer, buffers.take(), job)
    };
    let writer = in_order(compression.workers(), state, work, writer, |queue| {
        jobs(image, inodes, segment).try_for_each(|job| queue.push(job?))
    })?;
    let Writer { bodies, clusters, .. } = writer;
    bodies.end_compressed(compression, clusters.extents.finish()?);
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
fn compress(
    image: &MergedTree,
    compressor: &mut Compressor,
    buffer: &mut Buffer,
    mut clusters: Buffer,
    job: Job,
) -> Result<Done> {
    let mut piece = |source: Source, start: u64, length: usize| {
        buffer.clear();
        let bytes = buffer.room(length);
        image.read_at(source.id, start, bytes)?;
        compressor.compress(bytes, start + length as u64 == source.size, &mut clusters)
    };
    match job {
        Job::Piece(source, start, length) => {
            let segment = piece(source, start, length as usize)?;
            Ok(Done::Piece(source, start, segment, clusters))
        }
        Job::Files(files) => {
            let files = files.into_iter().map(|(source, compressed)| {
                let segment = compressed.then(|| piece(source, 0, source.size as usize)).transpose()?;
                Ok((source, segment))
            });
            let files = files.collect::<Result<_>>()?;
            Ok(Done::Files(files, clusters))
        }
    }
}

/// Writes what the threads have made, one file after the other.
struct Writer<'a, 'b, 'c, 'd> {
    inodes: &'a Inodes<'c, FileData>,
    bodies: &'a mut Bodies<'b>,
    buffers: &'a Buffers,
    clusters: ClusterWriter,
    out: &'a mut BlockStream<'d>,
}

impl Taker<Done> for Writer<'_, '_, '_, '_> {
    fn take(&mut self, done: Done) -> Result<()> {
        match done {
            Done::Files(files, clusters) => {
                let mut at = 0;
                for (source, segment) in files {
                    let next = at + segment.as_ref().map_or(0, |segment| segment.length);
                    self.file(source, segment, &clusters[at..next])?;
                    at = next;
                }
                self.buffers.give_back(clusters);
            }
            Done::Piece(source, start, segment, clusters) => {
                self.piece(source, start, segment, &clusters)?;
                self.buffers.give_back(clusters);
            }
        }
        Ok(())
    }
}

impl Writer<'_, '_, '_, '_> {
    /// Writes a file that came at once, compressed if that makes it smaller.
    fn file(&mut self, source: Source, segment: Option<Segment>, clusters: &[u8]) -> Result<()> {
        let Source { at, id, size } = source;
        let room = self.room(source)?;
        let Some(segment) = segment.filter(|segment| room.is_less(segment)) else {
            return self.bodies.write_file(self.inodes, at, id, size, self.out);
        };
        self.clusters.begin(self.out)?;
        self.clusters.append(room, segment, clusters, self.out)?;
        self.end(source)
    }

    fn piece(&mut self, source: Source, start: u64, segment: Segment, clusters: &[u8]) -> Result<()> {
        if start == 0 {
            self.clusters.begin(self.out)?;
        }
        let is_last = segment.tail.is_some() || start + segment_length(&segment) == source.size;
        self.clusters.append(self.room(source)?, segment, clusters, self.out)?;
        if is_last { self.end(source) } else { Ok(()) }
    }

    fn end(&mut self, source: Source) -> Result<()> {
        let Written { recorded, is_smaller, .. } = self.clusters.end()?;
        if is_smaller {
            return self.bodies.place_compressed(source.id, recorded);
        }
        let Source { at, id, size } = source;
        self.bodies.place_plain(self.inodes, at, (id, size), recorded.start, self.out)
    }

    fn room(&self, source: Source) -> Result<Room> {
        let inode = self.inodes.inode(source.at)?;
        let own = self.inodes.own_size(&inode) + inode.xattr_size();
        Ok(Room { size: source.size, own, is_exact: true })
    }
}

fn segment_length(segment: &Segment) -> u64 {
    segment.extents.iter().map(|extent| u64::from(extent.length)).sum()
}
