//! The bytes of an index. Numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 16 | `plyfold gzindex` and the version, 1 |
//! | 4 | the length of the digest of the blob |
//! | | that digest, as text |
//! | 8, 8, 8 | bytes of the blob, bytes of what is decoded from it, the number of places |
//! | 28 each | the bit in the blob, the byte of what is decoded, CRC-32 and length of the member up to there, the length of the window |
//! | 4 each | the length of the compressed window; 0 where a member begins |
//! | | the compressed windows |
//! | 8 | XXH3 of all bytes before |

use super::GzipIndex;
use super::make::MAX_BYTES;
use super::point::{Point, Within};
use crate::layer::fault::LayerFault;
use crate::layer::gunzip::{Sum, WINDOW};
use crate::xxh3::Xxh3;
use crate::{Descriptor, Result};

const MAGIC: &[u8; 16] = b"plyfold gzindex\x01";
/// Bytes of a place without its window.
const POINT: usize = 28 + 4;

impl GzipIndex {
    /// Bytes of the longest index.
    pub const MAX_BYTES: usize = MAX_BYTES + (1 << 20);

    /// As bytes, bound to the digest of its blob.
    pub fn to_bytes(&self, blob: &Descriptor) -> Vec<u8> {
        let digest: &str = blob.digest().as_ref();
        let mut bytes = MAGIC.to_vec();
        bytes.extend((digest.len() as u32).to_le_bytes());
        bytes.extend(digest.as_bytes());
        for number in [self.blob_size, self.size, self.points.len() as u64] {
            bytes.extend(number.to_le_bytes());
        }
        for Point { bit, offset, within } in &self.points {
            let (sum, length) = within.as_ref().map(|within| (within.sum, within.length)).unwrap_or_default();
            bytes.extend(bit.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            for number in [sum.crc, sum.length, length] {
                bytes.extend(number.to_le_bytes());
            }
        }
        let windows = || {
            let window = |point: &'_ Point| point.within.as_ref().map(|within| within.window.clone());
            self.points.iter().map(move |point| window(point).unwrap_or_default())
        };
        windows().for_each(|window| bytes.extend((window.len() as u32).to_le_bytes()));
        windows().for_each(|window| bytes.extend(&window[..]));
        bytes.extend(Xxh3::of(&bytes).to_le_bytes());
        bytes
    }

    /// The index in these bytes.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when they are damaged, or the index of another blob.
    pub fn parse(bytes: &[u8], blob: &Descriptor) -> Result<Self> {
        let damaged = || LayerFault::GzipIndex("it is damaged");
        let (content, sum) = bytes.split_last_chunk::<8>().ok_or_else(damaged)?;
        if bytes.len() > Self::MAX_BYTES || Xxh3::of(content) != u64::from_le_bytes(*sum) {
            return Err(damaged().into());
        }
        let index = Fields(content).index(blob.digest().as_ref()).ok_or_else(damaged)?;
        if index.blob_size != blob.size() || !index.is_ordered() {
            return Err(damaged().into());
        }
        Ok(index)
    }

    /// Whether each place comes behind the one before it, and all are in the blob.
    fn is_ordered(&self) -> bool {
        let (mut bit, mut offset) = (0, 0);
        let blob_bits = self.blob_size.saturating_mul(8);
        self.points.iter().all(|point| {
            let follows = point.bit > bit && point.offset >= offset;
            (bit, offset) = (point.bit, point.offset);
            let fits = bit < blob_bits && offset <= self.size;
            let is_sound = match &point.within {
                None => bit.is_multiple_of(8),
                Some(within) => within.length > 0 && within.length as usize <= WINDOW && offset > 0,
            };
            follows && fits && is_sound
        })
    }
}

/// What is left of the bytes.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn index(&mut self, digest: &str) -> Option<GzipIndex> {
        let is_ours = self.take(MAGIC.len())? == MAGIC;
        let length = self.u32()? as usize;
        if !is_ours || self.take(length)? != digest.as_bytes() {
            return None;
        }
        let (blob_size, size, count) = (self.u64()?, self.u64()?, self.u64()?);
        let count = usize::try_from(count).ok().filter(|count| *count <= self.0.len() / POINT)?;
        let mut points = Vec::with_capacity(count);
        for _ in 0..count {
            let (bit, offset) = (self.u64()?, self.u64()?);
            let (sum, length) = (Sum { crc: self.u32()?, length: self.u32()? }, self.u32()?);
            points.push(Point { bit, offset, within: Some(Within { sum, length, window: Box::default() }) });
        }
        let lengths = (0..count).map(|_| self.u32()).collect::<Option<Vec<_>>>()?;
        for (point, length) in points.iter_mut().zip(lengths) {
            let window = self.take(length as usize)?;
            point.within = point.within.take().filter(|_| length > 0);
            if let Some(within) = &mut point.within {
                within.window = window.into();
            }
        }
        self.0.is_empty().then_some(GzipIndex { blob_size, size, points })
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}
