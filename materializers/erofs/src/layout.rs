//! The metadata area: inodes and what stands behind them.

use plyfold_core::tree::{Kind, Node, NodeId};
use plyfold_core::{Error, ErrorKind, Result};
use zerocopy::IntoBytes as _;

use crate::bodies::{Body, FileBodies};
use crate::compress::algorithm::Compression;
use crate::compress::format::{HEADER_ALIGNMENT, HEADER_SIZE, Packs};
use crate::content::Run;
use crate::directory::{self, DirectorySize};
use crate::fault::ErofsFault;
use crate::format::{
    CHUNK_INDEX_SIZE, CHUNK_INDEXES, ChunkIndex, Inode, LAYOUT_CHUNKS, LAYOUT_COMPACT, LAYOUT_FULL,
    LAYOUT_INLINE, LAYOUT_PLAIN, NULL_BLOCK, SLOT,
};
use crate::inodes::{Inodes, Planned};
use crate::places::{Packing, Places};
use crate::stream::BlockStream;

/// One inode, and what it takes.
struct Shape {
    inode: Inode,
    /// What must stand in one block, in bytes.
    within: u64,
    /// All that stands at its place, in bytes.
    length: u64,
    /// The bytes of a directory or symbolic link that stand in blocks behind the inodes.
    in_blocks: u64,
    /// The last cluster of a compressed file stands behind the indexes.
    has_cluster: bool,
}

/// An inode whose bytes stand in blocks behind the inodes, at least in part.
struct Spilled {
    at: u32,
    /// The first of the blocks, from the first one behind the inodes.
    block: u32,
    /// The last of the bytes stand behind the inode.
    has_tail: bool,
    /// Of a directory.
    size: DirectorySize,
}

/// Every inode with its place.
pub(crate) struct ImageLayout<'a, C, B> {
    pub(crate) inodes: Inodes<'a, C>,
    bodies: &'a B,
    block_size: u64,
    packing: Packing,
    spilled: Vec<Spilled>,
    /// The first block behind the inodes.
    first_block: u32,
    pub(crate) has_chunks: bool,
    pub(crate) has_compressed: bool,
    /// Last clusters stand behind indexes.
    pub(crate) has_clusters: bool,
    /// The number of the inode of all fragments.
    pub(crate) packed: Option<u32>,
}

impl<'a, C, B: FileBodies<C>> ImageLayout<'a, C, B> {
    pub(crate) fn new(
        inodes: Inodes<'a, C>,
        bodies: &'a B,
        packing: Packing,
        block_size: u32,
        meta_block: u32,
    ) -> Result<Self> {
        let block_size = block_size.into();
        let mut plan = Self {
            inodes,
            bodies,
            block_size,
            packing,
            spilled: Vec::new(),
            first_block: 0,
            has_chunks: false,
            has_compressed: false,
            has_clusters: false,
            packed: None,
        };
        let mut places = Places::new(packing, block_size);
        let mut blocks = 0_u64;
        let mut directories = std::mem::take(&mut plan.inodes.directories).into_iter();
        for at in 0..plan.inodes.planned.len() {
            let is_directory = plan.inodes.tree.node(plan.inodes.planned[at].id).directory().is_some();
            let size = if is_directory { directories.next() } else { None }.unwrap_or_default();
            let shape = plan.shape(at, size)?;
            let offset = places.take(shape.within, shape.length);
            plan.inodes.number(at, offset)?;
            plan.has_chunks |= shape.inode.layout() == LAYOUT_CHUNKS;
            plan.has_compressed |= shape.inode.layout() == LAYOUT_COMPACT;
            plan.has_clusters |= shape.has_cluster;
            if shape.in_blocks > 0 {
                let has_tail = shape.inode.layout() == LAYOUT_INLINE;
                plan.spilled.push(Spilled { at: at as u32, block: blocks as u32, has_tail, size });
                blocks += shape.in_blocks.div_ceil(block_size);
                // Bounds what is listed: the sum is checked below.
                u32::try_from(blocks).map_err(|_| ErofsFault::Blocks(block_size))?;
            }
        }
        if let Some(packed) = bodies.packed() {
            let own = plan.inodes.own_size(&plan.inodes.packed(packed.size));
            let packs = Packs::behind(own, packed.size.div_ceil(block_size));
            let offset = places.take(own, packs.end() + u64::from(packed.recorded.tail));
            plan.packed = Some(u32::try_from(offset / SLOT).map_err(|_| ErofsFault::Inodes)?);
            plan.has_compressed = true;
            plan.has_clusters |= packed.recorded.tail > 0;
        }
        // Only now is it known where the blocks behind the inodes start.
        let first = u64::from(meta_block) + places.end().div_ceil(block_size);
        if first + blocks >= u32::MAX.into() {
            return Err(ErofsFault::Blocks(block_size).into());
        }
        plan.first_block = first as u32;
        Ok(plan)
    }

    /// How files are compressed, if any is.
    pub(crate) fn compression(&self) -> Option<&Compression> {
        self.bodies.compression().filter(|_| self.has_compressed)
    }

    /// What an inode is, but for the location of bytes behind the inodes. `directory` is the size of one.
    fn shape(&self, at: usize, directory: DirectorySize) -> Result<Shape> {
        let Planned { id, .. } = self.inodes.planned[at];
        let block_size = self.block_size;
        let mut inode = self.inodes.inode(at)?;
        let node: &Node<C> = self.inodes.tree.node(id);
        let (mut tail, mut cluster, mut kept) = (None, 0, None);
        match &node.kind {
            Kind::Directory(_) => {
                inode.size = directory.bytes(block_size).into();
                tail = Some(directory.last.into());
            }
            Kind::Symlink { target } => tail = Some(target.len() as u64),
            Kind::File { size, content } => {
                let body = self.bodies.body(id, content)?;
                match body {
                    Body::Compressed { tail, .. } => cluster = u64::from(tail),
                    Body::Kept { length, tail, .. } => (kept, cluster) = (Some(length), u64::from(tail)),
                    _ => {}
                }
                let (layout, location) = self.file(*size, body);
                inode = inode.with_layout(layout);
                inode.location = location.into();
            }
            _ => {}
        }
        let own = self.inodes.own_size(&inode);
        let with_xattrs = own + inode.xattr_size();
        // What must stand within one block: the inode, and its tail if there is room for one. Older kernels want
        // the xattrs between them in that block too.
        let (mut within, mut length, mut in_blocks) = (own, with_xattrs, 0);
        if let Some(tail) = tail {
            in_blocks = inode.size.get();
            if with_xattrs + tail <= block_size && tail < block_size {
                (within, length) = (with_xattrs + tail, with_xattrs + tail);
                inode = inode.with_layout(LAYOUT_INLINE);
                in_blocks -= tail;
            }
        } else if inode.layout() == LAYOUT_INLINE {
            length = with_xattrs + inode.size.get() % block_size;
            within = length;
            if length > block_size {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "the last part of a file does not stand in one block",
                ));
            }
        } else if inode.layout() == LAYOUT_CHUNKS {
            length = with_xattrs.next_multiple_of(CHUNK_INDEX_SIZE)
                + chunks(inode.size.get(), inode.location.get(), block_size) * CHUNK_INDEX_SIZE;
        } else if let Some(bytes) = kept {
            length = with_xattrs.next_multiple_of(HEADER_ALIGNMENT) + bytes;
        } else if inode.layout() == LAYOUT_COMPACT {
            let blocks = inode.size.get().div_ceil(block_size);
            length = Packs::behind(with_xattrs, blocks).end() + cluster;
        } else if inode.layout() == LAYOUT_FULL {
            length = with_xattrs.next_multiple_of(HEADER_ALIGNMENT) + HEADER_SIZE;
        }
        Ok(Shape { inode, within, length, in_blocks, has_cluster: cluster > 0 })
    }

    /// Layout and location of a regular file. A run on a device is a file of one chunk, or of as few as can be.
    fn file(&self, size: u64, body: Body<'_>) -> (u16, u32) {
        match body {
            Body::Blocks { .. } if size == 0 => (LAYOUT_PLAIN, NULL_BLOCK),
            Body::Blocks { device: 0, start } => (LAYOUT_PLAIN, start),
            Body::Blocks { .. } => {
                let blocks = size.div_ceil(self.block_size);
                let bits = blocks.next_power_of_two().ilog2().min(31);
                (LAYOUT_CHUNKS, u32::from(CHUNK_INDEXES) | bits)
            }
            Body::Inline { start } => (LAYOUT_INLINE, start),
            Body::Chunks(chunks) => (LAYOUT_CHUNKS, u32::from(CHUNK_INDEXES) | u32::from(chunks.bits)),
            Body::Compressed { blocks, .. } => (LAYOUT_COMPACT, blocks),
            Body::Kept { layout, blocks, .. } => (layout, blocks),
            Body::Fragment => (LAYOUT_FULL, 0),
        }
    }

    /// The inodes in the order of their places, that of all fragments as one behind the others.
    fn in_order(&self) -> impl Iterator<Item = u32> + use<C, B> {
        let planned = &self.inodes.planned;
        let count = planned.len() as u32 + u32::from(self.packed.is_some());
        let sorted = (self.packing != Packing::InOrder).then(|| {
            let mut order: Vec<u32> = (0..count).collect();
            order.sort_unstable_by_key(|at| {
                planned.get(*at as usize).map_or(self.packed, |planned| Some(self.inodes.nid(planned.id)))
            });
            order
        });
        (0..count).map(move |at| sorted.as_ref().map_or(at, |sorted| sorted[at as usize]))
    }

    /// Writes the inodes, each with what stands right behind it.
    pub(crate) fn write_inodes(&self, image: &mut BlockStream<'_>) -> Result<()> {
        let start = image.position();
        let (mut bytes, mut names) = (Vec::new(), Vec::new());
        for at in self.in_order() {
            let Some(planned) = self.inodes.planned.get(at as usize).copied() else {
                self.write_packed(start, &mut bytes, image)?;
                continue;
            };
            names.clear();
            let spilled = self.spilled.binary_search_by_key(&at, |spilled| spilled.at).ok();
            let spilled = spilled.map(|found| &self.spilled[found]);
            let is_directory = self.inodes.tree.node(planned.id).directory().is_some();
            if is_directory && spilled.is_none_or(|spilled| spilled.has_tail) {
                self.last_names(planned, &mut names)?;
            }
            let last = DirectorySize { blocks: 0, last: names.len() as u32 };
            let size = spilled.map_or(last, |spilled| spilled.size);
            let Shape { mut inode, .. } = self.shape(at as usize, size)?;
            if let Some(spilled) = spilled {
                inode.location = (self.first_block + spilled.block).into();
            }
            bytes.clear();
            let compact = inode.compact(self.inodes.epoch);
            bytes.extend_from_slice(compact.as_ref().map_or(inode.as_bytes(), |compact| compact.as_bytes()));
            self.inodes.xattrs.write(planned.xattrs, &mut bytes);
            bytes.extend_from_slice(&names);
            self.write_tail(planned, &inode, &mut bytes)?;
            let offset = u64::from(self.inodes.nid(planned.id)) * SLOT;
            image.zeros(start + offset - image.position())?;
            image.write(&bytes)?;
        }
        image.zeros((u64::from(self.first_block) * self.block_size).saturating_sub(image.position()))
    }

    /// Writes the inode of all fragments.
    fn write_packed(&self, start: u64, bytes: &mut Vec<u8>, image: &mut BlockStream<'_>) -> Result<()> {
        let (Some(packed), Some(nid)) = (self.bodies.packed(), self.packed) else { return Ok(()) };
        let mut inode = self.inodes.packed(packed.size).with_layout(LAYOUT_COMPACT);
        inode.location = packed.recorded.blocks.into();
        bytes.clear();
        let compact = inode.compact(self.inodes.epoch);
        bytes.extend_from_slice(compact.as_ref().map_or(inode.as_bytes(), |compact| compact.as_bytes()));
        self.bodies.write_packed(packed, bytes)?;
        image.zeros(start + u64::from(nid) * SLOT - image.position())?;
        image.write(bytes)
    }

    /// The names that stand behind the inode of a directory: those of its last block.
    fn last_names(&self, planned: Planned, names: &mut Vec<u8>) -> Result<()> {
        self.directory_blocks(planned, |block, is_last| {
            if is_last {
                names.extend_from_slice(block);
            }
            Ok(())
        })
    }

    /// What stands right behind an inode and its xattrs, but for names.
    fn write_tail(&self, planned: Planned, inode: &Inode, bytes: &mut Vec<u8>) -> Result<()> {
        let is_inline = inode.layout() == LAYOUT_INLINE;
        match &self.inodes.tree.node(planned.id).kind {
            Kind::Symlink { target } if is_inline => bytes.extend_from_slice(target),
            Kind::File { size, content } if is_inline => {
                self.bodies.write_rest(planned.id, content, *size, bytes)?;
            }
            Kind::File { size, content } if matches!(inode.layout(), LAYOUT_COMPACT | LAYOUT_FULL) => {
                self.bodies.write_clusters(planned.id, content, *size, bytes)?;
            }
            Kind::File { size, content } if inode.layout() == LAYOUT_CHUNKS => {
                bytes.resize(bytes.len().next_multiple_of(CHUNK_INDEX_SIZE as usize), 0);
                let body = self.bodies.body(planned.id, content)?;
                self.chunk_indexes(*size, inode.location.get(), body, bytes);
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes what tails had no room for.
    pub(crate) fn write_blocks(&self, image: &mut BlockStream<'_>) -> Result<()> {
        for Spilled { at, has_tail, .. } in &self.spilled {
            let planned = self.inodes.planned[*at as usize];
            if let Kind::Symlink { target } = &self.inodes.tree.node(planned.id).kind {
                image.write(target)?;
                image.block()?;
                continue;
            }
            self.directory_blocks(planned, |block, is_last| {
                if !(is_last && *has_tail) {
                    image.write(block)?;
                    image.block()?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Shows each block of a directory without its padding, and whether it is the last one.
    fn directory_blocks(
        &self,
        planned: Planned,
        mut show: impl FnMut(&[u8], bool) -> Result<()>,
    ) -> Result<()> {
        let target = |id: NodeId| self.inodes.target(id);
        let mut bytes = Vec::new();
        let Planned { id, parent, .. } = planned;
        directory::for_each_block(
            self.inodes.tree,
            id,
            parent,
            self.block_size as usize,
            |entries, is_last| {
                bytes.clear();
                directory::write(entries, target, &mut bytes);
                show(&bytes, is_last)
            },
        )
    }

    /// One for each chunk.
    fn chunk_indexes(&self, size: u64, format: u32, body: Body<'_>, out: &mut Vec<u8>) {
        let chunk_blocks = 1u64 << (format & 31);
        let count = chunks(size, format, self.block_size);
        let mut put = |device: u16, block: u32| {
            let (startblk_hi, device_id, startblk_lo) = (0.into(), device.into(), block.into());
            out.extend_from_slice(ChunkIndex { startblk_hi, device_id, startblk_lo }.as_bytes());
        };
        let whole;
        let (device, runs) = match body {
            Body::Blocks { device, start } => {
                whole = [Run { first: 0, count, start }];
                (device, &whole[..])
            }
            Body::Chunks(chunks) => (chunks.device, &*chunks.runs),
            // Have no such indexes.
            Body::Inline { .. } | Body::Compressed { .. } | Body::Kept { .. } | Body::Fragment => {
                (0, &[][..])
            }
        };
        let mut chunk = 0;
        for run in runs {
            (chunk..run.first).for_each(|_| put(0, NULL_BLOCK));
            for at in 0..run.count {
                put(device, run.start.wrapping_add((at * chunk_blocks) as u32));
            }
            chunk = run.first + run.count;
        }
        (chunk..count).for_each(|_| put(0, NULL_BLOCK));
    }
}

/// The number of chunks of a file, out of its size and its chunk format.
fn chunks(size: u64, format: u32, block_size: u64) -> u64 {
    size.div_ceil(block_size << (format & 31))
}
