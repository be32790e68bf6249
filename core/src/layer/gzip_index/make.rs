//! An index, made while a gzip blob is decoded.

use std::fmt;

use zlib_rs::{Inflate, InflateFlush};
use zstd::bulk::Compressor;

use super::GzipIndex;
use super::point::{Point, Within};
use crate::Result;
use crate::layer::fault::LayerFault;
use crate::layer::gunzip::resume::prefix;
use crate::layer::gunzip::{Members, Sum, WINDOW};

/// Uncompressed bytes between two places at least.
const SPACING: u64 = 4 << 20;
/// A place comes behind this part of that many compressed bytes at least: what is highly compressed needs few places.
const COMPRESSED: u64 = 16;
/// Bytes that the places of an index take at most; beyond, every second one goes.
pub(super) const MAX_BYTES: usize = 8 << 20;
/// The level of zstd for windows: the fastest of those that compress well.
const LEVEL: i32 = 1;
/// Bytes of a stored block at most (RFC 1951 section 3.2.4).
const STORED: u64 = 65_535;
/// Bytes behind a block's first bit that are decoded from there to find that bit: uncompressed, and compressed.
const PROOF: (usize, usize) = (8 << 10, 64 << 10);

/// A decoder of gzip that makes an index on the way. It yields the bytes and the errors of one that makes none.
///
/// The decoder is stopped at the end of a block once in a while. It then says which byte has the last bit of the block, and
/// not which bit that is: the bit is found by decoding what follows from each of them.
pub struct GzipIndexing {
    members: Members,
    read: u64,
    written: u64,
    points: Vec<Point>,
    /// Bytes that these take.
    bytes: usize,
    /// Uncompressed bytes between two places at least.
    spacing: u64,
    /// How many bytes are written when the next place is due.
    due: u64,
    search: Search,
    /// Where the last place is, if it is one only where another block follows.
    unsure: Option<u64>,
    tools: Option<Tools>,
    /// The last byte that was read.
    last: u8,
}

/// What finds the bit, and compresses the window.
struct Tools {
    probe: Inflate,
    compressor: Compressor<'static>,
}

/// What is looked for.
enum Search {
    /// Nothing, until a place is due.
    Rest,
    /// The end of a block, once this has all of the window.
    Block(Vec<u8>),
    /// The last bit of a block.
    Bit(Box<Found>),
}

/// The end of a block.
struct Found {
    /// Where the byte behind it is in the blob.
    end: u64,
    offset: u64,
    sum: Sum,
    window: Vec<u8>,
    /// The byte with its last bit.
    last: u8,
    /// What comes behind that, compressed and uncompressed.
    input: Vec<u8>,
    output: Vec<u8>,
}

impl fmt::Debug for GzipIndexing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read, written, points, .. } = self;
        let mut debug = f.debug_struct("GzipIndexing");
        debug
            .field("read", read)
            .field("written", written)
            .field("points", &points.len())
            .finish_non_exhaustive()
    }
}

impl Default for GzipIndexing {
    fn default() -> Self {
        Self::spaced(SPACING)
    }
}

impl GzipIndexing {
    /// With so many uncompressed bytes between two places at least, which are 4 MiB by default.
    pub fn spaced(spacing: u64) -> Self {
        let spacing = spacing.max(1);
        Self {
            members: Members::new(),
            read: 0,
            written: 0,
            points: Vec::new(),
            bytes: 0,
            spacing,
            due: spacing,
            search: Search::Rest,
            unsure: None,
            tools: None,
            last: 0,
        }
    }

    /// Decodes from `input` into `output` until one of them is used up; how many bytes are taken and written. There is
    /// nothing left to write when all is taken and `output` is not full.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt).
    pub fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize)> {
        let (mut read, mut written) = (0, 0);
        loop {
            self.begin(&input[read..]);
            let (input, output) = (&input[read..], &mut output[written..]);
            let (at_block, room) = match &self.search {
                Search::Rest => (false, output.len()),
                Search::Block(window) if window.len() < WINDOW => (false, WINDOW),
                Search::Block(_) => (true, output.len()),
                Search::Bit(found) => (false, PROOF.0 - found.output.len()),
            };
            let room = room.min(output.len());
            let step = self.members.step(input, &mut output[..room], at_block)?;
            (self.read, self.written) = (self.read + step.read as u64, self.written + step.written as u64);
            (read, written) = (read + step.read, written + step.written);
            self.look(&input[..step.read], &output[..step.written], step.block)?;
            if step.written == output.len() || step.read == input.len() && step.written < room && !step.block
            {
                return Ok((read, written));
            }
        }
    }

    /// The index, once the input has ended.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when it has ended within a member.
    pub fn finish(mut self) -> Result<GzipIndex> {
        self.members.finish()?;
        self.end_member();
        Ok(GzipIndex { blob_size: self.read, size: self.written, points: self.points })
    }

    /// Before a step: notes a member that begins, and looks for a block when a place is due.
    fn begin(&mut self, input: &[u8]) {
        let last = self.points.last().map_or(0, Point::byte);
        let is_due = self.written >= self.due && self.read - last >= self.spacing / COMPRESSED;
        if self.members.is_between() {
            self.search = Search::Rest;
            self.end_member();
            if is_due && input.first() == Some(&0x1f) {
                self.note(Point { bit: self.read * 8, offset: self.written, within: None });
            }
        } else if is_due && self.members.is_within() && matches!(self.search, Search::Rest) {
            self.search = Search::Block(Vec::new());
        }
    }

    /// A member has ended: a place is none that was taken for one where another block follows, if that can have been the last
    /// block.
    fn end_member(&mut self) {
        let unsure = self.unsure.take().filter(|offset| self.written - offset <= STORED);
        if unsure.is_some() && self.points.last().map(|point| point.offset) == unsure {
            self.bytes -= self.points.pop().map_or(0, |point| point.bytes());
        }
    }

    /// After a step.
    fn look(&mut self, input: &[u8], output: &[u8], block: bool) -> Result<()> {
        self.last = input.last().copied().unwrap_or(self.last);
        if !self.members.is_within() {
            self.search = Search::Rest;
        }
        match &mut self.search {
            Search::Rest => {}
            Search::Block(window) => {
                window.extend_from_slice(&output[output.len().saturating_sub(WINDOW)..]);
                window.drain(..window.len().saturating_sub(WINDOW));
                if block {
                    self.search = Search::Bit(Box::new(Found {
                        end: self.read,
                        offset: self.written,
                        sum: self.members.sum(),
                        window: std::mem::take(window),
                        last: self.last,
                        input: Vec::new(),
                        output: Vec::new(),
                    }));
                }
            }
            Search::Bit(found) => {
                found.input.extend_from_slice(input);
                found.output.extend_from_slice(output);
                if found.output.len() == PROOF.0 || found.input.len() > PROOF.1 {
                    let tools = match &mut self.tools {
                        Some(tools) => tools,
                        none => none.insert(Tools::new()?),
                    };
                    let unused = found.unused(&mut tools.probe);
                    let point =
                        unused.map(|(unused, _)| found.point(unused, &mut tools.compressor)).transpose()?;
                    self.search = Search::Rest;
                    self.due = self.written + self.spacing;
                    if let Some(point) = point {
                        self.unsure = unused.filter(|(_, is_sure)| !is_sure).map(|_| point.offset);
                        self.note(point);
                    }
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, point: Point) {
        self.bytes += point.bytes();
        self.due = point.offset + self.spacing;
        self.points.push(point);
        if self.bytes > MAX_BYTES {
            let mut place = 0;
            self.points.retain(|_| {
                place += 1;
                place % 2 == 0
            });
            self.bytes = self.points.iter().map(Point::bytes).sum();
            self.spacing *= 2;
        }
    }
}

impl Tools {
    fn new() -> Result<Self> {
        let compressor = Compressor::new(LEVEL).map_err(|_| LayerFault::NoMemory)?;
        Ok(Self { probe: Inflate::new(false, 15), compressor })
    }
}

impl Found {
    /// How many bits of the byte with the last bit of the block belong to the next one, and whether that is sure.
    ///
    /// The header of a stored block is followed by the rest of a byte, which says nothing: it may seem to begin at several bits.
    /// Taken is the first of those where it is not the last block of its member. Together with what comes before the block no
    /// bit is left out then.
    fn unused(&self, probe: &mut Inflate) -> Option<(u8, bool)> {
        let places: Vec<u8> = (0..8).rev().filter(|unused| self.begins(*unused, probe)).collect();
        let is_last = |unused: &u8| match 8 - unused {
            8 => self.input.first().is_some_and(|byte| byte & 1 == 1),
            bit => self.last >> bit & 1 == 1,
        };
        let first = places.iter().find(|place| !is_last(place)).or(places.first())?;
        Some((*first, places.iter().all(|place| is_last(place) == is_last(first))))
    }

    /// Whether what follows is decoded as it was when the last so many bits of the byte before it are the first of it.
    fn begins(&self, unused: u8, probe: &mut Inflate) -> bool {
        probe.reset(false);
        if probe.set_dictionary(&self.window).is_err() {
            return false;
        }
        if unused > 0 {
            let prefix = prefix(8 - unused, self.last);
            if probe.decompress(&prefix, &mut [], InflateFlush::NoFlush).is_err() {
                return false;
            }
        }
        let mut output = vec![0; self.output.len()];
        let decoded = probe.decompress(&self.input, &mut output, InflateFlush::NoFlush);
        decoded.is_ok() && probe.total_out() == output.len() as u64 && output == self.output
    }

    fn point(&self, unused: u8, compressor: &mut Compressor<'_>) -> Result<Point> {
        let within = Within::new(self.sum, &self.window, compressor)?;
        Ok(Point { bit: self.end * 8 - u64::from(unused), offset: self.offset, within: Some(within) })
    }
}
