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

use std::collections::{BTreeMap, HashMap};

use plyfold_core::layer::Timestamp;
use plyfold_core::tree::{Kind, Node, NodeId, Tree};
use plyfold_core::{Error, Result};

use crate::content::{Content, Layout};
use crate::directory;
use crate::format::{
    CHUNK_INDEX_SIZE, CHUNK_INDEXES, COMPACT_SIZE, DEVICE_SLOT_SIZE, DeviceSlot, EXTENDED_SIZE,
    INCOMPAT_CHUNKS, INCOMPAT_DEVICES, Inode, LAYOUT_CHUNKS, LAYOUT_INLINE, LAYOUT_PLAIN, NULL_BLOCK, SLOT,
    SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, Superblock, checksum, device_number, dirent_type, type_bits,
};
use crate::options::Options;
use crate::stream::BlockStream;
use crate::xattr::{SetId, XattrTable};

/// The number of blocks that superblock and device table take.
pub(crate) fn head_blocks(options: &Options, devices: usize) -> u32 {
    let bytes = SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE + devices * DEVICE_SLOT_SIZE;
    bytes.div_ceil(options.block_size as usize) as u32
}

/// Writes all that follows the data, then the superblock, and with it the device table.
pub(crate) fn finish(
    tree: &Tree<Content>,
    options: &Options,
    uuid: [u8; 16],
    devices: Vec<DeviceSlot>,
    mut image: BlockStream<'_>,
) -> Result<()> {
    let meta_block = image.block()?;
    let plan = Plan::new(tree, options, meta_block)?;
    plan.write_inodes(&mut image)?;
    plan.write_blocks(&mut image)?;
    let xattr_block = image.block()?;
    for entry in plan.xattrs.shared() {
        image.write(entry)?;
    }
    let blocks = image.block()?;
    let head_blocks = head_blocks(options, devices.len());
    let mut superblock = Superblock {
        block_bits: options.block_size.ilog2() as u8,
        root_nid: plan.nids[NodeId::ROOT.index()] as u16,
        inodes: plan.inodes.len() as u64,
        epoch: plan.epoch,
        blocks,
        meta_block,
        xattr_block,
        uuid,
        label: options.label,
        incompat: if plan.has_chunks { INCOMPAT_CHUNKS } else { 0 },
        devices: 0,
        device_slot: 0,
    };
    if !devices.is_empty() {
        superblock.incompat |= INCOMPAT_DEVICES;
        superblock.devices = devices.len() as u16;
        superblock.device_slot = ((SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE) / DEVICE_SLOT_SIZE) as u16;
    }
    image.finish(&head(&superblock, devices, head_blocks as usize * options.block_size as usize)?)
}

/// The image's first blocks. Device places are given from the end of the image on and moved behind it here.
fn head(superblock: &Superblock, devices: Vec<DeviceSlot>, size: usize) -> Result<Vec<u8>> {
    let mut head = vec![0; SUPERBLOCK_OFFSET];
    head.extend_from_slice(&superblock.encode());
    for mut device in devices {
        let flat_block = device.flat_block.checked_add(superblock.blocks);
        device.flat_block = flat_block
            .filter(|block| block.checked_add(device.blocks).is_some())
            .ok_or_else(|| Error::limit("the image and its layers have more than 2^32 blocks together"))?;
        head.extend_from_slice(&device.encode());
    }
    head.resize(size.max(SUPERBLOCK_OFFSET + superblock.checksummed()), 0);
    let sum = checksum(&head[SUPERBLOCK_OFFSET..SUPERBLOCK_OFFSET + superblock.checksummed()]);
    head[SUPERBLOCK_OFFSET + 4..SUPERBLOCK_OFFSET + 8].copy_from_slice(&sum.to_le_bytes());
    head.truncate(size);
    Ok(head)
}

/// One inode and its place.
struct Planned {
    id: NodeId,
    parent: NodeId,
    inode: Inode,
    compact: bool,
    xattrs: SetId,
    /// From the start of the metadata area, in bytes.
    offset: u64,
    /// The bytes that stand in blocks of their own: a directory's or a long symbolic link's.
    in_blocks: u64,
}

struct Plan<'a> {
    tree: &'a Tree<Content>,
    block_size: u64,
    epoch: Timestamp,
    xattrs: XattrTable,
    inodes: Vec<Planned>,
    /// By node.
    nids: Vec<u64>,
    /// The end of the inodes, in bytes from the start of the metadata area.
    end: u64,
    has_chunks: bool,
}

impl<'a> Plan<'a> {
    fn new(tree: &'a Tree<Content>, options: &Options, meta_block: u32) -> Result<Self> {
        let mut plan = Self {
            tree,
            block_size: options.block_size.into(),
            epoch: Timestamp::default(),
            xattrs: XattrTable::new(),
            inodes: Vec::new(),
            nids: vec![0; tree.capacity()],
            end: SLOT,
            has_chunks: false,
        };
        plan.collect(options.mtime)?;
        plan.xattrs.settle()?;
        plan.epoch = plan.most_frequent_mtime();
        let mut blocks = 0;
        for at in 0..plan.inodes.len() {
            plan.place(at, &mut blocks);
        }
        // Only now is it known where the blocks behind the inodes start.
        let first = u64::from(meta_block) + plan.end.div_ceil(plan.block_size);
        if first + blocks >= u32::MAX.into() {
            return Err(Error::limit(format!(
                "the image has more than 2^32 blocks of {} bytes",
                plan.block_size
            )));
        }
        for planned in &mut plan.inodes {
            if planned.in_blocks > 0 {
                planned.inode.location += first as u32;
            }
        }
        Ok(plan)
    }

    /// Every inode, breadth first.
    fn collect(&mut self, mtime: Option<Timestamp>) -> Result<()> {
        let mut queue = vec![(NodeId::ROOT, NodeId::ROOT)];
        self.nids[NodeId::ROOT.index()] = SLOT;
        while self.inodes.len() < queue.len() {
            let (id, parent) = queue[self.inodes.len()];
            let node = self.tree.node(id);
            let inode = self.inode(id, node, mtime.unwrap_or(node.mtime))?;
            let xattrs = self.xattrs.add(&node.xattrs)?;
            self.inodes.push(Planned { id, parent, inode, compact: false, xattrs, offset: 0, in_blocks: 0 });
            for (_, child) in node.directory().into_iter().flat_map(plyfold_core::tree::Directory::children) {
                let nid = &mut self.nids[child.index()];
                if *nid == 0 {
                    // Marks it as seen; the number comes with the place.
                    *nid = u64::MAX;
                    queue.push((child, id));
                }
            }
        }
        Ok(())
    }

    fn inode(&mut self, id: NodeId, node: &Node<Content>, mtime: Timestamp) -> Result<Inode> {
        let (mut layout, mut size, mut location) = (LAYOUT_PLAIN, 0, 0);
        match &node.kind {
            Kind::BlockDevice { major, minor } | Kind::CharDevice { major, minor } => {
                location = device_number(*major, *minor).ok_or_else(|| {
                    Error::limit(format!("the device number {major}:{minor} is beyond Linux's 4095:1048575"))
                })?;
            }
            Kind::File { size: bytes, content } => {
                size = *bytes;
                (layout, location) = self.file(size, content);
            }
            Kind::Symlink { target } => size = target.len() as u64,
            Kind::Directory(_) | Kind::Fifo | Kind::Socket => {}
        }
        Ok(Inode {
            layout,
            xattr_size: 0,
            mode: type_bits(&node.kind) | node.mode & 0o7777,
            links: self.tree.links(id),
            size,
            location,
            number: self.inodes.len() as u32 + 1,
            uid: node.uid,
            gid: node.gid,
            mtime,
        })
    }

    /// Layout and location of a regular file. A run on a device is a file of one chunk, or of as few as can be.
    fn file(&mut self, size: u64, content: &Content) -> (u16, u32) {
        match content.0 {
            Layout::Blocks { .. } if size == 0 => (LAYOUT_PLAIN, NULL_BLOCK),
            Layout::Blocks { device: 0, start } => (LAYOUT_PLAIN, start),
            Layout::Blocks { .. } => {
                let blocks = size.div_ceil(self.block_size);
                let bits = blocks.next_power_of_two().ilog2().min(31);
                self.has_chunks = true;
                (LAYOUT_CHUNKS, u32::from(CHUNK_INDEXES) | bits)
            }
            Layout::Chunks { bits, .. } => {
                self.has_chunks = true;
                (LAYOUT_CHUNKS, u32::from(CHUNK_INDEXES) | u32::from(bits))
            }
        }
    }

    /// The time that most inodes have: they do not need to store it. Of equally frequent ones the earliest.
    fn most_frequent_mtime(&self) -> Timestamp {
        let mut counts: HashMap<Timestamp, u32> = HashMap::new();
        for planned in &self.inodes {
            *counts.entry(planned.inode.mtime).or_default() += 1;
        }
        let counts: BTreeMap<_, _> = counts.into_iter().collect();
        let best = counts.into_iter().rev().max_by_key(|(_, count)| *count);
        best.map(|(mtime, _)| mtime).unwrap_or_default()
    }

    fn place(&mut self, at: usize, blocks: &mut u64) {
        let Planned { id, parent, xattrs, .. } = self.inodes[at];
        let block_size = self.block_size;
        let planned = &mut self.inodes[at];
        planned.inode.xattr_size = self.xattrs.size(xattrs);
        let node = self.tree.node(id);
        let mut tail = None;
        if let Some(directory) = node.directory() {
            let listed = directory::blocks(&directory::entries(directory, id, parent), block_size as usize);
            let last = listed.last().map_or(0, |block| block.used as u64);
            planned.inode.size = (listed.len() as u64 - 1) * block_size + last;
            tail = Some(last);
        } else if let Kind::Symlink { target } = &node.kind {
            tail = Some(target.len() as u64);
        }
        planned.compact = planned.inode.is_compact(self.epoch);
        let own = if planned.compact { COMPACT_SIZE } else { EXTENDED_SIZE };
        let with_xattrs = own + u64::from(planned.inode.xattr_size);
        // What must stand within one block: the inode, and its tail if there is room for one. Older kernels want
        // the xattrs between them in that block too.
        let (mut within, mut length) = (own, with_xattrs);
        if let Some(tail) = tail {
            planned.in_blocks = planned.inode.size;
            if with_xattrs + tail <= block_size && tail < block_size {
                (within, length) = (with_xattrs + tail, with_xattrs + tail);
                planned.inode.layout = LAYOUT_INLINE;
                planned.in_blocks -= tail;
            }
            // Relative to the first block behind the inodes.
            planned.inode.location = if planned.in_blocks == 0 { 0 } else { *blocks as u32 };
            *blocks += planned.in_blocks.div_ceil(block_size);
        } else if let Kind::File { size, .. } = node.kind
            && planned.inode.layout == LAYOUT_CHUNKS
        {
            length = with_xattrs.next_multiple_of(CHUNK_INDEX_SIZE)
                + chunks(size, planned.inode.location, block_size) * CHUNK_INDEX_SIZE;
        }
        let mut offset = self.end.next_multiple_of(SLOT);
        if offset % block_size + within > block_size {
            offset = offset.next_multiple_of(block_size);
        }
        planned.offset = offset;
        self.nids[id.index()] = offset / SLOT;
        self.end = offset + length;
    }

    fn write_inodes(&self, image: &mut BlockStream<'_>) -> Result<()> {
        let start = image.position();
        let mut bytes = Vec::new();
        for planned in &self.inodes {
            bytes.clear();
            planned.inode.encode(planned.compact, &mut bytes);
            self.xattrs.write(planned.xattrs, &mut bytes);
            match &self.tree.node(planned.id).kind {
                Kind::Directory(_) if planned.inode.layout == LAYOUT_INLINE => {
                    self.directory_blocks(planned, |is_last| is_last, &mut bytes);
                }
                Kind::Symlink { target } if planned.inode.layout == LAYOUT_INLINE => {
                    bytes.extend_from_slice(target);
                }
                Kind::File { size, content } if planned.inode.layout == LAYOUT_CHUNKS => {
                    bytes.resize(bytes.len().next_multiple_of(CHUNK_INDEX_SIZE as usize), 0);
                    self.chunk_indexes(*size, planned.inode.location, content, &mut bytes);
                }
                _ => {}
            }
            image.zeros(start + planned.offset - image.position())?;
            image.write(&bytes)?;
        }
        image.block().map(drop)
    }

    /// What tails had no room for.
    fn write_blocks(&self, image: &mut BlockStream<'_>) -> Result<()> {
        let mut bytes = Vec::new();
        for planned in self.inodes.iter().filter(|planned| planned.in_blocks > 0) {
            bytes.clear();
            let inline = planned.inode.layout == LAYOUT_INLINE;
            match &self.tree.node(planned.id).kind {
                Kind::Symlink { target } => bytes.extend_from_slice(target),
                _ => self.directory_blocks(planned, |is_last| !(inline && is_last), &mut bytes),
            }
            image.write(&bytes)?;
            image.block()?;
        }
        Ok(())
    }

    fn directory_blocks(&self, planned: &Planned, wanted: impl Fn(bool) -> bool, out: &mut Vec<u8>) {
        let Some(directory) = self.tree.node(planned.id).directory() else { return };
        let entries = directory::entries(directory, planned.id, planned.parent);
        let blocks = directory::blocks(&entries, self.block_size as usize);
        let target = |id: NodeId| (self.nids[id.index()], dirent_type(type_bits(&self.tree.node(id).kind)));
        for (at, block) in blocks.iter().enumerate() {
            if !wanted(at + 1 == blocks.len()) {
                continue;
            }
            let start = out.len();
            directory::write(&entries[block.entries.clone()], target, out);
            if at + 1 < blocks.len() {
                out.resize(start + self.block_size as usize, 0);
            }
        }
    }

    /// 8 bytes a chunk: high bits of the block (2 bytes), device (2), block (4).
    fn chunk_indexes(&self, size: u64, format: u32, content: &Content, out: &mut Vec<u8>) {
        let chunk_blocks = 1u64 << (format & 31);
        let count = chunks(size, format, self.block_size);
        let mut put = |device: u16, block: u32| {
            out.extend_from_slice(&[0; 2]);
            out.extend_from_slice(&device.to_le_bytes());
            out.extend_from_slice(&block.to_le_bytes());
        };
        match &content.0 {
            Layout::Blocks { device, start } => {
                for chunk in 0..count {
                    put(*device, start.wrapping_add((chunk * chunk_blocks) as u32));
                }
            }
            Layout::Chunks { device, runs, .. } => {
                let mut chunk = 0;
                for run in runs {
                    (chunk..run.first).for_each(|_| put(0, NULL_BLOCK));
                    for at in 0..run.count {
                        put(*device, run.start.wrapping_add((at * chunk_blocks) as u32));
                    }
                    chunk = run.first + run.count;
                }
                (chunk..count).for_each(|_| put(0, NULL_BLOCK));
            }
        }
    }
}

/// The number of chunks of a file, out of its size and its chunk format.
fn chunks(size: u64, format: u32, block_size: u64) -> u64 {
    size.div_ceil(block_size << (format & 31))
}
