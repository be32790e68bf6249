//! Gzip blobs, each with an index of it: decoded while an index is made, and by the threads of one, beside flate2.
//!
//! An input is a blob, its index, and the length of the blob as four bytes.

use std::io::{Cursor, Write as _};
use std::sync::{Arc, Mutex};

use flate2::write::GzEncoder;
use flate2::{Compression, Decompress, FlushDecompress, Status};
use plyfold_core::layer::LayerFault;
use plyfold_core::layer::gzip_index::{GzipIndex, GzipIndexing, IndexedGzip};
use plyfold_core::xxh3::Xxh3;
use plyfold_core::{Descriptor, Error, MediaType, digest};

use super::corpus;
use super::outcome::{Outcome, of};

/// Uncompressed bytes between two places of an index.
const SPACING: u64 = 4 << 10;
/// The longest output of an input.
const LONGEST: usize = 64 << 20;

/// Blobs of one member and of many.
pub(super) fn blobs() -> Vec<Vec<u8>> {
    let content = corpus::varied();
    let gzip = |content: &[u8], level| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
        // A vector takes everything.
        let _ = encoder.write_all(content);
        encoder.finish().unwrap_or_default()
    };
    let mut blobs: Vec<Vec<u8>> = [0, 1, 6, 9].map(|level| gzip(&content, level)).to_vec();
    blobs.push(content.chunks(3000).flat_map(|part| gzip(part, 6)).collect());
    blobs.push([gzip(&content[..9000], 9), gzip(b"", 6), gzip(&content, 1)].concat());
    let with_index = |blob: Vec<u8>| {
        let index = indexed(&blob).map(|(_, index)| index.to_bytes(&descriptor(blob.len())));
        let length = (blob.len() as u32).to_le_bytes();
        [blob, index.unwrap_or_default(), length.to_vec()].concat()
    };
    blobs.into_iter().map(with_index).collect()
}

/// Makes the checksum of the index right.
pub(super) fn sums(bytes: &mut [u8]) {
    let Some((blob, index)) = parts(bytes) else { return };
    let (start, Some(end)) = (blob.len(), index.len().checked_sub(8)) else { return };
    let mut sum = Xxh3::default();
    sum.update(&index[..end]);
    let sum = sum.finish().to_le_bytes();
    bytes[start + end..start + end + 8].copy_from_slice(&sum);
}

fn parts(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (rest, length) = input.split_last_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

fn descriptor(size: usize) -> Descriptor {
    Descriptor::new(MediaType::ImageLayerGzip, size as u64, digest::sha256(b"a blob"))
}

/// Nothing is decoded to other bytes than by flate2.
pub(super) fn judge(input: &[u8]) -> Outcome {
    let Some((blob, index)) = parts(input) else { return Ok(true) };
    let expected = serial(blob);
    let same = |who: &str, decoded: &[u8]| match &expected {
        None => Err(format!("{who} decodes what flate2 refuses")),
        Some(expected) if decoded != expected => Err(format!("{who} decodes to other bytes")),
        Some(_) => Ok(()),
    };
    let refused = of(indexed(blob), |(decoded, index)| {
        same("who makes an index", &decoded)?;
        let again = threads(blob, index).map_err(|e| format!("its own index is refused: {e:?}"))?;
        same("who has an index", &again).map(|()| false)
    })?;
    if refused && expected.is_some() {
        return Err("who makes an index refuses what flate2 decodes".to_owned());
    }
    let Ok(index) = GzipIndex::parse(index, &descriptor(blob.len())) else { return Ok(refused) };
    let mut range = vec![0; 5000];
    let _ = index.read_at(&Mutex::new(Cursor::new(blob)), &mut range, index.size() / 2);
    match threads(blob, index) {
        Ok(decoded) => same("who has an altered index", &decoded).map(|()| refused),
        Err(e) if matches!(e.detail(), Some(LayerFault::GzipIndex(_))) => Ok(true),
        Err(e) if expected.is_none() => of(Err::<(), _>(e), |()| Ok(true)),
        Err(e) => Err(format!("an altered index is not named: {e:?}")),
    }
}

fn serial(blob: &[u8]) -> Option<Vec<u8>> {
    let (mut decoded, mut at) = (Vec::new(), 0);
    let mut buffer = vec![0; 64 << 10];
    while at < blob.len() {
        if blob[at] != 0x1f {
            return None;
        }
        let mut member = Decompress::new_gzip(15);
        let start = at;
        loop {
            let before = (member.total_in(), member.total_out());
            let status = member.decompress(&blob[at..], &mut buffer, FlushDecompress::None).ok()?;
            decoded.extend(&buffer[..(member.total_out() - before.1) as usize]);
            at = start + member.total_in() as usize;
            if status == Status::StreamEnd {
                break;
            }
            if before == (member.total_in(), member.total_out()) || decoded.len() > LONGEST {
                return None;
            }
        }
    }
    Some(decoded)
}

fn indexed(blob: &[u8]) -> plyfold_core::Result<(Vec<u8>, GzipIndex)> {
    let mut indexing = GzipIndexing::spaced(SPACING);
    let (mut decoded, mut buffer, mut at) = (Vec::new(), vec![0; 10_000], 0);
    loop {
        // The input comes in pieces.
        let end = blob.len().min(at + 3001);
        let (read, written) = indexing.step(&blob[at..end], &mut buffer)?;
        decoded.extend(&buffer[..written]);
        at += read;
        if decoded.len() > LONGEST {
            return Err(Error::limit("an input has too many bytes uncompressed"));
        }
        if at == blob.len() && written < buffer.len() {
            return Ok((decoded, indexing.finish()?));
        }
    }
}

fn threads(blob: &[u8], index: GzipIndex) -> plyfold_core::Result<Vec<u8>> {
    let file = Arc::new(Mutex::new(Cursor::new(blob.to_vec())));
    let mut reader = IndexedGzip::new(file, Arc::new(index), 2)?;
    let mut decoded = Vec::new();
    loop {
        let piece = reader.piece()?;
        if piece.is_empty() {
            return Ok(decoded);
        }
        decoded.extend(piece);
        if decoded.len() > LONGEST {
            return Err(Error::limit("an input has too many bytes uncompressed"));
        }
    }
}
