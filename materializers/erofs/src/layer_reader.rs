//! Layers' images as the content of whole images.

use plyfold_core::Result;
use plyfold_core::layer::TreeLimits;
use plyfold_core::tree::{FileData, LayerContent, LayerReader, LayerRun, LayerTree};

use crate::content::DataLayout;
use crate::fault::ErofsFault;
use crate::overlay;
use crate::reader::Reader;

plyfold_core::register!(LayerReader { format: "erofs-layers", package: env!("CARGO_PKG_NAME"), read });

/// The layer that an image is of. Data stays where it lies; that of compressed files is kept decoded.
///
/// # Errors
/// As [`Reader::tree`]; [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for an image with devices.
pub(crate) fn read(layer: &mut LayerContent<'_, '_>, limits: TreeLimits) -> Result<LayerTree<FileData>> {
    let mut reader = Reader::new(layer.file())?.with_limits(limits);
    if reader.devices() > 0 {
        return Err(ErofsFault::MergedLayer.into());
    }
    let tree = overlay::from_overlay(reader.unfinished_tree()?)?;
    let block_size = u64::from(reader.block_size());
    tree.map_contents(|size, content| match runs(&content.0, size, block_size) {
        Some(runs) => layer.lies_in(size, &runs),
        None => layer.keep(size, |take| reader.copy(&content, size, take)),
    })
}

/// The runs of a file of `size` bytes; `None` when its bytes are not there as they are.
fn runs(layout: &DataLayout, size: u64, block_size: u64) -> Option<Vec<LayerRun>> {
    if size == 0 {
        return Some(Vec::new());
    }
    let run = |start: u32, offset, length| LayerRun { at: u64::from(start) * block_size, offset, length };
    match layout {
        DataLayout::Blocks { start, .. } => Some(vec![run(*start, 0, size)]),
        DataLayout::Chunks(chunks) => {
            let chunk = block_size << chunks.bits;
            let runs = chunks.runs.iter().map(|part| {
                let (first, end) = (part.first * chunk, (part.first + part.count) * chunk);
                run(part.start, first, end.min(size) - first)
            });
            Some(runs.collect())
        }
        DataLayout::Inline { start, rest, .. } => {
            let behind = size % block_size;
            let blocks = run(*start, 0, size - behind);
            let rest = LayerRun { at: *rest, offset: blocks.length, length: behind };
            Some([blocks, rest].into_iter().filter(|run| run.length > 0).collect())
        }
        DataLayout::Compressed { .. } => None,
    }
}
