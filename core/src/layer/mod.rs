//! From a compressed layer blob to verified entries: decompression, tar dialects, limits, whiteouts.

mod entry;

pub use entry::{DataExtent, Entry, EntryKind, ImagePath, Metadata, Timestamp};

/// A layer's tar, decompressed, hashed and parsed while it is read.
#[derive(Debug)]
pub struct LayerTar {}
