//! The members of a gzip stream (RFC 1952), step by step, from the first one or from within one.
//!
//! The deflate data is inflated without its frame, so that it may be taken up at any block. Header and trailer are read
//! here.

pub(super) mod resume;

mod header;

use zlib_rs::crc32::crc32;
use zlib_rs::{Inflate, InflateFlush, Status};

use self::header::Header;
use self::resume::prefix;
use crate::Result;
use crate::layer::fault::LayerFault;

/// log2 of the window of deflate (RFC 1951 section 3.2.5).
const WINDOW_BITS: u8 = 15;
/// How far back a distance reaches, in bytes.
pub(super) const WINDOW: usize = 1 << WINDOW_BITS;

const BROKEN: LayerFault = LayerFault::GZIP_BROKEN;
const TRUNCATED: LayerFault = LayerFault::Malformed("the gzip data is truncated");

/// CRC-32 and length, modulo 2^32, of what was decoded of one member.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Sum {
    pub(super) crc: u32,
    pub(super) length: u32,
}

/// The progress of one step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Step {
    /// Bytes taken from the input.
    pub(super) read: usize,
    /// Bytes put into the output.
    pub(super) written: usize,
    /// Whether a deflate block has just ended, and nothing of the next one is read.
    pub(super) block: bool,
    /// Whether anything has happened.
    pub(super) moved: bool,
    /// What comes behind the bytes that are written, if anything does.
    pub(super) edge: Option<Edge>,
}

/// Where the data of a member begins or ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Edge {
    Begin,
    /// With the CRC-32 that the data has to have.
    End(u32),
}

/// A decoder of any number of members.
pub(super) struct Members {
    inflate: Inflate,
    state: State,
    /// Whether the CRC-32 is computed and compared here.
    is_summed: bool,
    /// Of the member that is decoded, or of the last one.
    sum: Sum,
    /// Of the member with the last byte that was decoded.
    last: Sum,
    /// Whether a member has ended or begun: what follows and is not a member is trailing data.
    started: bool,
}

#[derive(Debug)]
enum State {
    /// Nothing, or a member is complete.
    Between,
    Header(Header),
    Data,
    /// A part of the trailer, and how many bytes of it are read.
    Trailer(TrailerPart, [u8; 4], usize),
}

/// The parts of a trailer, in their order (RFC 1952 section 2.3.1).
#[derive(Debug)]
enum TrailerPart {
    Crc,
    Length,
}

impl Members {
    /// At the first byte of a member.
    pub(super) fn new() -> Self {
        let (inflate, sum) = (Inflate::new(false, WINDOW_BITS), Sum::default());
        Self { inflate, state: State::Between, is_summed: true, sum, last: sum, started: false }
    }

    /// The same for who compares the CRC-32 of each member at its [end](Edge::End).
    pub(super) fn unsummed() -> Self {
        Self { is_summed: false, ..Self::new() }
    }

    /// The same again.
    pub(super) fn restart(&mut self) {
        self.state = State::Between;
        self.started = false;
    }

    /// At a block within a member, of which `sum` is decoded, the last of it in `window`. The block begins at the bit `bit`
    /// of a byte; `byte` is that one, unless the block begins with the next byte.
    pub(super) fn resume(&mut self, window: &[u8], sum: Sum, bit: u8, byte: u8) -> Result<()> {
        self.inflate.reset(false);
        self.state = State::Data;
        self.sum = sum;
        self.last = sum;
        self.started = true;
        if !window.is_empty() {
            self.inflate.set_dictionary(window).map_err(|_| BROKEN)?;
        }
        if bit != 0 {
            let prefix = prefix(bit, byte);
            let before = self.inflate.total_in();
            self.inflate.decompress(&prefix, &mut [], InflateFlush::NoFlush).map_err(|_| BROKEN)?;
            if self.inflate.total_in() - before != prefix.len() as u64 {
                return Err(LayerFault::STUCK.into());
            }
        }
        Ok(())
    }

    /// Decodes from `input` into `output` until one of them is used up, a part of a member ends, or, where `at_block` says so,
    /// a block.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), checksums and trailing data included.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8], at_block: bool) -> Result<Step> {
        let mut step = Step::default();
        match &mut self.state {
            State::Between => {
                match input.first() {
                    None => return Ok(step),
                    Some(0x1f) => {}
                    Some(_) if self.started => return Err(LayerFault::TRAILING.into()),
                    Some(_) => return Err(BROKEN.into()),
                }
                self.state = State::Header(Header::new());
                self.started = true;
                step.moved = true;
            }
            State::Header(header) => {
                let (read, ended) = header.read(input)?;
                step.read = read;
                if ended {
                    self.inflate.reset(false);
                    self.sum = Sum::default();
                    self.state = State::Data;
                    step.edge = Some(Edge::Begin);
                }
            }
            State::Data => step = self.data(input, output, at_block)?,
            State::Trailer(part, bytes, have) => {
                step.read = input.len().min(bytes.len() - *have);
                bytes[*have..*have + step.read].copy_from_slice(&input[..step.read]);
                *have += step.read;
                if *have == bytes.len() {
                    let (expected, Sum { crc, length }) = (u32::from_le_bytes(*bytes), self.sum);
                    match part {
                        TrailerPart::Crc if self.is_summed && crc != expected => return Err(BROKEN.into()),
                        TrailerPart::Crc => {
                            step.edge = Some(Edge::End(expected));
                            self.state = State::Trailer(TrailerPart::Length, [0; 4], 0);
                        }
                        TrailerPart::Length if length != expected => return Err(BROKEN.into()),
                        TrailerPart::Length => self.state = State::Between,
                    }
                }
            }
        }
        step.moved |= step.read > 0 || step.written > 0;
        Ok(step)
    }

    fn data(&mut self, input: &[u8], output: &mut [u8], at_block: bool) -> Result<Step> {
        let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
        let flush = if at_block { InflateFlush::Block } else { InflateFlush::NoFlush };
        let status = self.inflate.decompress(input, output, flush).map_err(|_| BROKEN)?;
        let read = (self.inflate.total_in() - read) as usize;
        let written = (self.inflate.total_out() - written) as usize;
        if written > 0 {
            let Sum { crc, length } = self.sum;
            let crc = if self.is_summed { crc32(crc, &output[..written]) } else { 0 };
            self.sum = Sum { crc, length: length.wrapping_add(written as u32) };
            self.last = self.sum;
        }
        let ended = status == Status::StreamEnd;
        if ended {
            self.state = State::Trailer(TrailerPart::Crc, [0; 4], 0);
        } else if read == 0 && written == 0 && !input.is_empty() && !output.is_empty() && !at_block {
            return Err(LayerFault::STUCK.into());
        }
        let block = at_block && !ended && read < input.len() && written < output.len();
        Ok(Step { read, written, block, moved: ended, edge: None })
    }

    /// Checks that the input may end here.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) within a member.
    pub(super) fn finish(&self) -> Result<()> {
        if self.is_between() { Ok(()) } else { Err(TRUNCATED.into()) }
    }

    /// Whether a member is complete, or none has begun.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.state, State::Between)
    }

    /// Whether the data of a member is decoded.
    pub(super) fn is_within(&self) -> bool {
        matches!(self.state, State::Data)
    }

    /// Of the member that is decoded, if it is summed.
    pub(super) fn sum(&self) -> Sum {
        self.sum
    }

    /// Of the member with the last byte that was decoded.
    pub(super) fn last(&self) -> Sum {
        self.last
    }
}
