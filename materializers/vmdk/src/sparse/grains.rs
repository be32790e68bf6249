//! Grains of a disk, compressed on several threads, in their order.

use std::io::{ErrorKind, Read};
use std::num::NonZero;
use std::thread;

use flate2::{Compress, Compression, FlushCompress, Status};
use plyfold_core::worker::cores;
use plyfold_core::{Error, Result, is_zero};

use crate::SECTOR;

/// Bytes of a grain.
pub(super) const GRAIN: usize = 64 << 10;
/// Grains that are read at once: a MiB of the disk.
const PIECE: usize = 16;
/// Pieces for each thread in one round.
const PIECES: usize = 2;
/// The most threads: each holds some MiB.
const THREADS: usize = 64;
/// `lba` and `size` in front of a compressed grain.
pub(super) const GRAIN_HEAD: usize = 12;

/// A part of the disk, and the number of its first grain. The last grain of the disk is filled up by zeros.
struct Piece {
    first: u64,
    bytes: Vec<u8>,
}

/// The grains of a piece as they are written.
pub(super) struct Packed {
    /// Each with its head, filled up to a sector.
    pub(super) bytes: Vec<u8>,
    /// For each grain its sectors in `bytes`, 0 for one of zeros, which is not written, and its checksum.
    pub(super) grains: Vec<(u64, [u8; 4])>,
}

/// Gives all grains of a disk to `take`, in their order.
pub(super) fn each(
    disk: &mut dyn Read,
    level: u32,
    threads: Option<NonZero<usize>>,
    mut take: impl FnMut(Packed) -> Result<()>,
) -> Result<()> {
    let threads = threads.map_or_else(cores, NonZero::get).min(THREADS);
    let mut first = 0;
    let mut round = || -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        while pieces.len() < threads * PIECES {
            let bytes = piece(disk)?;
            if bytes.is_empty() {
                break;
            }
            pieces.push(Piece { first, bytes });
            first += PIECE as u64;
        }
        Ok(pieces)
    };
    let mut pieces = round()?;
    while !pieces.is_empty() {
        // The next round is read while this one is compressed.
        let (packed, next) = thread::scope(|scope| {
            let run = |pieces| move || pack(pieces, level);
            let started = pieces.chunks(pieces.len().div_ceil(threads)).map(|share: &[Piece]| {
                let thread = thread::Builder::new().name("deflate".to_owned());
                thread.spawn_scoped(scope, run(share)).map_err(|e| Error::io("starting a thread", e))
            });
            let workers: Vec<_> = started.collect();
            let next = round();
            let packed = workers.into_iter().map(|worker| {
                let panicked = |_| Error::new(plyfold_core::ErrorKind::Internal, "a worker thread panicked");
                worker?.join().map_err(panicked)?
            });
            (packed.collect::<Result<Vec<_>>>(), next)
        });
        for packed in packed?.into_iter().flatten() {
            take(packed)?;
        }
        pieces = next?;
    }
    Ok(())
}

/// The next bytes of a disk: complete grains.
fn piece(disk: &mut dyn Read) -> Result<Vec<u8>> {
    let mut bytes = vec![0; PIECE * GRAIN];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match disk.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("reading the disk", e)),
        }
    }
    bytes.truncate(filled.next_multiple_of(GRAIN));
    Ok(bytes)
}

fn pack(pieces: &[Piece], level: u32) -> Result<Vec<Packed>> {
    let mut deflate = Compress::new(Compression::new(level), true);
    let mut data = Vec::with_capacity(2 * GRAIN);
    let packed = pieces.iter().map(|Piece { first, bytes }| {
        let mut packed = Packed { bytes: Vec::new(), grains: Vec::with_capacity(PIECE) };
        for (grain, number) in bytes.chunks(GRAIN).zip(*first..) {
            if is_zero(grain) {
                packed.grains.push((0, [0; 4]));
                continue;
            }
            deflate.reset();
            data.clear();
            // Twice the size is more than it ever takes.
            let status = deflate.compress_vec(grain, &mut data, FlushCompress::Finish);
            if !matches!(status, Ok(Status::StreamEnd)) {
                return Err(Error::new(plyfold_core::ErrorKind::Internal, "a grain does not compress"));
            }
            let start = packed.bytes.len();
            packed.bytes.extend_from_slice(&(number * (GRAIN as u64 / SECTOR)).to_le_bytes());
            packed.bytes.extend_from_slice(&(data.len() as u32).to_le_bytes());
            packed.bytes.extend_from_slice(&data);
            packed.bytes.resize(packed.bytes.len().next_multiple_of(SECTOR as usize), 0);
            // A stream ends with the checksum of its content (RFC 1950).
            let checksum = data.last_chunk().copied().unwrap_or_default();
            packed.grains.push(((packed.bytes.len() - start) as u64 / SECTOR, checksum));
        }
        Ok(packed)
    });
    packed.collect()
}
