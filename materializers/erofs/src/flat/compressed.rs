//! Compresses the files of a whole image.

use std::fs::File;
use std::iter;
use std::ops::Range;

use plyfold_core::Result;
use plyfold_core::tree::{FileData, Kind, MergedTree};

use super::bodies::Bodies;
use super::fragments::{self, Fragments, Piece, Source};
use crate::bodies::Packed;
use crate::compress::algorithm::{BATCH, Compression, PIECE, SIZE_MAX, SIZE_MIN};
use crate::compress::buffers::{Buffer, Buffers};
use crate::compress::clusters::{ClusterWriter, Room, Written};
use crate::compress::extents::ExtentWriter;
use crate::compress::pool::{Taker, in_order};
use crate::compress::segment::{Behind, Compressor, Segment, sha256};
use crate::data;
use crate::inodes::Inodes;
use crate::stream::BlockStream;

/// Jobs for each thread, which hold no bytes until they are done: a thread has work while another is at a long job whose
/// result is taken first.
const WINDOW: u64 = 3;
/// Bytes of a file that are looked at for holes at once.
const BUFFER: usize = 256 << 10;

/// What one thread does at once: jobs are about as long as a piece of a file.
enum Job {
    /// Files, each with whether it is to be compressed.
    Files(Vec<(Source, bool)>),
    /// A piece of a file.
    Piece(Source, Range<u64>),
    /// A file with the same bytes as one before it, which came in pieces.
    Same(Source, Source),
    /// A piece of the file of all fragments.
    Packed(Piece),
}

/// What comes of it, and the clusters of all.
enum Done {
    Files(Vec<(Source, Option<Segment>)>, Buffer),
    Piece(Source, Range<u64>, Segment, Buffer),
    Same(Source, Source),
    Packed(Piece, Segment, Buffer),
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
    let buffers = Buffers::default();
    let clusters = ClusterWriter::new(ExtentWriter::new(scratch));
    let writer = Writer { inodes, bodies, buffers: &buffers, clusters, fragments: Fragments::default(), out };
    let state = || {
        let compressor = Compressor::new(compression)?;
        Ok(Worker { image, compression, compressor, buffer: Buffer::default() })
    };
    let work = |worker: &mut Worker<'_>, job| worker.compress(buffers.take(), job);
    let writer = in_order(compression.workers(), WINDOW, state, work, writer, |queue| {
        jobs(image, inodes, compression).try_for_each(|job| queue.push(job?))?;
        // Where fragments stand is known once all files are.
        queue.drain()?;
        let mut pieces = queue.taker.fragments.pieces(PIECE);
        pieces.try_for_each(|piece| queue.push(Job::Packed(piece)))
    })?;
    let Writer { bodies, clusters, .. } = writer;
    bodies.end_compressed(compression, clusters.extents.finish()?);
    Ok(())
}

/// The work in the order of the inodes, cut in the same way on every machine.
fn jobs<'a>(
    image: &'a MergedTree,
    inodes: &'a Inodes<'_, FileData>,
    compression: &'a Compression,
) -> impl Iterator<Item = Result<Job>> + use<'a> {
    // What follows in a file, and where the piece behind it starts.
    let piece = |source: Source, start: u64, cut: &mut Option<_>| {
        let end = source.size.min(start + u64::from(PIECE));
        *cut = Some((source, end)).filter(|_| end < source.size);
        Job::Piece(source, start..end)
    };
    let mut room = fragments::Room::new(compression);
    let mut large = fragments::Large::default();
    let mut files = inodes.planned.iter().enumerate().filter_map(move |(at, planned)| {
        let Kind::File { size, .. } = image.tree().node(planned.id).kind else { return None };
        (size > 0).then(|| Source { at, id: planned.id, size, fragments: room.take(compression, size) })
    });
    let mut buffer = vec![0; BUFFER];
    let mut next: Option<Source> = None;
    // The file that is cut into pieces, and where the next one starts.
    let mut cut: Option<(Source, u64)> = None;
    iter::from_fn(move || {
        if let Some((source, start)) = cut {
            return Some(Ok(piece(source, start, &mut cut)));
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
            if compressed && source.size > BATCH {
                if batch.is_empty() {
                    match source.fragments.then(|| large.equal(image, source)).transpose() {
                        Ok(Some(Some(other))) => return Some(Ok(Job::Same(source, other))),
                        Ok(_) => {}
                        Err(error) => return Some(Err(error)),
                    }
                    return Some(Ok(piece(source, 0, &mut cut)));
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

/// What a thread works with.
struct Worker<'a> {
    image: &'a MergedTree,
    compression: &'a Compression,
    compressor: Compressor,
    buffer: Buffer,
}

impl Worker<'_> {
    fn compress(&mut self, mut clusters: Buffer, job: Job) -> Result<Done> {
        match job {
            Job::Piece(source, range) => {
                let segment = self.piece(source, range.clone(), &mut clusters)?;
                Ok(Done::Piece(source, range, segment, clusters))
            }
            Job::Files(files) => {
                let files = files.into_iter().map(|(source, compressed)| {
                    let mut whole = || self.piece(source, 0..source.size, &mut clusters);
                    let segment = compressed.then(&mut whole).transpose()?;
                    Ok((source, segment))
                });
                let files = files.collect::<Result<_>>()?;
                Ok(Done::Files(files, clusters))
            }
            Job::Same(source, other) => Ok(Done::Same(source, other)),
            Job::Packed(piece) => {
                self.buffer.clear();
                for (id, start, count) in &piece.parts {
                    self.image.read_at(*id, *start, self.buffer.room(*count as usize))?;
                    self.buffer.filled(*count as usize);
                }
                let behind = if piece.is_last { Behind::End } else { Behind::More };
                let segment = self.compressor.compress(&self.buffer, behind, &mut clusters)?;
                Ok(Done::Packed(piece, segment, clusters))
            }
        }
    }

    /// A piece of a file.
    fn piece(&mut self, source: Source, range: Range<u64>, clusters: &mut Buffer) -> Result<Segment> {
        self.buffer.clear();
        let bytes = self.buffer.room((range.end - range.start) as usize);
        self.image.read_at(source.id, range.start, bytes)?;
        if source.fragments && source.size <= self.compression.cluster.into() {
            return Ok(Segment::of_fragment(bytes));
        }
        let behind = match range.end == source.size {
            false => Behind::More,
            true if source.fragments => Behind::Fragment(self.compression.fragment_max()),
            true => Behind::End,
        };
        let whole = source.fragments && range == (0..source.size);
        let sha256 = whole.then(|| sha256(bytes));
        Ok(Segment { sha256, ..self.compressor.compress(bytes, behind, clusters)? })
    }
}

/// Writes what the threads have made, one file after the other.
struct Writer<'a, 'b, 'c, 'd> {
    inodes: &'a Inodes<'c, FileData>,
    bodies: &'a mut Bodies<'b>,
    buffers: &'a Buffers,
    clusters: ClusterWriter,
    fragments: Fragments,
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
            Done::Piece(source, range, segment, clusters) => {
                self.piece(source, &range, segment, &clusters)?;
                self.buffers.give_back(clusters);
            }
            Done::Same(source, other) => self.same(source, other)?,
            Done::Packed(piece, segment, clusters) => {
                self.packed(&piece, segment, &clusters)?;
                self.buffers.give_back(clusters);
            }
        }
        Ok(())
    }
}

impl Writer<'_, '_, '_, '_> {
    /// Writes a file that came at once, compressed if that makes it smaller.
    fn file(&mut self, source: Source, segment: Option<Segment>, clusters: &[u8]) -> Result<()> {
        let Source { at, id, size, .. } = source;
        let room = self.room(source)?;
        let is_less = |segment: &Segment| segment.fragment.is_some() || room.is_less(segment);
        let Some(segment) = segment.filter(is_less) else {
            return self.bodies.write_file(self.inodes, at, id, size, self.out);
        };
        if let Some(fragment) = segment.fragment.filter(|fragment| u64::from(fragment.length) == size) {
            let at = self.fragments.place(self.bodies, source.id, 0, fragment)?;
            self.bodies.place_fragment(id, at);
            return Ok(());
        }
        let sha256 = segment.sha256;
        if let Some(same) = sha256.and_then(|sha256| self.fragments.equal(&sha256)) {
            self.bodies.place_as(id, same);
            return Ok(());
        }
        self.clusters.begin(self.out)?;
        self.append(source, segment, clusters)?;
        self.end(source)?;
        sha256.map_or(Ok(()), |sha256| self.fragments.add_file(self.bodies, sha256, id))
    }

    /// Writes what is compressed of a file, from its start or from a piece before on.
    fn append(&mut self, source: Source, segment: Segment, clusters: &[u8]) -> Result<()> {
        let fragment = segment.fragment;
        self.clusters.append(self.room(source)?, segment, clusters, self.out)?;
        let Some(fragment) = fragment else { return Ok(()) };
        let start = source.size - u64::from(fragment.length);
        let at = self.fragments.place(self.bodies, source.id, start, fragment)?;
        self.clusters.append_fragment(fragment.length, at)
    }

    fn piece(&mut self, source: Source, range: &Range<u64>, segment: Segment, clusters: &[u8]) -> Result<()> {
        if range.start == 0 {
            self.clusters.begin(self.out)?;
        }
        self.append(source, segment, clusters)?;
        if range.end == source.size { self.end(source) } else { Ok(()) }
    }

    /// A file with the same bytes as another that is written.
    fn same(&mut self, source: Source, other: Source) -> Result<()> {
        // What stands behind an inode fits there behind one of the same size.
        if self.bodies.can_be_shared(other.id) || self.room(source)?.own == self.room(other)?.own {
            self.bodies.place_as(source.id, other.id);
            return Ok(());
        }
        self.bodies.write_file(self.inodes, source.at, source.id, source.size, self.out)
    }

    /// Writes a piece of the file of all fragments.
    fn packed(&mut self, piece: &Piece, segment: Segment, clusters: &[u8]) -> Result<()> {
        if piece.is_first {
            self.clusters.begin_packed(self.out)?;
        }
        let size = piece.size;
        let own = self.inodes.own_size(&self.inodes.packed(size));
        self.clusters.append(Room { size, own, is_exact: true }, segment, clusters, self.out)?;
        if piece.is_last {
            let Written { recorded, .. } = self.clusters.end()?;
            self.bodies.place_packed(Packed { size, recorded });
        }
        Ok(())
    }

    fn end(&mut self, source: Source) -> Result<()> {
        let Written { recorded, is_smaller, .. } = self.clusters.end()?;
        if is_smaller {
            return self.bodies.place_compressed(source.id, recorded);
        }
        let Source { at, id, size, .. } = source;
        self.bodies.place_plain(self.inodes, at, (id, size), recorded.start, self.out)
    }

    fn room(&self, source: Source) -> Result<Room> {
        let inode = self.inodes.inode(source.at)?;
        let own = self.inodes.own_size(&inode) + inode.xattr_size();
        Ok(Room { size: source.size, own, is_exact: true })
    }
}
