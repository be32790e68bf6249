//! Where the bytes of a regular file lie.

use plyfold_core::Result;
use plyfold_core::tree::HeapSize;

use crate::fault::ErofsFault;
use crate::format::NULL_BLOCK;

/// Where the bytes of a regular file lie: on blocks of the image itself, or of one of its devices.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Content(pub(crate) DataLayout);

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum DataLayout {
    /// One run of blocks.
    Blocks {
        /// 0 for the image itself, else the place in the device table, from 1.
        device: u16,
        /// The first block; without meaning for an empty file.
        start: u32,
    },
    /// Chunks of equal size, some of them holes. Few files have these.
    Chunks(Box<Chunks>),
    /// The whole blocks in one run of the image itself, the rest of the file behind its inode.
    Inline {
        /// 0, unless [`Content::mark`] has set it.
        layer: u16,
        /// The first block; without meaning for a file of less than a block.
        start: u32,
        /// Where the rest stands, in bytes from the start of the image.
        rest: u64,
    },
    /// Compressed, as the indexes behind its inode say.
    Compressed {
        /// 0, unless [`Content::mark`] has set it.
        layer: u16,
        /// The inode's number.
        nid: u64,
    },
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Chunks {
    /// As for [`DataLayout::Blocks`].
    pub(crate) device: u16,
    /// log2 of a chunk's blocks, at most 31.
    pub(crate) bits: u8,
    /// The chunks that are no holes, ascending and disjoint.
    pub(crate) runs: Box<[Run]>,
}

/// Chunks that follow each other in the file and on the device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Run {
    /// The first one's place in the file.
    pub(crate) first: u64,
    /// How many.
    pub(crate) count: u64,
    /// The first one's first block.
    pub(crate) start: u32,
}

impl Content {
    /// That of a file without a byte.
    pub(crate) const EMPTY: Self = Self(DataLayout::Blocks { device: 0, start: NULL_BLOCK });

    pub(crate) fn blocks(device: u16, start: u32) -> Self {
        Self(DataLayout::Blocks { device, start })
    }

    pub(crate) fn inline(start: u32, rest: u64) -> Self {
        Self(DataLayout::Inline { layer: 0, start, rest })
    }

    pub(crate) fn chunks(device: u16, bits: u8, runs: Vec<Run>) -> Self {
        Self(DataLayout::Chunks(Box::new(Chunks { device, bits, runs: runs.into() })))
    }

    pub(crate) fn compressed(nid: u64) -> Self {
        Self(DataLayout::Compressed { layer: 0, nid })
    }

    /// Marks it as that of one of several images, in place of the device, so that it differs from that of others.
    pub(crate) fn mark(&mut self, number: u16) {
        match &mut self.0 {
            DataLayout::Blocks { device, .. } => *device = number,
            DataLayout::Chunks(chunks) => chunks.device = number,
            DataLayout::Inline { layer, .. } | DataLayout::Compressed { layer, .. } => *layer = number,
        }
    }

    /// The device that the data is on, 0 for the image itself.
    pub(crate) fn device(&self) -> u16 {
        if let DataLayout::Blocks { device, .. } = &self.0 {
            return *device;
        }
        if let DataLayout::Chunks(chunks) = &self.0 { chunks.device } else { 0 }
    }

    /// Puts all of it on a device.
    ///
    /// # Errors
    /// [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for what no device can hold: bytes behind an inode, and compressed
    /// files, whose blocks are always the image's own.
    pub(crate) fn put_on(&mut self, number: u16) -> Result<()> {
        match self.0 {
            DataLayout::Blocks { .. } | DataLayout::Chunks(_) => self.mark(number),
            DataLayout::Inline { .. } => {
                return Err(ErofsFault::Unmerged("the end of a file that stands behind its inode").into());
            }
            DataLayout::Compressed { .. } => return Err(ErofsFault::Unmerged("a compressed file").into()),
        }
        Ok(())
    }
}

impl HeapSize for Content {
    fn heap_bytes(&self) -> usize {
        match &self.0 {
            DataLayout::Blocks { .. } | DataLayout::Inline { .. } | DataLayout::Compressed { .. } => 0,
            DataLayout::Chunks(chunks) => size_of::<Chunks>() + size_of_val(&*chunks.runs),
        }
    }
}
