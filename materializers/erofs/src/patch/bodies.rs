//! Where the data of files is: those that were in the image, and those that a patch has appended.

use std::collections::HashMap;

use plyfold_core::Result;
use plyfold_core::layer::TreeLimits;
use plyfold_core::tree::{Kind, NodeId, Tree};

use super::file::{Cursor, PatchFile, Rests};
use crate::bodies::{Body, FileBodies};
use crate::compress::format::HEADER_ALIGNMENT;
use crate::content::{Chunks, Content, DataLayout, Run};
use crate::fault::ErofsFault;
use crate::format::{CHUNK_INDEX_SIZE, LAYOUT_COMPACT, LAYOUT_FULL, LAYOUT_INLINE};
use crate::inodes::Inodes;
use crate::reader::{KeptFile, Reader};
use crate::stream::BlockStream;

/// The most bytes of indexes of one file: they are held in memory.
const INDEXES_MAX: u64 = 64 << 20;
/// Compact indexes depend on where they stand in so many bytes.
const PACK: u64 = 32;

/// Where a file's data is, if its content does not say it.
enum Place {
    Blocks(u32),
    Chunks(Chunks),
    Kept(KeptFile),
}

/// Finds places for what has to stand elsewhere than before.
pub(super) struct Placer<'a, 'b> {
    pub(super) file: &'a dyn PatchFile,
    pub(super) reader: &'a mut Reader<Cursor<'b>>,
    pub(super) rests: Rests,
    pub(super) block_size: u64,
}

impl<'a> Placer<'a, '_> {
    /// Looks at each file, and appends what no longer fits behind its inode.
    pub(super) fn place(
        mut self,
        inodes: &Inodes<'_, Content>,
        limits: TreeLimits,
        out: &mut BlockStream<'_>,
    ) -> Result<KeptBodies<'a>> {
        self.rests.flush()?;
        let mut account = Tree::<()>::within(limits);
        let mut places = HashMap::new();
        for (at, planned) in inodes.planned.iter().enumerate() {
            let Kind::File { size, content } = &inodes.tree.node(planned.id).kind else { continue };
            let inode = inodes.inode(at)?;
            let end = inodes.own_size(&inode) + inode.xattr_size();
            let place = match &content.0 {
                DataLayout::Blocks { .. } => None,
                DataLayout::Inline { start, rest, .. } => self.inline(end, *size, (*start, *rest), out)?,
                DataLayout::Compressed { nid, .. } => {
                    Some(Place::Kept(self.compressed(end, *size, *nid, out)?))
                }
                DataLayout::Chunks(chunks) => {
                    let count = size.div_ceil(self.block_size << chunks.bits);
                    if count > INDEXES_MAX / CHUNK_INDEX_SIZE {
                        let bytes = count.saturating_mul(CHUNK_INDEX_SIZE);
                        return Err(ErofsFault::ChunkIndexesLong(bytes, INDEXES_MAX).into());
                    }
                    None
                }
            };
            if let Some(place) = place {
                let more = if let Place::Chunks(chunks) = &place { size_of_val(&*chunks.runs) } else { 0 };
                account.charge(size_of::<(NodeId, Place)>() + more)?;
                places.insert(planned.id, place);
            }
        }
        self.rests.flush()?;
        let Self { file, rests, block_size, .. } = self;
        Ok(KeptBodies { file, rests, block_size, places })
    }

    /// A file whose last bytes stand behind its inode, which ends, with its xattrs, at `end`. The inode may have become
    /// larger: the xattrs that it shared with others are its own when the others are gone.
    fn inline(
        &self,
        end: u64,
        size: u64,
        (start, rest): (u32, u64),
        out: &mut BlockStream<'_>,
    ) -> Result<Option<Place>> {
        let (blocks, length) = (size / self.block_size, size % self.block_size);
        if length == 0 {
            return Ok(Some(Place::Blocks(start)));
        }
        if end + length <= self.block_size {
            return Ok(None);
        }
        let block = out.block()?;
        let mut bytes = vec![0; length as usize];
        self.rests.read(self.file, rest, &mut bytes)?;
        out.write(&bytes)?;
        if blocks == 0 {
            return Ok(Some(Place::Blocks(block)));
        }
        // The largest chunks that the whole blocks are a multiple of.
        let bits = blocks.trailing_zeros().min(31) as u8;
        let whole = Run { first: 0, count: blocks >> bits, start };
        let last = Run { first: whole.count, count: 1, start: block };
        Ok(Some(Place::Chunks(Chunks { device: 0, bits, runs: [whole, last].into() })))
    }

    /// A compressed file. Its indexes are copied if they mean the same at their new place, and its last cluster if it
    /// still stands in one block.
    fn compressed(&mut self, end: u64, size: u64, nid: u64, out: &mut BlockStream<'_>) -> Result<KeptFile> {
        let kept = self.reader.kept_file(nid)?;
        let header = end.next_multiple_of(HEADER_ALIGNMENT);
        let is_same = !kept.is_packed || kept.at % PACK == header % PACK;
        let (length, tail) = (header + kept.length, u64::from(kept.tail));
        // What is longer than a block starts with a block.
        let is_inside =
            length <= self.block_size || (length - tail) % self.block_size + tail <= self.block_size;
        if is_same && is_inside {
            return Ok(kept);
        }
        let mut moved = None;
        if tail > 0 {
            moved = Some(out.block()?);
            out.write(&self.reader.last_cluster(nid, size)?)?;
        }
        let full = self.reader.in_full_form(nid, kept.at, moved)?;
        let at = self.rests.add(&full)?;
        let blocks = kept.blocks + u32::from(moved.is_some());
        let length = full.len() as u64;
        Ok(KeptFile { layout: LAYOUT_FULL, blocks, at, length, tail: 0, is_packed: false })
    }
}

/// The data of all files of a patched image.
pub(super) struct KeptBodies<'a> {
    file: &'a dyn PatchFile,
    rests: Rests,
    block_size: u64,
    places: HashMap<NodeId, Place>,
}

impl KeptBodies<'_> {
    fn copy(&self, at: u64, length: u64, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.resize(start + length as usize, 0);
        self.rests.read(self.file, at, &mut out[start..])
    }
}

impl FileBodies<Content> for KeptBodies<'_> {
    fn body<'a>(&'a self, id: NodeId, content: &'a Content) -> Result<Body<'a>> {
        Ok(match (self.places.get(&id), &content.0) {
            (Some(Place::Blocks(start)), _) => Body::Blocks { device: 0, start: *start },
            (Some(Place::Chunks(chunks)), _) => Body::Chunks(chunks),
            (Some(Place::Kept(kept)), _) => {
                let KeptFile { layout, blocks, length, tail, .. } = *kept;
                Body::Kept { layout, blocks, length, tail }
            }
            (None, DataLayout::Blocks { device, start }) => Body::Blocks { device: *device, start: *start },
            (None, DataLayout::Inline { start, .. }) => Body::Inline { start: *start },
            (None, DataLayout::Chunks(chunks)) => Body::Chunks(chunks),
            (None, DataLayout::Compressed { .. }) => {
                return Err(ErofsFault::FileLayout(LAYOUT_COMPACT).into());
            }
        })
    }

    fn write_rest(&self, _: NodeId, content: &Content, size: u64, out: &mut Vec<u8>) -> Result<()> {
        let DataLayout::Inline { rest, .. } = content.0 else {
            return Err(ErofsFault::FileLayout(LAYOUT_INLINE).into());
        };
        self.copy(rest, size % self.block_size, out)
    }

    fn write_clusters(&self, id: NodeId, _: &Content, _: u64, out: &mut Vec<u8>) -> Result<()> {
        let Some(Place::Kept(kept)) = self.places.get(&id) else {
            return Err(ErofsFault::FileLayout(LAYOUT_COMPACT).into());
        };
        out.resize(out.len().next_multiple_of(HEADER_ALIGNMENT as usize), 0);
        self.copy(kept.at, kept.length, out)
    }
}
