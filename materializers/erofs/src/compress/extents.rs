//! The extents of files, kept in a file of their own until the indexes are written.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;

use plyfold_core::{Error, Result};

/// Bytes of an extent in the file.
const SIZE: usize = 8;
/// How many are read at once.
const AT_ONCE: usize = 8 << 10;
/// How many bytes are held of what was read.
const WINDOW: usize = 64 << 10;
const PLAIN: u16 = 1 << 15;

/// Neighbouring bytes of a file that are in one cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Extent {
    /// In bytes of the file.
    pub(crate) length: u32,
    /// In blocks.
    pub(crate) blocks: u16,
    /// It is not compressed.
    pub(crate) is_plain: bool,
}

/// What the indexes of a file are made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recorded {
    /// Where its extents stand, and behind them the last cluster.
    pub(crate) at: u64,
    pub(crate) extents: u32,
    /// Bytes of a last cluster that stands behind the indexes.
    pub(crate) tail: u32,
    /// Where the last extent stands among the fragments, if it is one.
    pub(crate) fragment: Option<u32>,
    /// The first block, and how many there are.
    pub(crate) start: u32,
    pub(crate) blocks: u32,
}

/// Extents of files, one file after the other.
#[derive(Debug)]
pub(crate) struct ExtentWriter {
    out: BufWriter<File>,
    position: u64,
}

impl ExtentWriter {
    pub(crate) fn new(file: File) -> Self {
        Self { out: BufWriter::with_capacity(64 << 10, file), position: 0 }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn extent(&mut self, extent: Extent) -> Result<()> {
        let kind = extent.blocks | if extent.is_plain { PLAIN } else { 0 };
        let record = u64::from(extent.length) | u64::from(kind) << 32;
        self.bytes(&record.to_le_bytes())
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.position += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|e| Error::io("writing extents to a temporary file", e))
    }

    pub(crate) fn finish(self) -> Result<ExtentReader> {
        let file = self.out.into_inner();
        let file = file.map_err(|e| Error::io("writing extents to a temporary file", e.into_error()))?;
        Ok(ExtentReader { file, window: RefCell::default() })
    }
}

/// The same, to be read: mostly in order, so that what was read last has what is asked for next.
#[derive(Debug)]
pub(crate) struct ExtentReader {
    file: File,
    /// The bytes from a place on.
    window: RefCell<(u64, Vec<u8>)>,
}

impl ExtentReader {
    /// Shows the extents of a file, one after the other; its last cluster.
    pub(crate) fn for_each(&self, of: &Recorded, mut show: impl FnMut(Extent)) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let (mut at, mut left) = (of.at, of.extents as usize);
        loop {
            let count = left.min(AT_ONCE);
            let tail = if count == left { of.tail as usize } else { 0 };
            bytes.resize(count * SIZE + tail, 0);
            self.read(at, &mut bytes)?;
            for record in bytes[..count * SIZE].chunks_exact(SIZE) {
                let number = |at: usize| u32::from(record[at]) | u32::from(record[at + 1]) << 8;
                let kind = number(4) as u16;
                let length = number(0) | number(2) << 16;
                show(Extent { length, blocks: kind & !PLAIN, is_plain: kind & PLAIN != 0 });
            }
            at += bytes.len() as u64;
            left -= count;
            if left == 0 {
                return Ok(bytes.split_off(count * SIZE));
            }
        }
    }

    /// Appends bytes that were recorded.
    pub(crate) fn bytes(&self, at: u64, count: usize, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.resize(start + count, 0);
        self.read(at, &mut out[start..])
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        let is_small = bytes.len() <= WINDOW / 2;
        let read = if is_small { self.small(at, bytes) } else { self.file.read_exact_at(bytes, at) };
        read.map_err(|e| Error::io("reading extents back from a temporary file", e))
    }

    fn small(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        let (start, held) = &mut *self.window.borrow_mut();
        let end = at + bytes.len() as u64;
        if at < *start || end > *start + held.len() as u64 {
            // What stands a little before is asked for again, too.
            *start = at - at % (WINDOW / 2) as u64;
            held.clear();
            (&self.file).seek(SeekFrom::Start(*start))?;
            (&self.file).take(WINDOW as u64).read_to_end(held)?;
        }
        let from = (at - *start) as usize;
        let there = held.get(from..from + bytes.len()).ok_or(ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(there);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_read_back_in_any_order() {
        let mut writer = ExtentWriter::new(tempfile::tempfile().unwrap());
        // Two of the files have more extents than are read at once.
        let counts = [3_u32, 1, 9000, 20_000, 0, 2, 4000, 7];
        let extent = |file: usize, at: u32| {
            let length = file as u32 * 100_000 + at;
            Extent { length, blocks: 1 + at as u16 % 16, is_plain: at.is_multiple_of(3) }
        };
        let mut recorded = Vec::new();
        for (file, extents) in counts.into_iter().enumerate() {
            let (at, tail) = (writer.position(), file as u32);
            (0..extents).try_for_each(|at| writer.extent(extent(file, at))).unwrap();
            writer.bytes(&vec![file as u8; file]).unwrap();
            recorded.push(Recorded { at, extents, tail, fragment: None, start: 0, blocks: 0 });
        }
        let reader = writer.finish().unwrap();
        for file in [0, 1, 2, 3, 4, 5, 6, 7, 5, 0, 6, 3, 7, 1, 2, 4] {
            let mut shown = Vec::new();
            let tail = reader.for_each(&recorded[file], |extent| shown.push(extent)).unwrap();
            assert_eq!(tail, vec![file as u8; file]);
            let written: Vec<_> = (0..counts[file]).map(|at| extent(file, at)).collect();
            assert!(shown == written, "file {file}");
        }
        let error = reader.bytes(recorded[7].at, 1 << 10, &mut Vec::new()).unwrap_err();
        assert_eq!(*error.kind(), plyfold_core::ErrorKind::Io);
    }
}
