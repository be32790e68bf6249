//! GNU sparse files: the old format, and PAX formats 0.0, 0.1 and 1.0 (GNU tar manual, "Sparse Formats").

use super::fault::TarFault;
use super::header::{BLOCK, Header, number};
use super::pax::{Pax, digits};
use super::{DataExtent, LayerLimits};
use crate::{Error, Result, Size};

/// What is known of a sparse file once its map is read.
pub(super) struct Sparse {
    /// The file's size, holes included.
    pub(super) size: u64,
    /// Its runs of data.
    pub(super) extents: Vec<DataExtent>,
    /// Bytes that the map took of the entry's data.
    pub(super) map_bytes: u64,
}

impl Sparse {
    /// Reads the map of an entry that has one; `next` yields the blocks that follow the header.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Limit`](crate::ErrorKind::Limit), and those of `next`.
    pub(super) fn read(
        header: &Header<'_>,
        pax: &Pax,
        limits: &LayerLimits,
        mut next: impl FnMut() -> Result<[u8; BLOCK]>,
    ) -> Result<Option<Self>> {
        let mut map = Map { extents: Vec::new(), end: 0, limits };
        let mut map_bytes = 0;
        let size;
        if header.typeflag() == b'S' {
            size = old(header.block(), &mut map, &mut next)?;
        } else {
            let named = |key| pax.number(key);
            match named("GNU.sparse.realsize")?.or(named("GNU.sparse.size")?) {
                Some(real) => size = real,
                None if pax.text("GNU.sparse.major").is_some() => return Err(invalid("has no size")),
                None => return Ok(None),
            }
            match (pax.text("GNU.sparse.major"), pax.text("GNU.sparse.minor")) {
                (Some(b"1"), Some(b"0")) => map_bytes = in_data(&mut map, &mut next)?,
                (None | Some(b"0"), None | Some(b"0" | b"1")) => in_header(pax, &mut map)?,
                _ => return Err(TarFault::SparseFormat.into()),
            }
        }
        if size > limits.file {
            return Err(TarFault::SparseSize(Size(size).beyond(Size(limits.file))).into());
        }
        if map.end > size {
            return Err(invalid("has data beyond its end"));
        }
        Ok(Some(Self { size, extents: map.extents, map_bytes }))
    }

    /// Checks the map against the bytes that are there.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when they disagree.
    pub(super) fn check(&self, stored: u64) -> Result<()> {
        let mapped: u64 = self.extents.iter().map(|extent| extent.length).sum();
        if mapped == stored {
            return Ok(());
        }
        Err(invalid(format!("maps {mapped} bytes of data and stores {stored}")))
    }
}

/// Runs of data as they are read: ascending, disjoint, neither empty nor adjacent.
struct Map<'a> {
    extents: Vec<DataExtent>,
    end: u64,
    limits: &'a LayerLimits,
}

impl Map<'_> {
    fn push(&mut self, offset: u64, length: u64) -> Result<()> {
        let end = offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok());
        let Some(end) = end.filter(|_| offset >= self.end) else {
            return Err(invalid(format!("has a run of {length} bytes at {offset}, out of order or range")));
        };
        self.end = end;
        let full = self.extents.len() == self.limits.sparse_extents;
        match self.extents.last_mut() {
            _ if length == 0 => {}
            Some(last) if last.offset + last.length == offset => last.length += length,
            _ if full => {
                return Err(TarFault::SparseMore(self.limits.sparse_extents).into());
            }
            _ => self.extents.push(DataExtent { offset, length }),
        }
        Ok(())
    }
}

/// Old GNU format: 4 runs at offset 386, more at 482, real size at 483; then blocks of 21 runs, more at 504.
fn old(
    block: &[u8; BLOCK],
    map: &mut Map<'_>,
    next: &mut impl FnMut() -> Result<[u8; BLOCK]>,
) -> Result<u64> {
    let size = field(&block[483..495])?;
    runs(&block[386..482], map)?;
    let mut extended = block[482] != 0;
    let mut blocks = 0;
    while extended {
        // Empty runs are not kept; blocks full of them end nevertheless.
        blocks += 1;
        if blocks > map.limits.sparse_extents / 21 + 1 {
            return Err(TarFault::SparseBlocks(blocks).into());
        }
        let block = next()?;
        runs(&block[..504], map)?;
        extended = block[504] != 0;
    }
    Ok(size)
}

fn runs(fields: &[u8], map: &mut Map<'_>) -> Result<()> {
    for pair in fields.chunks_exact(24) {
        // An unused place ends the list.
        if pair[12] == 0 {
            break;
        }
        map.push(field(&pair[..12])?, field(&pair[12..])?)?;
    }
    Ok(())
}

fn field(bytes: &[u8]) -> Result<u64> {
    let value = number(bytes).and_then(|value| u64::try_from(i64::try_from(value).ok()?).ok());
    value.ok_or_else(|| invalid("has an invalid number"))
}

/// Formats 0.0 (repeated records) and 0.1 (one record).
fn in_header(pax: &Pax, map: &mut Map<'_>) -> Result<()> {
    let mut count = 0_u64;
    if let Some(text) = pax.text("GNU.sparse.map") {
        let mut numbers = text.split(|byte| *byte == b',');
        while let Some(offset) = numbers.next() {
            let (Some(offset), Some(length)) = (digits(offset), numbers.next().and_then(digits)) else {
                return Err(invalid("has an invalid number"));
            };
            map.push(offset, length)?;
            count += 1;
        }
    } else {
        for (offset, length) in &pax.sparse_pairs {
            map.push(*offset, *length)?;
            count += 1;
        }
    }
    if pax.number("GNU.sparse.numblocks")?.is_some_and(|declared: u64| declared != count) {
        return Err(invalid(format!("has {count} runs of data and declares another number")));
    }
    Ok(())
}

/// Format 1.0: decimal lines in front of the data, count first, padded to a block. Returns the map's bytes.
fn in_data(map: &mut Map<'_>, next: &mut impl FnMut() -> Result<[u8; BLOCK]>) -> Result<u64> {
    let mut block = next()?;
    let mut blocks = 1;
    let mut at = 0;
    let mut line = || {
        let mut value = Vec::new();
        loop {
            if at == BLOCK {
                block = next()?;
                blocks += 1;
                at = 0;
            }
            let byte = block[at];
            at += 1;
            if byte == b'\n' {
                return digits(&value).ok_or_else(|| invalid("has an invalid number"));
            }
            value.push(byte);
            if value.len() > 20 {
                return Err(invalid("has an invalid number"));
            }
        }
    };
    let count = line()?;
    // Writers end the map with an empty run, hence the one more.
    if count > map.limits.sparse_extents as u64 + 1 {
        return Err(TarFault::SparseRuns(count, map.limits.sparse_extents).into());
    }
    for _ in 0..count {
        let (offset, length) = (line()?, line()?);
        map.push(offset, length)?;
    }
    Ok(blocks * BLOCK as u64)
}

fn invalid(what: impl Into<String>) -> Error {
    TarFault::Sparse(what.into()).into()
}
