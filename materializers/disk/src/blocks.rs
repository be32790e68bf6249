//! The block size, which all formats take as their option.

use plyfold_core::Options;

/// The block size of all file systems on the disk, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Blocks {
    block_size: u32,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { block_size: 4096 }
    }
}

impl Blocks {
    pub(crate) fn of(bytes: u32) -> Self {
        Self { block_size: bytes }
    }

    /// How many bytes a block has.
    pub(crate) fn bytes(self) -> u32 {
        self.block_size
    }

    /// As a part of a cache key.
    pub(crate) fn key(self) -> String {
        if self == Self::default() { String::new() } else { format!("b{}", self.block_size) }
    }

    /// As the options of the merged image, which checks it.
    pub(crate) fn merged(self) -> Options {
        self.merged_with(None)
    }

    /// The same with one more option.
    pub(crate) fn merged_with(self, more: Option<&str>) -> Options {
        let other = (self != Self::default()).then(|| format!("block-size={}", self.block_size));
        // A text with `=` is always an option.
        Options::parse(other.as_deref().into_iter().chain(more)).unwrap_or_default()
    }
}
