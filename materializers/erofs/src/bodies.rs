//! Where the data of regular files lies in the image that is written.

use plyfold_core::Result;
use plyfold_core::tree::NodeId;

use crate::compress::algorithm::Compression;
use crate::compress::extents::Recorded;
use crate::content::{Chunks, Content, DataLayout};
use crate::fault::ErofsFault;
use crate::format::{LAYOUT_COMPACT, LAYOUT_INLINE};

/// Where one file's data lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body<'a> {
    /// In one run of blocks, on a device: 0 for the image itself.
    Blocks { device: u16, start: u32 },
    /// The whole blocks in one run in the image, the rest right behind the inode.
    Inline { start: u32 },
    /// In chunks.
    Chunks(&'a Chunks),
    /// In so many blocks of clusters in the image, the last cluster of `tail` bytes right behind the indexes.
    Compressed { blocks: u32, tail: u32 },
    /// Compressed in so many blocks, in an image that exists: header, indexes and a last cluster of `tail` bytes, in all
    /// `length` bytes, are copied. `layout` says of which form the indexes are.
    Kept { layout: u16, blocks: u32, length: u64, tail: u32 },
    /// In the file of all fragments.
    Fragment,
}

/// The file of all fragments, which has no name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed {
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) recorded: Recorded,
}

/// What knows that of the files of a tree with contents `C`.
pub(crate) trait FileBodies<C> {
    /// Where a file's data lies.
    fn body<'a>(&'a self, id: NodeId, content: &'a C) -> Result<Body<'a>>;

    /// Appends the rest of a file, which is [`Body::Inline`], behind its whole blocks.
    fn write_rest(&self, id: NodeId, content: &C, size: u64, out: &mut Vec<u8>) -> Result<()>;

    /// How files are compressed which are [`Body::Compressed`].
    fn compression(&self) -> Option<&Compression> {
        None
    }

    /// What fragments are parts of, if there are any.
    fn packed(&self) -> Option<Packed> {
        None
    }

    /// Appends the indexes of that file, and its last cluster, to its inode.
    fn write_packed(&self, _packed: Packed, _out: &mut Vec<u8>) -> Result<()> {
        Err(ErofsFault::FileLayout(LAYOUT_COMPACT).into())
    }

    /// Appends what stands behind inode and xattrs of a compressed file: its indexes, and its last cluster.
    fn write_clusters(&self, _id: NodeId, _content: &C, _size: u64, _out: &mut Vec<u8>) -> Result<()> {
        Err(ErofsFault::FileLayout(LAYOUT_COMPACT).into())
    }
}

/// The contents say it themselves.
pub(crate) struct Written;

impl FileBodies<Content> for Written {
    fn body<'a>(&'a self, _: NodeId, content: &'a Content) -> Result<Body<'a>> {
        match &content.0 {
            DataLayout::Blocks { device, start } => Ok(Body::Blocks { device: *device, start: *start }),
            DataLayout::Chunks(chunks) => Ok(Body::Chunks(chunks)),
            DataLayout::Inline { .. } => Err(ErofsFault::FileLayout(LAYOUT_INLINE).into()),
            DataLayout::Compressed { .. } => Err(ErofsFault::FileLayout(LAYOUT_COMPACT).into()),
        }
    }

    fn write_rest(&self, _: NodeId, _: &Content, _: u64, _: &mut Vec<u8>) -> Result<()> {
        Err(ErofsFault::FileLayout(LAYOUT_INLINE).into())
    }
}
