//! The bytes of an extent, out of its cluster.

use flate2::{Decompress, FlushDecompress, Status};
use plyfold_core::Result;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

use super::extent::Coding;
use crate::compress::format::{CLUSTER_MAX, DEFLATE, LZ4, ZSTD};
use crate::fault::ErofsFault;

/// Fills `extent` with what `cluster` holds: all of it, or its start if `partial`.
pub(super) fn decode(coding: Coding, cluster: &[u8], extent: &mut [u8], partial: bool) -> Result<()> {
    let algorithm = match coding {
        Coding::Plain => {
            extent.copy_from_slice(&cluster[..extent.len()]);
            return Ok(());
        }
        Coding::Interlaced(first) => {
            let rotated = cluster.iter().cycle().skip(first as usize);
            for (byte, at_its_place) in extent.iter_mut().zip(rotated) {
                *byte = *at_its_place;
            }
            return Ok(());
        }
        Coding::Algorithm(algorithm) => algorithm,
    };
    let padding = cluster.iter().take_while(|byte| **byte == 0).count();
    let cluster = &cluster[padding..];
    let decoded = match algorithm {
        LZ4 => lz4(cluster, extent, partial),
        DEFLATE => deflate(cluster, extent, partial),
        ZSTD => zstd(cluster, extent, partial),
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
