//! The extents of files, kept in a file of their own until the indexes are written.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;

use plyfold_core::{Error, Result};

/// Bytes of an extent in the file.
const SIZE: usize = 8;
/// How many are read at once.
const AT_ONCE: usize = 8 << 10;
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
        Ok(ExtentReader(file))
    }
}

/// The same, to be read.
#[derive(Debug)]
pub(crate) struct ExtentReader(File);

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
        let read = self.0.read_exact_at(bytes, at);
        read.map_err(|e| Error::io("reading extents back from a temporary file", e))
    }
}
