//! The metadata of an image: inodes, directories and xattrs, behind the data that they refer to.
//!
//! ```text
//! 0        1024         data            metadata area                       shared xattrs
//! | (zero) | superblock | file blocks … | inodes + tails | directory blocks | entries |
//! ```
//!
//! Inodes stand in the order of a breadth-first walk, so the children of a directory are neighbours, and the
//! root comes first: its number must fit 16 bits. The first slot stays empty because inode number 0 means
//! "none" to readers of directories.
//!
//! An image of millions of files is planned in 16 bytes for each: an inode is made when its place is found, and
//! made again when it is written.

use plyfold_core::layer::Timestamp;
use plyfold_core::tree::{Kind, Node, NodeId, Tree};
use plyfold_core::{Made, Result};
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::content::{Content, DataLayout, Run};
use crate::directory;
use crate::fault::ErofsFault;
use crate::format::{
    CHUNK_INDEX_SIZE, CHUNK_INDEXES, COMPACT_SIZE, COMPAT_CHECKSUM, COMPAT_MTIME, ChunkIndex,
    DEVICE_SLOT_SIZE, DeviceSlot, EXTENDED_SIZE, INCOMPAT_CHUNKS, INCOMPAT_DEVICES, Inode, LAYOUT_CHUNKS,
    LAYOUT_INLINE, LAYOUT_PLAIN, MAGIC, NULL_BLOCK, SLOT, SUPERBLOCK_OFFSET, Superblock, Time, checksum,
    device_number, dirent_type, type_bits,
};
use crate::options::Options;
use crate::stream::BlockStream;
use crate::xattr::{SetId, XattrTable};

/// The number of blocks that superblock and device table take.
pub(crate) fn head_blocks(options: &Options, devices: usize) -> u32 {
    let bytes = SUPERBLOCK_OFFSET + size_of::<Superblock>() + devices * DEVICE_SLOT_SIZE;
    bytes.div_ceil(options.block_size as usize) as u32
}

/// Writes all that follows the data, then the superblock, and with it the device table; what that needs of a kernel.
pub(crate) fn finish(
    tree: &Tree<Content>,
    options: &Options,
    uuid: [u8; 16],
    devices: Vec<DeviceSlot>,
    mut image: BlockStream<'_>,
) -> Result<Made> {
    let meta_block = image.block()?;
    let plan = ImageLayout::new(tree, options, meta_block)?;
    let spilled = plan.write_inodes(&mut image)?;
    plan.write_blocks(&spilled, &mut image)?;
    let xattr_block = image.block()?;
    plan.xattrs.write_shared(|entry| image.write(entry))?;
    let blocks = image.block()?;
    let head_blocks = head_blocks(options, devices.len());
    let mut superblock = Superblock {
        magic: MAGIC.into(),
        feature_compat: (COMPAT_CHECKSUM | COMPAT_MTIME).into(),
        blkszbits: options.block_size.ilog2() as u8,
        root_nid: (plan.nids[NodeId::ROOT.index()] as u16).into(),
        inos: (plan.inodes.len() as u64).into(),
        epoch: plan.epoch,
        blocks: blocks.into(),
        meta_blkaddr: meta_block.into(),
        xattr_blkaddr: xattr_block.into(),
        uuid,
        volume_name: options.label,
        feature_incompat: if plan.has_chunks { INCOMPAT_CHUNKS } else { 0 }.into(),
        ..Superblock::new_zeroed()
    };
    if !devices.is_empty() {
        superblock.feature_incompat |= INCOMPAT_DEVICES;
        superblock.extra_devices = (devices.len() as u16).into();
        let table = SUPERBLOCK_OFFSET + size_of::<Superblock>();
        superblock.devt_slotoff = ((table / DEVICE_SLOT_SIZE) as u16).into();
    }
    let kernel = kernel(&superblock);
    image.finish(&head(&superblock, devices, head_blocks as usize * options.block_size as usize)?)?;
    Ok(kernel)
}

/// The oldest Linux that mounts an image, where pages have 4096 bytes.
fn kernel(superblock: &Superblock) -> Made {
    let has = |feature: u32| superblock.feature_incompat & feature != 0;
    let (major, minor) = match superblock.blkszbits {
        // Blocks smaller than a page.
        ..12 => (6, 4),
        _ if has(INCOMPAT_DEVICES) => (5, 16),
        _ if has(INCOMPAT_CHUNKS) => (5, 15),
        _ => (5, 4),
    };
    Made::default().with_kernel(major, minor)
}

/// The image's first blocks. Device places are given from the end of the image on and moved behind it here.
fn head(superblock: &Superblock, devices: Vec<DeviceSlot>, size: usize) -> Result<Vec<u8>> {
    let mut head = vec![0; SUPERBLOCK_OFFSET];
    head.extend_from_slice(superblock.as_bytes());
    for mut device in devices {
        let place = device.uniaddr.get().checked_add(superblock.blocks.get());
        let place = place.filter(|place| place.checked_add(device.blocks.get()).is_some());
        device.uniaddr = place.ok_or(ErofsFault::BlocksOfAll)?.into();
        head.extend_from_slice(device.as_bytes());
    }
    head.resize(size.max(SUPERBLOCK_OFFSET + superblock.checksummed()), 0);
    let sum = checksum(&head[SUPERBLOCK_OFFSET..SUPERBLOCK_OFFSET + superblock.checksummed()]);
    head[SUPERBLOCK_OFFSET + 4..SUPERBLOCK_OFFSET + 8].copy_from_slice(&sum.to_le_bytes());
    head.truncate(size);
    Ok(head)
}

/// One inode that will be.
#[derive(Clone, Copy)]
struct Planned {
    id: NodeId,
    parent: NodeId,
    xattrs: SetId,
}

/// One inode and its place.
struct Placed {
    inode: Inode,
    /// From the start of the metadata area, in bytes.
    offset: u64,
    /// The bytes that stand in blocks of their own: a directory's or a long symbolic link's.
    in_blocks: u64,
}

/// How far inodes and the blocks behind them have been placed.
#[derive(Clone, Copy)]
struct Progress {
    /// The end of the inodes, in bytes from the start of the metadata area.
    end: u64,
    /// The blocks behind the inodes.
    blocks: u64,
}

/// An inode whose bytes stand in blocks, at least in part.
struct Spilled {
    planned: Planned,
    /// The last of them stand behind the inode.
    has_tail: bool,
}

/// No number: the node has not been seen.
const UNSEEN: u32 = 0;
/// The node has been seen, its number comes with its place.
const SEEN: u32 = u32::MAX;

struct ImageLayout<'a> {
    tree: &'a Tree<Content>,
    block_size: u64,
    mtime: Option<Timestamp>,
    epoch: Time,
    xattrs: XattrTable,
    inodes: Vec<Planned>,
    /// By node.
    nids: Vec<u32>,
    /// The first block behind the inodes.
    first_block: u32,
    has_chunks: bool,
}

impl<'a> ImageLayout<'a> {
    fn new(tree: &'a Tree<Content>, options: &Options, meta_block: u32) -> Result<Self> {
        let mut plan = Self {
            tree,
            block_size: options.block_size.into(),
            mtime: options.mtime,
            epoch: Time::default(),
            xattrs: XattrTable::new(),
            inodes: Vec::new(),
            nids: vec![UNSEEN; tree.capacity()],
            first_block: 0,
            has_chunks: false,
        };
        plan.collect()?;
        plan.xattrs.settle()?;
        plan.epoch = plan.most_frequent_mtime().into();
        let mut progress = Progress::START;
        for at in 0..plan.inodes.len() {
            let Planned { id, .. } = plan.inodes[at];
            let placed = plan.place(at, &mut progress)?;
            plan.has_chunks |= placed.inode.layout() == LAYOUT_CHUNKS;
            plan.nids[id.index()] = u32::try_from(placed.offset / SLOT)
                .ok()
                .filter(|nid| *nid != SEEN)
                .ok_or(ErofsFault::Inodes)?;
        }
        // Only now is it known where the blocks behind the inodes start.
        let first = u64::from(meta_block) + progress.end.div_ceil(plan.block_size);
        if first + progress.blocks >= u32::MAX.into() {
            return Err(ErofsFault::Blocks(plan.block_size).into());
        }
        plan.first_block = first as u32;
        Ok(plan)
    }

    /// Every inode, breadth first: the list is its own queue.
    fn collect(&mut self) -> Result<()> {
        let plan = |nids: &mut Vec<u32>, inodes: &mut Vec<Planned>, id: NodeId, parent: NodeId| {
            if nids[id.index()] == UNSEEN {
                nids[id.index()] = SEEN;
                inodes.push(Planned { id, parent, xattrs: SetId::default() });
            }
        };
        plan(&mut self.nids, &mut self.inodes, NodeId::ROOT, NodeId::ROOT);
        let mut at = 0;
        while let Some(Planned { id, .. }) = self.inodes.get(at).copied() {
            self.inodes[at].xattrs = self.xattrs.add(&self.tree.node(id).xattrs)?;
            for (_, child) in self.tree.children(id) {
                plan(&mut self.nids, &mut self.inodes, child, id);
            }
            at += 1;
        }
        Ok(())
    }

    fn mtime(&self, id: NodeId) -> Timestamp {
        self.mtime.unwrap_or(self.tree.node(id).mtime)
    }

    /// The time that most inodes have: they do not need to store it. Of equally frequent ones the earliest.
    fn most_frequent_mtime(&self) -> Timestamp {
        let mut times: Vec<Timestamp> = self.inodes.iter().map(|planned| self.mtime(planned.id)).collect();
        times.sort_unstable();
        // The last of equal maxima wins: the earliest time is looked at last.
        let counted = times.chunk_by(PartialEq::eq).rev().max_by_key(|times| times.len());
        counted.and_then(|times| times.first()).copied().unwrap_or_default()
    }

    fn inode(&self, at: usize) -> Result<Inode> {
        let Planned { id, xattrs, .. } = self.inodes[at];
        let node = self.tree.node(id);
        let (mut layout, mut size, mut location) = (LAYOUT_PLAIN, 0, 0);
        match &node.kind {
            Kind::BlockDevice { major, minor } | Kind::CharDevice { major, minor } => {
                let number = device_number(*major, *minor);
                location = number.ok_or(ErofsFault::DeviceNumber(*major, *minor))?;
            }
            Kind::File { size: bytes, content } => {
                size = *bytes;
                (layout, location) = self.file(size, content);
            }
            Kind::Symlink { target } => size = target.len() as u64,
            Kind::Directory(_) | Kind::Fifo | Kind::Socket => {}
        }
        Ok(Inode {
            xattr_icount: self.xattrs.icount(xattrs).into(),
            mode: (type_bits(&node.kind) | node.mode & 0o7777).into(),
            size: size.into(),
            location: location.into(),
            ino: (at as u32 + 1).into(),
            uid: node.uid.into(),
            gid: node.gid.into(),
            mtime: self.mtime(id).into(),
            nlink: self.tree.links(id).into(),
            ..Inode::default().with_layout(layout)
        })
    }

    /// Layout and location of a regular file. A run on a device is a file of one chunk, or of as few as can be.
    fn file(&self, size: u64, content: &Content) -> (u16, u32) {
        match &content.0 {
            DataLayout::Blocks { .. } if size == 0 => (LAYOUT_PLAIN, NULL_BLOCK),
            DataLayout::Blocks { device: 0, start } => (LAYOUT_PLAIN, *start),
            DataLayout::Blocks { .. } => {
                let blocks = size.div_ceil(self.block_size);
                let bits = blocks.next_power_of_two().ilog2().min(31);
                (LAYOUT_CHUNKS, u32::from(CHUNK_INDEXES) | bits)
            }
            DataLayout::Chunks(chunks) => (LAYOUT_CHUNKS, u32::from(CHUNK_INDEXES) | u32::from(chunks.bits)),
        }
    }

    /// The next inode's place.
    fn place(&self, at: usize, progress: &mut Progress) -> Result<Placed> {
        let Planned { id, parent, .. } = self.inodes[at];
        let block_size = self.block_size;
        let mut inode = self.inode(at)?;
        let node: &Node<Content> = self.tree.node(id);
        let mut tail = None;
        if node.directory().is_some() {
            let (full, last) = directory::size(self.tree, id, parent, block_size);
            inode.size = (full + last).into();
            tail = Some(last);
        } else if let Kind::Symlink { target } = &node.kind {
            tail = Some(target.len() as u64);
        }
        let own = if inode.compact(self.epoch).is_some() { COMPACT_SIZE } else { EXTENDED_SIZE };
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
            let first = if in_blocks == 0 { 0 } else { self.first_block + progress.blocks as u32 };
            inode.location = first.into();
            progress.blocks += in_blocks.div_ceil(block_size);
        } else if let Kind::File { size, .. } = node.kind
            && inode.layout() == LAYOUT_CHUNKS
        {
            length = with_xattrs.next_multiple_of(CHUNK_INDEX_SIZE)
                + chunks(size, inode.location.get(), block_size) * CHUNK_INDEX_SIZE;
        }
        let mut offset = progress.end.next_multiple_of(SLOT);
        if offset % block_size + within > block_size {
            offset = offset.next_multiple_of(block_size);
        }
        progress.end = offset + length;
        Ok(Placed { inode, offset, in_blocks })
    }

    /// Yields the inodes that have bytes in blocks.
    fn write_inodes(&self, image: &mut BlockStream<'_>) -> Result<Vec<Spilled>> {
        let start = image.position();
        let mut spilled = Vec::new();
        let mut progress = Progress::START;
        let mut bytes = Vec::new();
        for (at, planned) in self.inodes.iter().enumerate() {
            let placed = self.place(at, &mut progress)?;
            let inode = &placed.inode;
            let has_tail = inode.layout() == LAYOUT_INLINE;
            if placed.in_blocks > 0 {
                spilled.push(Spilled { planned: *planned, has_tail });
            }
            bytes.clear();
            let compact = inode.compact(self.epoch);
            bytes.extend_from_slice(compact.as_ref().map_or(inode.as_bytes(), |compact| compact.as_bytes()));
            self.xattrs.write(planned.xattrs, &mut bytes);
            match &self.tree.node(planned.id).kind {
                Kind::Directory(_) if has_tail => {
                    self.directory_blocks(*planned, |block, is_last| {
                        if is_last {
                            bytes.extend_from_slice(block);
                        }
                        Ok(())
                    })?;
                }
                Kind::Symlink { target } if has_tail => bytes.extend_from_slice(target),
                Kind::File { size, content } if inode.layout() == LAYOUT_CHUNKS => {
                    bytes.resize(bytes.len().next_multiple_of(CHUNK_INDEX_SIZE as usize), 0);
                    self.chunk_indexes(*size, inode.location.get(), content, &mut bytes);
                }
                _ => {}
            }
            image.zeros(start + placed.offset - image.position())?;
            image.write(&bytes)?;
        }
        image.block().map(|_| spilled)
    }

    /// What tails had no room for.
    fn write_blocks(&self, spilled: &[Spilled], image: &mut BlockStream<'_>) -> Result<()> {
        for Spilled { planned, has_tail } in spilled {
            if let Kind::Symlink { target } = &self.tree.node(planned.id).kind {
                image.write(target)?;
                image.block()?;
                continue;
            }
            self.directory_blocks(*planned, |block, is_last| {
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
        let target = |id: NodeId| {
            let nid = u64::from(self.nids[id.index()]);
            (nid, dirent_type(type_bits(&self.tree.node(id).kind)))
        };
        let mut bytes = Vec::new();
        let Planned { id, parent, .. } = planned;
        directory::for_each_block(self.tree, id, parent, self.block_size as usize, |entries, is_last| {
            bytes.clear();
            directory::write(entries, target, &mut bytes);
            show(&bytes, is_last)
        })
    }

    /// One for each chunk.
    fn chunk_indexes(&self, size: u64, format: u32, content: &Content, out: &mut Vec<u8>) {
        let chunk_blocks = 1u64 << (format & 31);
        let count = chunks(size, format, self.block_size);
        let mut put = |device: u16, block: u32| {
            let (startblk_hi, device_id, startblk_lo) = (0.into(), device.into(), block.into());
            out.extend_from_slice(ChunkIndex { startblk_hi, device_id, startblk_lo }.as_bytes());
        };
        let whole;
        let (device, runs) = match &content.0 {
            DataLayout::Blocks { device, start } => {
                whole = [Run { first: 0, count, start: *start }];
                (*device, &whole[..])
            }
            DataLayout::Chunks(chunks) => (chunks.device, &*chunks.runs),
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

impl Progress {
    const START: Self = Self { end: SLOT, blocks: 0 };
}

/// The number of chunks of a file, out of its size and its chunk format.
fn chunks(size: u64, format: u32, block_size: u64) -> u64 {
    size.div_ceil(block_size << (format & 31))
}
