//! Writes a file system of a whole image: files in the order of their inodes, what describes them last.

use plyfold_core::layer::Timestamp;
use plyfold_core::tree::{FileData, Kind, Node, NodeId};
use plyfold_core::{Output, Result};

use crate::attributes::Stored;
use crate::data;
use crate::directory::{DIRECTORY, Entry, Place};
use crate::disk::Disk;
use crate::extents::Extents;
use crate::fields::{
    EA_INODE_FL, EXTENTS_FL, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK,
};
use crate::format::{
    BLOCK_SIZE, Block, Body, Checksum, Inode, JOURNAL_INODE, LOST_FOUND_INODE, ROOT_INODE, bitmap, journal,
    put,
};
use crate::geometry::Geometry;
use crate::inode_table::InodeTable;
use crate::plan::{LOST_FOUND, Plan, Planned, device, is_short};
use crate::space::Space;
use crate::volume::{Descriptor, Volume};

/// The most subdirectories that a directory counts, itself included (`EXT4_LINK_MAX`): more are written as 1.
const MOST_LINKS: u32 = 65_000;

/// What a file system is made of besides the image.
pub(crate) struct Settings<'a> {
    pub(crate) uuid: [u8; 16],
    pub(crate) hash_seed: [u8; 16],
    pub(crate) label: &'a str,
    /// Blocks of the journal; 0 for none.
    pub(crate) journal_blocks: u64,
}

/// Writes the image of the plan into an empty output.
pub(crate) fn write(
    plan: Plan<'_>,
    geometry: Geometry,
    settings: &Settings<'_>,
    out: &mut dyn Output,
) -> Result<()> {
    let checksum = Checksum::new(&settings.uuid);
    let mut writer = Writer {
        disk: Disk::new(out, Space::new(geometry), geometry.blocks)?,
        table: InodeTable::new(geometry, checksum),
        buffer: vec![0; data::BUFFER],
        plan,
        geometry,
        checksum,
        settings,
    };
    let journal = writer.journal()?;
    writer.lost_found()?;
    for at in 0..writer.plan.order.len() {
        writer.node(writer.plan.order[at])?;
    }
    writer.large_values()?;
    writer.finish(journal)
}

struct Writer<'a> {
    plan: Plan<'a>,
    geometry: Geometry,
    settings: &'a Settings<'a>,
    checksum: Checksum,
    disk: Disk<'a>,
    table: InodeTable,
    buffer: Vec<u8>,
}

impl Writer<'_> {
    /// The journal, empty; the body and the size of its inode.
    fn journal(&mut self) -> Result<Option<(Body, u64)>> {
        let blocks = self.settings.journal_blocks;
        if blocks == 0 {
            return Ok(None);
        }
        let mut extents = Extents::default();
        self.disk.append(&mut extents, 0, &journal(blocks as u32, &self.settings.uuid))?;
        self.disk.reserve(&mut extents, 1, blocks - 1)?;
        let inode = Inode { number: JOURNAL_INODE, mode: S_IFREG | 0o600, links: 1, ..Inode::default() };
        let inode = Inode { size: blocks * BLOCK_SIZE as u64, ..self.with_extents(inode, &extents)? };
        self.table.add(&inode, &mut self.disk)?;
        Ok(Some((inode.body, inode.size)))
    }

    /// The directory for e2fsck, where the image has no file of its name.
    fn lost_found(&mut self) -> Result<()> {
        if self.plan.has_lost_found {
            return Ok(());
        }
        let inode = Inode { number: LOST_FOUND_INODE, mode: S_IFDIR | 0o700, links: 2, ..Inode::default() };
        let inode = self.directory(inode, ROOT_INODE, Vec::new())?;
        self.table.add(&inode, &mut self.disk)
    }

    /// One inode of the image's tree, and its blocks.
    fn node(&mut self, planned: Planned) -> Result<()> {
        let image = self.plan.image;
        let (id, tree) = (planned.id, image.tree());
        let node = tree.node(id);
        let (time, links) = (node.mtime, tree.links(id));
        let inode = Inode {
            number: self.plan.number(id),
            mode: type_bits(&node.kind) | node.mode & 0o7777,
            uid: node.uid,
            gid: node.gid,
            links: links as u16,
            mtime: time,
            time,
            atime: time,
            ..Inode::default()
        };
        let mut inode = match &node.kind {
            Kind::File { size, .. } => {
                let extents = data::copy(image, (id, *size), &mut self.disk, &mut self.buffer)?;
                Inode { size: *size, ..self.with_extents(inode, &extents)? }
            }
            Kind::Directory(_) => {
                let is_extended = id == NodeId::ROOT && !self.plan.has_lost_found;
                let links = links + u32::from(is_extended);
                let links = if links > MOST_LINKS { 1 } else { links as u16 };
                let entries = entries(&self.plan, id, is_extended);
                let parent = self.plan.number(planned.parent);
                self.directory(Inode { links, ..inode }, parent, entries)?
            }
            Kind::Symlink { target } => self.symlink(inode, target)?,
            Kind::BlockDevice { major, minor } | Kind::CharDevice { major, minor } => {
                Inode { body: device(*major, *minor)?, ..inode }
            }
            Kind::Fifo | Kind::Socket => inode,
        };
        self.attributes(&mut inode, node)?;
        self.table.add(&inode, &mut self.disk)
    }

    /// Adds the blocks of a directory to its inode.
    fn directory(&mut self, inode: Inode, parent: u32, entries: Vec<Entry<'_>>) -> Result<Inode> {
        let place =
            Place { number: inode.number, parent, seed: &self.settings.hash_seed, checksum: self.checksum };
        let (mut extents, disk) = (Extents::default(), &mut self.disk);
        let flags = place.write(entries, |block| {
            let next = extents.blocks();
            disk.append(&mut extents, next, block)
        })?;
        let size = extents.blocks() * BLOCK_SIZE as u64;
        let inode = self.with_extents(inode, &extents)?;
        Ok(Inode { size, flags: inode.flags | flags, ..inode })
    }

    fn symlink(&mut self, mut inode: Inode, target: &[u8]) -> Result<Inode> {
        inode.size = target.len() as u64;
        if is_short(target) {
            put(&mut inode.body.0, 0, target);
            return Ok(inode);
        }
        let mut block = [0; BLOCK_SIZE];
        put(&mut block, 0, target);
        let mut extents = Extents::default();
        self.disk.append(&mut extents, 0, &block)?;
        self.with_extents(inode, &extents)
    }

    /// Adds the blocks of a file, and the tree that tells where they are.
    fn with_extents(&mut self, inode: Inode, extents: &Extents) -> Result<Inode> {
        let disk = &mut self.disk;
        let write = |block: &Block| disk.store(|_| *block);
        let (body, tree_blocks) = extents.finish(inode.number, self.checksum, write)?;
        Ok(Inode { body, blocks: extents.blocks() + tree_blocks, flags: EXTENTS_FL, ..inode })
    }

    fn attributes(&mut self, inode: &mut Inode, node: &Node<FileData>) -> Result<()> {
        inode.blocks += self.plan.attributes.value_blocks(&node.xattrs);
        match self.plan.attributes.store(&node.xattrs)? {
            Stored::Inode(tail) => inode.tail = tail,
            Stored::Block(block) => inode.xattr_block = block,
            Stored::NewBlock(set, sharing) => {
                let checksum = self.checksum;
                inode.xattr_block = self.disk.store(|place| set.encode(place, sharing, checksum))?;
                self.plan.attributes.placed(&node.xattrs, inode.xattr_block);
            }
        }
        Ok(())
    }

    /// The inodes of attributes' values (`attributes.rst`): the checksum of the value is their access time, the count of
    /// references their version.
    fn large_values(&mut self) -> Result<()> {
        let mut number = self.plan.last;
        for set in 0..self.plan.attributes.sets() {
            for large in self.plan.attributes.values(set)? {
                number += 1;
                let mut bytes = large.value;
                let size = bytes.len() as u64;
                bytes.resize(bytes.len().next_multiple_of(BLOCK_SIZE), 0);
                let mut extents = Extents::default();
                self.disk.append(&mut extents, 0, &bytes)?;
                let inode = Inode {
                    number,
                    mode: S_IFREG | 0o600,
                    links: 1,
                    atime: Timestamp { seconds: large.checksum.into(), nanos: 0 },
                    version: large.references,
                    ..Inode::default()
                };
                let inode = self.with_extents(inode, &extents)?;
                let inode = Inode { size, flags: inode.flags | EA_INODE_FL, ..inode };
                self.table.add(&inode, &mut self.disk)?;
            }
        }
        Ok(())
    }

    /// Bitmaps, descriptors and superblocks, the primary last: a disk cut short by a crash is no file system.
    fn finish(mut self, journal: Option<(Body, u64)>) -> Result<()> {
        let directories = self.table.finish(&mut self.disk)?;
        let geometry = self.geometry;
        let mut descriptors = Vec::with_capacity(geometry.descriptor_blocks as usize * BLOCK_SIZE);
        for group in 0..geometry.groups {
            let (used_blocks, group_blocks) = (self.disk.space.used_in(group), geometry.group_blocks(group));
            let per_group = geometry.inodes_per_group;
            let used_inodes = self.plan.inodes.saturating_sub(group * per_group).min(per_group);
            let has_files = used_blocks > geometry.metadata(group) || used_inodes > 0;
            let (mut block_sum, mut inode_sum) = (None, None);
            // The last group may be short: it is never left uninitialised.
            if has_files || group + 1 == geometry.groups {
                let bits = bitmap(used_blocks, group_blocks);
                block_sum = Some(self.checksum.over(&[&bits]));
                self.disk.put(geometry.block_bitmap(group), &bits)?;
            }
            if used_inodes > 0 {
                let bits = bitmap(used_inodes, per_group);
                // The checksum leaves the padding out (`ext4_inode_bitmap_csum`).
                inode_sum = Some(self.checksum.over(&[&bits[..per_group as usize / 8]]));
                self.disk.put(geometry.block_bitmap(group) + 1, &bits)?;
            }
            let descriptor = Descriptor {
                block_bitmap: geometry.block_bitmap(group),
                inode_bitmap: geometry.block_bitmap(group) + 1,
                inode_table: geometry.inode_table(group),
                block_bitmap_checksum: block_sum,
                inode_bitmap_checksum: inode_sum,
                free_blocks: group_blocks - used_blocks,
                free_inodes: per_group - used_inodes,
                directories: directories[group as usize],
            };
            descriptors.extend_from_slice(&descriptor.encode(group, self.checksum));
        }
        descriptors.resize(geometry.descriptor_blocks as usize * BLOCK_SIZE, 0);
        let settings = self.settings;
        let volume = Volume {
            uuid: settings.uuid,
            hash_seed: settings.hash_seed,
            label: settings.label,
            blocks: geometry.blocks,
            free_blocks: geometry.data_blocks() - self.disk.space.used(),
            overhead: geometry.overhead() + settings.journal_blocks,
            inodes: geometry.inodes(),
            free_inodes: geometry.inodes() - self.plan.inodes,
            inodes_per_group: geometry.inodes_per_group,
            backup_group: geometry.backup_group(),
            time: Timestamp::default(),
            journal,
            large_values: self.plan.attributes.has_large_values(),
        };
        let mut block: Block = [0; BLOCK_SIZE];
        if let Some(group) = geometry.backup_group() {
            let start = Geometry::group_start(group);
            put(&mut block, 0, &volume.superblock(group as u16));
            self.disk.put(start, &block)?;
            self.disk.put(start + 1, &descriptors)?;
        }
        self.disk.put(1, &descriptors)?;
        self.disk.flush()?;
        block.fill(0);
        put(&mut block, 1024, &volume.superblock(0));
        self.disk.put(0, &block)?;
        self.disk.flush()
    }
}

/// The names in a directory, with `lost+found` where it is added.
fn entries<'a>(plan: &Plan<'a>, id: NodeId, is_extended: bool) -> Vec<Entry<'a>> {
    let tree = plan.image.tree();
    let own = tree.children(id).map(|(name, child)| {
        let file_type = entry_type(&tree.node(child).kind);
        Entry { name, number: plan.number(child), file_type }
    });
    let added = Entry { name: LOST_FOUND, number: LOST_FOUND_INODE, file_type: DIRECTORY };
    own.chain(is_extended.then_some(added)).collect()
}

/// `i_mode` without its permissions.
fn type_bits<C>(kind: &Kind<C>) -> u16 {
    match kind {
        Kind::Fifo => S_IFIFO,
        Kind::CharDevice { .. } => S_IFCHR,
        Kind::Directory(_) => S_IFDIR,
        Kind::BlockDevice { .. } => S_IFBLK,
        Kind::File { .. } => S_IFREG,
        Kind::Symlink { .. } => S_IFLNK,
        Kind::Socket => S_IFSOCK,
    }
}

/// `file_type` of a directory's entry.
fn entry_type<C>(kind: &Kind<C>) -> u8 {
    match kind {
        Kind::File { .. } => 1,
        Kind::Directory(_) => DIRECTORY,
        Kind::CharDevice { .. } => 3,
        Kind::BlockDevice { .. } => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink { .. } => 7,
    }
}
