//! The bytes of an extent, out of its cluster.

use flate2::{Decompress, FlushDecompress, Status};
use liblzma::stream::{Action, Stream};
use plyfold_core::Result;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

use super::extent::{Cluster, Coding};
use crate::compress::format::{CLUSTER_MAX, DEFLATE, LZ4, LZMA, LZMA_DICTIONARY_MAX, ZSTD};
use crate::fault::ErofsFault;

/// Fills `extent` with what a cluster of these bytes holds: all of it, or its start if it is partial. Where clusters are not
/// `padded` they stand at the start of their blocks.
pub(super) fn decode(cluster: &Cluster, bytes: &[u8], extent: &mut [u8], padded: bool) -> Result<()> {
    let algorithm = match cluster.coding {
        Coding::Plain => {
            extent.copy_from_slice(&bytes[..extent.len()]);
            return Ok(());
        }
        Coding::Interlaced(first) => {
            let rotated = bytes.iter().cycle().skip(first as usize);
            for (byte, at_its_place) in extent.iter_mut().zip(rotated) {
                *byte = *at_its_place;
            }
            return Ok(());
        }
        Coding::Algorithm(algorithm) => algorithm,
    };
    let padding = if padded { bytes.iter().take_while(|byte| **byte == 0).count() } else { 0 };
    let bytes = &bytes[padding..];
    let decoded = match algorithm {
        // Without padding nothing says where the cluster ends.
        LZ4 => lz4(bytes, extent, cluster.partial || !padded),
        LZMA => lzma(bytes, extent),
        DEFLATE => deflate(bytes, extent, cluster.partial),
        ZSTD => zstd(bytes, extent, cluster.partial),
        _ => false,
    };
    if decoded { Ok(()) } else { Err(ErofsFault::Malformed("a cluster does not hold its extent").into()) }
}

fn lz4(cluster: &[u8], extent: &mut [u8], partial: bool) -> bool {
    let decoded = if partial {
        lzzzz::lz4::decompress_partial(cluster, extent, extent.len())
    } else {
        lzzzz::lz4::decompress(cluster, extent)
    };
    decoded.is_ok_and(|length| length == extent.len())
}

/// `MicroLZMA`: an LZMA stream without an end mark, whose first byte, which is always 0, has the properties inverted. Here it
/// is made a `.lzma` file of unknown size.
fn lzma(cluster: &[u8], extent: &mut [u8]) -> bool {
    let Some((inverted, rest)) = cluster.split_first() else { return false };
    let mut header = [u8::MAX; 14];
    header[0] = !inverted;
    // Linux has no larger dictionary.
    header[1..5].copy_from_slice(&LZMA_DICTIONARY_MAX.to_le_bytes());
    header[13] = 0;
    let Ok(mut decoder) = Stream::new_lzma_decoder(u64::MAX) else { return false };
    for part in [&header[..], rest] {
        let mut part = part;
        while !part.is_empty() {
            let before = (decoder.total_in(), decoder.total_out());
            let status = decoder.process(part, &mut extent[before.1 as usize..], Action::Run);
            let after = (decoder.total_in(), decoder.total_out());
            if after.1 == extent.len() as u64 {
                return true;
            }
            if status.is_err() || after == before {
                return false;
            }
            part = &part[(after.0 - before.0) as usize..];
        }
    }
    false
}

fn deflate(cluster: &[u8], extent: &mut [u8], partial: bool) -> bool {
    let mut inflate = Decompress::new(false);
    let status = inflate.decompress(cluster, extent, FlushDecompress::Finish);
    let is_full = inflate.total_out() == extent.len() as u64;
    match status {
        Ok(Status::StreamEnd) => is_full,
        // There is no room for more.
        Ok(_) | Err(_) => is_full && partial,
    }
}

fn zstd(cluster: &[u8], extent: &mut [u8], partial: bool) -> bool {
    let Ok(mut decoder) = Decoder::new() else { return false };
    // Linux has no larger windows, either.
    if decoder.set_parameter(DParameter::WindowLogMax(CLUSTER_MAX.ilog2())).is_err() {
        return false;
    }
    let length = extent.len();
    let (mut input, mut output) = (InBuffer::around(cluster), OutBuffer::around(extent));
    loop {
        let before = (input.pos(), output.pos());
        match decoder.run(&mut input, &mut output) {
            Ok(0) => return output.pos() == length,
            Ok(_) if output.pos() == length && partial => return true,
            Ok(_) if (input.pos(), output.pos()) != before => {}
            _ => return false,
        }
    }
}
