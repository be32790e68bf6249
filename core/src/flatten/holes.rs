//! The holes of files, by their bytes: which zeros a layer has as holes depends on what made the layer.

use crate::tree::{MergedTree, NodeId};
use crate::{Result, is_zero};

/// What holes are made of.
const BLOCK: u64 = 4096;
/// The fewest bytes that are a hole. Most images have no such files, and so their tars suit programs that do not read sparse
/// files.
const HOLE: u64 = 1 << 20;
/// Bytes that are looked at at once.
const PIECE: u64 = 256 << 10;
/// The most runs of data of one file; zeros behind them are data.
const RUNS: usize = 1 << 18;

/// The runs of data of a file, as offset and length: from a multiple of 4,096 to one, or to the file's end. `None` when it has
/// no holes.
pub(super) fn data_of(image: &MergedTree, file: NodeId, size: u64) -> Result<Option<Vec<(u64, u64)>>> {
    if !image.may_have_holes(file, HOLE / BLOCK)? {
        return Ok(None);
    }
    let mut runs = Vec::new();
    let (mut at, mut data_end) = (0, 0);
    let mut buffer = vec![0; PIECE.min(size) as usize];
    for extent in image.extents(file) {
        // Blocks without a byte of an extent are zeros.
        at = at.max(extent.offset - extent.offset % BLOCK);
        let end = (extent.offset + extent.length).next_multiple_of(BLOCK).min(size);
        while at < end {
            let piece = &mut buffer[..(end - at).min(PIECE) as usize];
            image.read_at(file, at, piece)?;
            for block in piece.chunks(BLOCK as usize) {
                let next = at + block.len() as u64;
                if !is_zero(block) {
                    add(&mut runs, at - data_end, (at, next));
                    data_end = next;
                }
                at = next;
            }
        }
    }
    match runs.last_mut() {
        Some((offset, length)) if !is_hole(size - data_end) => *length = size - *offset,
        _ => {}
    }
    Ok(Some(runs).filter(|runs| *runs != [(0, size)]))
}

/// Adds a block of data behind so many bytes of zeros.
fn add(runs: &mut Vec<(u64, u64)>, zeros: u64, (at, next): (u64, u64)) {
    let is_apart = is_hole(zeros) && runs.len() < RUNS;
    match runs.last_mut() {
        Some((offset, length)) if !is_apart => *length = next - *offset,
        None if !is_apart => runs.push((0, next)),
        _ => runs.push((at, next - at)),
    }
}

/// Whether zeros from a multiple of 4,096 on are a hole. The end of a file may cut their last block.
fn is_hole(zeros: u64) -> bool {
    zeros.next_multiple_of(BLOCK) >= HOLE
}
