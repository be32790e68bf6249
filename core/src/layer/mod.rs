//! From a compressed layer blob to verified entries: decompression, tar dialects, limits, whiteouts.

use std::io::Read;

use crate::{Descriptor, Digest, Result};

mod entry;
pub mod whiteout;

pub use entry::{DataExtent, Entry, EntryKind, ImagePath, Metadata, Timestamp};

/// How a layer is read.
#[derive(Clone, Debug, Default)]
pub struct LayerOptions {
    /// What the uncompressed tar must hash to.
    pub diff_id: Option<Digest>,
    /// What the compressed bytes must be.
    pub blob: Option<Descriptor>,
    /// Bounds.
    pub limits: LayerLimits,
}

/// A layer's tar, decompressed, hashed and parsed while it is read.
#[derive(Debug)]
pub struct LayerTar {}

impl LayerTar {
    /// A layer out of its compressed or plain bytes.
    pub fn new(_source: impl Read + Send + 'static, _options: LayerOptions) -> Result<Self> {
        Ok(Self {})
    }
    /// Drains.
    pub fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Bounds.
#[derive(Clone, Debug, Default)]
pub struct LayerLimits {}
