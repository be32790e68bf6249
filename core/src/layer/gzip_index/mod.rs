//! An index of a gzip blob: places from which it can be decoded without what comes before them.
//!
//! A gzip stream is decoded from its start, by one thread. With an index of it several threads decode it, each from another
//! place, and a range of the tar is had without the rest. A place is the bit of a deflate block (RFC 1951 section 3.2.3)
//! with the 32 KiB before it, uncompressed, that its distances may reach into, or the first byte of a member (RFC 1952
//! section 2.2). The CRC-32 of the member up to each place proves what is decoded between two of them.
//!
//! ```
//! use std::sync::Arc;
//!
//! use plyfold_core::layer::LayerLimits;
//! use plyfold_core::layer::gzip_index::{GzipIndex, IndexedGzip};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use std::io::{Read as _, Write as _};
//! # let tar = vec![7; 1 << 20];
//! # let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
//! # encoder.write_all(&tar)?;
//! # let blob = encoder.finish()?;
//! # let mut file = tempfile::tempfile()?;
//! # file.write_all(&blob)?;
//! let index = Arc::new(GzipIndex::of(&blob[..], &LayerLimits::default())?);
//! let mut decoded = Vec::new();
//! IndexedGzip::new(Arc::new(file), index, 2)?.read_to_end(&mut decoded)?;
//! assert!(decoded == tar);
//! # Ok(())
//! # }
//! ```

mod decoder;
mod form;
mod found;
mod make;
mod of;
mod point;
mod range;
mod read;
mod worker;

#[cfg(test)]
mod tests;

use std::fmt;

pub use make::GzipIndexing;
pub use read::IndexedGzip;

use decoder::End;
use point::Point;

/// Places from which a gzip blob can be decoded.
#[derive(Clone, Eq, PartialEq)]
pub struct GzipIndex {
    blob_size: u64,
    size: u64,
    /// In order; the first byte of the blob is not among them.
    points: Vec<Point>,
}

impl GzipIndex {
    /// Bytes of the blob.
    pub fn blob_size(&self) -> u64 {
        self.blob_size
    }

    /// Bytes of what is decoded from it.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many parts of the blob can be decoded by threads of their own.
    pub fn spans(&self) -> usize {
        self.points.len() + 1
    }

    /// Where a span begins, and what ends it.
    fn span(&self, number: usize) -> Option<(&Point, End<'_>)> {
        let begin = match number.checked_sub(1) {
            None => &Point::START,
            Some(place) => self.points.get(place)?,
        };
        let next = self.points.get(number);
        Some((begin, End { offset: next.map_or(self.size, |next| next.offset), next }))
    }

    /// The span with a byte of what is decoded.
    fn span_of(&self, offset: u64) -> usize {
        self.points.partition_point(|point| point.offset <= offset)
    }
}

impl fmt::Debug for GzipIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blob_size, size, points } = self;
        f.debug_struct("GzipIndex")
            .field("blob_size", blob_size)
            .field("size", size)
            .field("points", &points.len())
            .finish()
    }
}
