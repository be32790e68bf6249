//! The members of a blob of many, found without decoding it.
//!
//! Each member ends in its length, modulo 2^32 (RFC 1952 section 2.3.1), so that the start of the next one says how much is
//! decoded up to there. What was found is checked where it is decoded: a decoder that does not end where the next
//! one begins stops, and the blob is decoded without the index.

use memchr::memmem::Finder;

use super::GzipIndex;
use super::point::Point;
use crate::{Error, ReadAt, Result};

/// Compressed bytes in which the second member begins: mostly they are those of a file, or of 4 MiB of one.
const FIRST: u64 = 4 << 20;
/// Compressed bytes between two places at least.
const SPACING: u64 = 1 << 20;
/// Bytes that are read at a time.
const BUFFER: usize = 1 << 20;
/// Bytes of a header, without its optional fields.
const HEADER: usize = 10;

impl GzipIndex {
    /// The index of a blob of many members, without decoding it: estargz has one for each file, bgzip for each 64 KiB.
    /// `None` for a blob of one member, or of a few long ones.
    ///
    /// Members are found by what the header of each has as that of the first one has it: the magic number, the method, and
    /// what wrote it. Other bytes may be the same: then the blob is decoded without the index.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn of_members(file: &dyn ReadAt) -> Result<Option<Self>> {
        let failed = |e| Error::io("reading a layer", e);
        let blob_size = file.size().map_err(failed)?;
        let mut first = [0; HEADER];
        if blob_size < FIRST || file.read_exact_at(&mut first, 0).is_err() || first[..3] != [0x1f, 0x8b, 8] {
            return Ok(None);
        }
        let (finder, mut buffer) = (Finder::new(&first[..3]), vec![0; BUFFER]);
        let mut members = Members { points: Vec::new(), count: 0, offset: 0 };
        // The length of a member is before the header of the next one.
        let (mut start, overlap) = (0, HEADER + 4);
        while start + overlap as u64 <= blob_size {
            let length = BUFFER.min(usize::try_from(blob_size - start).unwrap_or(BUFFER));
            file.read_exact_at(&mut buffer[..length], start).map_err(failed)?;
            // A header that is cut off is in the next buffer.
            let end = length - HEADER;
            for at in finder.find_iter(&buffer[..length]).filter(|at| (4..=end).contains(at)) {
                // Byte 3 has flags, of which three are reserved; bytes 8 and 9 are of the program.
                if buffer[at + 3] < 1 << 5 && buffer[at + 8..at + HEADER] == first[8..] {
                    let before =
                        buffer[at - 4..at].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                    members.add(start + at as u64, before);
                }
            }
            start += (length - overlap + 1) as u64;
            if start > FIRST && members.count == 0 {
                return Ok(None);
            }
        }
        let mut last = [0; 4];
        file.read_exact_at(&mut last, blob_size - 4).map_err(failed)?;
        let size = members.offset + u64::from(u32::from_le_bytes(last));
        Ok((!members.points.is_empty()).then_some(Self { blob_size, size, points: members.points }))
    }
}

/// What is found.
struct Members {
    points: Vec<Point>,
    count: u64,
    offset: u64,
}

impl Members {
    /// A member, and the length of the one before it.
    fn add(&mut self, at: u64, before: u32) {
        self.count += 1;
        self.offset += u64::from(before);
        if at - self.points.last().map_or(0, Point::byte) >= SPACING {
            self.points.push(Point { bit: at * 8, offset: self.offset, within: None });
        }
    }
}
