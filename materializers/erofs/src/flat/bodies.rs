//! Where the data of a whole image's files is.

use plyfold_core::Result;
use plyfold_core::layer::TreeLimits;
use plyfold_core::tree::{FileData, HeapSize as _, Kind, MergedTree, NodeId, Tree};

use crate::bodies::{Body, FileBodies, Packed};
use crate::compress::algorithm::Compression;
use crate::compress::clusters::write_behind_inode;
use crate::compress::extents::{ExtentReader, Recorded};
use crate::compress::format::{HEADER_ALIGNMENT, WHOLE_FRAGMENT};
use crate::content::{Chunks, DataLayout};
use crate::data;
use crate::fault::ErofsFault;
use crate::format::LAYOUT_COMPACT;
use crate::inodes::Inodes;
use crate::stream::BlockStream;

/// Bytes on their way from the spool.
const BUFFER: usize = 1 << 20;

/// Where a file's blocks are.
#[derive(Clone, Copy)]
enum Place {
    Blocks(u32),
    Inline(u32),
    /// The number of its chunks.
    Chunks(u32),
    /// The number of what is recorded of it.
    Compressed(u32),
    /// Where it stands among the fragments.
    Fragment(u32),
}

/// The data of an image's files, written.
pub(super) struct Bodies<'a> {
    pub(super) image: &'a MergedTree,
    block_size: u64,
    /// By node.
    places: Vec<Place>,
    /// Of the files with holes.
    chunks: Vec<Chunks>,
    /// Of the compressed files, and how they are compressed.
    recorded: Vec<Recorded>,
    extents: Option<(Compression, ExtentReader)>,
    /// What fragments are parts of.
    packed: Option<Packed>,
    /// Counts what is held for files: a tree of its own, as what they come from has been counted in the image's.
    account: Tree<()>,
    pub(super) buffer: Vec<u8>,
}

impl<'a> Bodies<'a> {
    /// Those of no file yet.
    pub(super) fn new(image: &'a MergedTree, block_size: u32, limits: TreeLimits) -> Self {
        Self {
            image,
            block_size: block_size.into(),
            places: vec![Place::Blocks(0); image.tree().capacity()],
            chunks: Vec::new(),
            recorded: Vec::new(),
            extents: None,
            packed: None,
            account: Tree::within(limits),
            buffer: vec![0; BUFFER],
        }
    }

    /// Writes what does not stand behind inodes, in the order of the inodes.
    pub(super) fn write(&mut self, inodes: &Inodes<'_, FileData>, out: &mut BlockStream<'_>) -> Result<()> {
        for (at, planned) in inodes.planned.iter().enumerate() {
            if let Kind::File { size, .. } = self.image.tree().node(planned.id).kind {
                self.write_file(inodes, at, planned.id, size, out)?;
            }
        }
        Ok(())
    }

    /// Writes one file as it is.
    pub(super) fn write_file(
        &mut self,
        inodes: &Inodes<'_, FileData>,
        at: usize,
        id: NodeId,
        size: u64,
        out: &mut BlockStream<'_>,
    ) -> Result<()> {
        let rest = if self.rest_fits(inodes, at, size)? { size % self.block_size } else { 0 };
        let block_size = self.block_size as u32;
        let content = data::copy_file(self.image, (id, size, rest), out, block_size, &mut self.buffer)?;
        self.account.charge(content.heap_bytes())?;
        self.places[id.index()] = match content.0 {
            DataLayout::Blocks { start, .. } => Place::Blocks(start),
            DataLayout::Inline { start, .. } => Place::Inline(start),
            // `copy_file` yields none.
            DataLayout::Compressed { .. } => return Err(ErofsFault::FileLayout(LAYOUT_COMPACT).into()),
            DataLayout::Chunks(chunks) => {
                self.chunks.push(*chunks);
                Place::Chunks(self.chunks.len() as u32 - 1)
            }
        };
        Ok(())
    }

    /// A file whose whole blocks have been written from a block on, and whose rest stands behind its inode if it fits there.
    pub(super) fn place_plain(
        &mut self,
        inodes: &Inodes<'_, FileData>,
        at: usize,
        (id, size): (NodeId, u64),
        start: u32,
        out: &mut BlockStream<'_>,
    ) -> Result<()> {
        let is_inline = size % self.block_size > 0 && self.rest_fits(inodes, at, size)?;
        if !is_inline {
            let mut rest = Vec::new();
            self.rest(id, size, &mut rest)?;
            out.write(&rest)?;
        }
        self.places[id.index()] = if is_inline { Place::Inline(start) } else { Place::Blocks(start) };
        Ok(())
    }

    /// A file that has been compressed.
    pub(super) fn place_compressed(&mut self, id: NodeId, recorded: Recorded) -> Result<()> {
        self.account.charge(size_of::<Recorded>())?;
        self.recorded.push(recorded);
        self.places[id.index()] = Place::Compressed(self.recorded.len() as u32 - 1);
        Ok(())
    }

    /// A file that is a fragment.
    pub(super) fn place_fragment(&mut self, id: NodeId, at: u32) {
        self.places[id.index()] = Place::Fragment(at);
    }

    /// Whether another file may have the same clusters: none stands behind the inode.
    pub(super) fn can_be_shared(&self, id: NodeId) -> bool {
        matches!(self.places[id.index()], Place::Compressed(number) if self.recorded[number as usize].tail == 0)
    }

    /// A file of the same bytes as another, which can be shared.
    pub(super) fn place_as(&mut self, id: NodeId, other: NodeId) {
        self.places[id.index()] = self.places[other.index()];
    }

    /// Counts further bytes that are held for files.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<()> {
        self.account.charge(bytes)
    }

    /// The file of all fragments has been written.
    pub(super) fn place_packed(&mut self, packed: Packed) {
        self.packed = Some(packed);
    }

    /// Ends the compressed files.
    pub(super) fn end_compressed(&mut self, compression: &Compression, extents: ExtentReader) {
        self.extents = Some((compression.clone(), extents));
    }

    /// Appends what follows a file's whole blocks.
    fn rest(&self, id: NodeId, size: u64, out: &mut Vec<u8>) -> Result<()> {
        let rest = size % self.block_size;
        let start = out.len();
        out.resize(start + rest as usize, 0);
        self.image.read_at(id, size - rest, &mut out[start..]).map(drop)
    }

    /// Whether the rest of a file behind its whole blocks and its inode fit into one block.
    pub(super) fn rest_fits(&self, inodes: &Inodes<'_, FileData>, at: usize, size: u64) -> Result<bool> {
        let inode = inodes.inode(at)?;
        let rest = size % self.block_size;
        Ok(inodes.own_size(&inode) + inode.xattr_size() + rest <= self.block_size)
    }
}

impl FileBodies<FileData> for Bodies<'_> {
    fn body<'a>(&'a self, id: NodeId, _: &'a FileData) -> Result<Body<'a>> {
        Ok(match self.places[id.index()] {
            Place::Blocks(start) => Body::Blocks { device: 0, start },
            Place::Inline(start) => Body::Inline { start },
            Place::Chunks(number) => Body::Chunks(&self.chunks[number as usize]),
            Place::Compressed(number) => {
                let Recorded { blocks, tail, .. } = self.recorded[number as usize];
                Body::Compressed { blocks, tail }
            }
            Place::Fragment(_) => Body::Fragment,
        })
    }

    fn packed(&self) -> Option<Packed> {
        self.packed
    }

    fn write_packed(&self, packed: Packed, out: &mut Vec<u8>) -> Result<()> {
        let Some((compression, extents)) = &self.extents else {
            return Err(ErofsFault::FileLayout(LAYOUT_COMPACT).into());
        };
        write_behind_inode(compression, extents, &packed.recorded, packed.size, out)
    }

    fn write_rest(&self, id: NodeId, _: &FileData, size: u64, out: &mut Vec<u8>) -> Result<()> {
        self.rest(id, size, out)
    }

    fn compression(&self) -> Option<&Compression> {
        self.extents.as_ref().map(|(compression, _)| compression)
    }

    fn write_clusters(&self, id: NodeId, _: &FileData, size: u64, out: &mut Vec<u8>) -> Result<()> {
        if let Place::Fragment(at) = self.places[id.index()] {
            let header = u64::from(at) | u64::from(WHOLE_FRAGMENT) << 56;
            out.resize(out.len().next_multiple_of(HEADER_ALIGNMENT as usize), 0);
            out.extend_from_slice(&header.to_le_bytes());
            return Ok(());
        }
        let (Place::Compressed(number), Some((compression, extents))) =
            (self.places[id.index()], &self.extents)
        else {
            return Err(ErofsFault::FileLayout(LAYOUT_COMPACT).into());
        };
        write_behind_inode(compression, extents, &self.recorded[number as usize], size, out)
    }
}
