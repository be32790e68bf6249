//! Checksums of files that are there, on all cores.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::fs::Advice;

use super::segments::{BLOCK, Segments, blocks_of, of_zeros, sum_of};
use super::sums::{BlockSums, joined};
use crate::blocking::Stop;
use crate::data_from;
use crate::page_buffer::PageBuffer;
use crate::worker::cores;
use crate::xxh3::Xxh3;
use crate::{Error, Result};

/// Blocks that a thread reads in a row.
const ROW: usize = 8;
/// What is read at once by each thread, and all that it holds: it stays in the cache of a core.
const CHUNK: usize = 256 << 10;

/// How a file is read.
pub struct Reading<'a> {
    /// At most so many threads.
    pub threads: usize,
    /// Says whether the work is cancelled.
    pub stop: &'a Stop,
    /// Called when so many more bytes have been read; holes count as read.
    pub read: &'a (dyn Fn(u64) + Sync),
}

impl<'a> Reading<'a> {
    /// On all cores.
    pub fn on_all_cores(stop: &'a Stop) -> Self {
        Self { threads: cores(), stop, read: &|_| () }
    }
}

impl std::fmt::Debug for Reading<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// The checksums of a file.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io), [`Corrupt`](crate::ErrorKind::Corrupt) when the file becomes shorter,
/// [`Cancelled`](crate::ErrorKind::Cancelled).
pub fn of_file(file: &File, reading: &Reading<'_>) -> Result<BlockSums> {
    let size = file.metadata().map_err(|e| Error::io("looking at a file", e))?.len();
    let sums = Mutex::new(Segments::default());
    each_block(file, size, 0..blocks_of(size), reading, &|block, sum| {
        sums.lock().unwrap_or_else(PoisonError::into_inner).set(block, sum);
    })?;
    Ok(BlockSums { size, sums: sums.into_inner().unwrap_or_else(PoisonError::into_inner) })
}

/// The ranges of a file that are not what they were, in whole blocks, neighbours together.
///
/// # Errors
/// As [`of_file`]; [`Corrupt`](crate::ErrorKind::Corrupt) when it has another size.
pub fn damaged(file: &File, sums: &BlockSums, reading: &Reading<'_>) -> Result<Vec<Range<u64>>> {
    let found = Mutex::new(Vec::new());
    each_block(file, sums.size, 0..blocks_of(sums.size), reading, &|block, sum| {
        if sums.of_block(block) != sum {
            found.lock().unwrap_or_else(PoisonError::into_inner).push(block);
        }
    })?;
    // Nothing was missed where it became shorter meanwhile: what is not there reads as a hole.
    let size = file.metadata().map_err(|e| Error::io("looking at a file", e))?.len();
    if size != sums.size {
        return Err(Error::corrupt(format!(
            "size mismatch: recorded with {} bytes, it has {size}",
            sums.size
        )));
    }
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_unstable();
    Ok(joined(found, sums.size))
}

/// Calls `each` with the checksums of some blocks of a file, in any order. Holes are not read.
pub(super) fn each_block(
    file: &File,
    size: u64,
    blocks: impl IntoIterator<Item = u64, IntoIter: Send>,
    reading: &Reading<'_>,
    each: &(dyn Fn(u64, u64) + Sync),
) -> Result<()> {
    let blocks = blocks.into_iter();
    let rows = blocks.size_hint().0.div_ceil(ROW);
    let blocks = Mutex::new(blocks);
    let (failed, outcome) = (AtomicBool::new(false), Mutex::new(Ok(())));
    // The kernel then reads ahead twice as far. The advice may fail without harm.
    let _ = rustix::fs::fadvise(file, 0, None, Advice::Sequential);
    let work = || {
        let mut chunk = PageBuffer::default();
        while !failed.load(Ordering::Relaxed) {
            let row: Vec<u64> = {
                let mut blocks = blocks.lock().unwrap_or_else(PoisonError::into_inner);
                blocks.by_ref().take(ROW).collect()
            };
            if row.is_empty() {
                break;
            }
            if let Err(e) = sum_row(file, size, &row, &mut chunk, reading, each) {
                failed.store(true, Ordering::Relaxed);
                *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Err(e);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..reading.threads.min(rows) {
            // With fewer threads it takes longer, and works.
            let _ = thread::Builder::new().name("plyfold-sums".to_owned()).spawn_scoped(scope, work);
        }
        work();
    });
    outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn sum_row(
    file: &File,
    size: u64,
    row: &[u64],
    chunk: &mut PageBuffer,
    reading: &Reading<'_>,
    each: &(dyn Fn(u64, u64) + Sync),
) -> Result<()> {
    // Where the data is that comes next.
    let mut data = Some(0);
    for &block in row {
        reading.stop.check()?;
        let start = block * BLOCK;
        let length = BLOCK.min(size - start);
        if data.is_some_and(|data| data <= start) {
            data = data_from(file, start).map_err(unreadable)?;
        }
        let is_hole = data.is_none_or(|data| data >= start + length);
        each(block, if is_hole { of_zeros(length) } else { sum_of_block(file, start, length, chunk)? });
        (reading.read)(length);
    }
    Ok(())
}

fn sum_of_block(file: &File, mut at: u64, mut length: u64, chunk: &mut PageBuffer) -> Result<u64> {
    let chunk = chunk.first(CHUNK);
    let mut xxh3 = Xxh3::default();
    while length > 0 {
        let part = &mut chunk[..CHUNK.min(usize::try_from(length).unwrap_or(CHUNK))];
        let count = match file.read_at(part, at) {
            Ok(0) => return Err(Error::corrupt(format!("the file ends after {at} bytes"))),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(unreadable(e)),
        };
        xxh3.update(&part[..count]);
        (at, length) = (at + count as u64, length - count as u64);
    }
    Ok(sum_of(&xxh3))
}

fn unreadable(e: io::Error) -> Error {
    Error::io("it cannot be read", e)
}
