//! Writes the few blocks of an empty disk that are not zero, the superblock last.

use std::io::SeekFrom;

use plyfold_core::{Error, Output, Result};

use crate::Ext4Upper;
use crate::directory::{DIRECTORY, Entry, Place};
use crate::fields::{S_IFDIR, S_IFREG};
use crate::format::{
    BLOCK_SIZE, Block, Checksum, DESCRIPTOR_SIZE, INODE_SIZE, INODES_PER_GROUP, Inode, JOURNAL_INODE,
    LOST_FOUND_INODE, ROOT_INODE, bitmap, journal, put,
};
use crate::layout::DiskLayout;
use crate::volume::{Descriptor, Volume};

const LOST_FOUND: u32 = LOST_FOUND_INODE;
const UPPER: u32 = 12;
/// The last inode in use.
const WORK: u32 = 13;

/// Writes the disk that `upper` describes.
pub(crate) fn write(upper: &Ext4Upper, out: &mut dyn Output) -> Result<()> {
    let mut disk = Disk {
        layout: DiskLayout::new(upper.size, upper.journal, upper.xattrs.block().is_some()),
        checksum: Checksum::new(&upper.effective_uuid()),
        upper,
        out,
    };
    disk.out.set_len(upper.size).map_err(|e| Error::io("setting the length of an ext4 disk", e))?;
    disk.files()?;
    let descriptors = disk.groups()?;
    disk.superblocks(&descriptors)
}

struct Disk<'a> {
    upper: &'a Ext4Upper,
    layout: DiskLayout,
    checksum: Checksum,
    out: &'a mut dyn Output,
}

impl Disk<'_> {
    /// The directories, `upper/`'s attributes, the journal and their inodes.
    fn files(&mut self) -> Result<()> {
        let mut table = [0; BLOCK_SIZE];
        let mut add = |inode: &Inode| {
            put(&mut table, (inode.number as usize - 1) * INODE_SIZE, &inode.encode(self.checksum));
        };
        let root = [
            (".", ROOT_INODE),
            ("..", ROOT_INODE),
            ("lost+found", LOST_FOUND),
            ("upper", UPPER),
            ("work", WORK),
        ];
        let children = [LOST_FOUND, UPPER, WORK].map(|number| [(".", number), ("..", ROOT_INODE)]);
        let directories = [
            (self.directory(0, ROOT_INODE, 0o755, 5), &root[..]),
            (self.directory(1, LOST_FOUND, 0o700, 2), &children[0]),
            (self.upper_directory(), &children[1]),
            (self.directory(3, WORK, 0o700, 2), &children[2]),
        ];
        for (inode, _) in &directories {
            add(inode);
        }
        if let Some(inode) = self.journal() {
            add(&inode);
        }
        for (index, (inode, entries)) in directories.into_iter().enumerate() {
            let entries: Vec<_> = entries
                .iter()
                .map(|(name, number)| Entry { name: name.as_bytes(), number: *number, file_type: DIRECTORY })
                .collect();
            let place =
                Place { number: inode.number, parent: ROOT_INODE, seed: &[0; 16], checksum: self.checksum };
            self.put(self.layout.directories() + index as u64, &place.block(&entries))?;
        }
        if let Some(attributes) = self.upper.xattrs.block() {
            let block = self.layout.xattr_block();
            self.put(block, &attributes.encode(block, 1, self.checksum))?;
        }
        if self.layout.journal_blocks > 0 {
            let superblock = journal(self.layout.journal_blocks, &self.upper.effective_uuid());
            self.put(self.layout.journal(), &superblock)?;
        }
        self.put(self.layout.inode_table(0), &table)
    }

    /// The inode of the directory whose block is the `index`th of them.
    fn directory(&self, index: u64, number: u32, permissions: u16, links: u16) -> Inode {
        Inode {
            number,
            mode: S_IFDIR | permissions,
            links,
            mtime: self.upper.time,
            time: self.upper.time,
            atime: self.upper.time,
            ..Inode::default()
        }
        .with_run(self.layout.directories() + index, 1)
    }

    fn upper_directory(&self) -> Inode {
        let root = &self.upper.root;
        Inode {
            uid: root.uid,
            gid: root.gid,
            mtime: root.mtime,
            xattr_block: self.upper.xattrs.block().map_or(0, |_| self.layout.xattr_block()),
            tail: self.upper.xattrs.in_inode(),
            ..self.directory(2, UPPER, root.mode & 0o7777, 2)
        }
    }

    fn journal(&self) -> Option<Inode> {
        let inode = Inode {
            number: JOURNAL_INODE,
            mode: S_IFREG | 0o600,
            links: 1,
            mtime: self.upper.time,
            time: self.upper.time,
            atime: self.upper.time,
            ..Inode::default()
        };
        let blocks = self.layout.journal_blocks;
        (blocks > 0).then(|| inode.with_run(self.layout.journal(), blocks))
    }

    /// The bitmaps that are initialised, and the descriptors of all groups: 64 bytes each, at most 8 MiB.
    fn groups(&mut self) -> Result<Vec<u8>> {
        let table = self.layout.descriptor_blocks as usize * BLOCK_SIZE;
        let mut descriptors = Vec::with_capacity(table);
        for group in 0..self.layout.groups {
            descriptors.extend_from_slice(&self.group(group)?);
        }
        descriptors.resize(table, 0);
        Ok(descriptors)
    }

    fn group(&mut self, group: u32) -> Result<[u8; DESCRIPTOR_SIZE]> {
        let (mut block_sum, mut inode_sum) = (None, None);
        if group == 0 || group + 1 == self.layout.groups {
            let blocks = bitmap(self.layout.used_blocks(group), self.layout.group_blocks(group));
            block_sum = Some(self.checksum.over(&[&blocks]));
            self.put(self.layout.block_bitmap(group), &blocks)?;
        }
        if group == 0 {
            let inodes = bitmap(WORK, INODES_PER_GROUP);
            // The checksum leaves the padding out (`ext4_inode_bitmap_csum`).
            inode_sum = Some(self.checksum.over(&[&inodes[..INODES_PER_GROUP as usize / 8]]));
            self.put(self.layout.inode_bitmap(group), &inodes)?;
        }
        let (used_inodes, directories) = if group == 0 { (WORK, 4) } else { (0, 0) };
        let descriptor = Descriptor {
            block_bitmap: self.layout.block_bitmap(group),
            inode_bitmap: self.layout.inode_bitmap(group),
            inode_table: self.layout.inode_table(group),
            block_bitmap_checksum: block_sum,
            inode_bitmap_checksum: inode_sum,
            free_blocks: self.layout.group_blocks(group) - self.layout.used_blocks(group),
            free_inodes: INODES_PER_GROUP - used_inodes,
            directories,
        };
        Ok(descriptor.encode(group, self.checksum))
    }

    /// Descriptors and superblocks, the primary last: a disk cut short by a crash is no file system.
    fn superblocks(&mut self, descriptors: &[u8]) -> Result<()> {
        let mut block: Block = [0; BLOCK_SIZE];
        if let Some(group) = self.layout.backup_group() {
            let start = DiskLayout::group_start(group);
            put(&mut block, 0, &self.superblock(group as u16));
            self.put(start, &block)?;
            self.put(start + 1, descriptors)?;
        }
        self.put(1, descriptors)?;
        block.fill(0);
        put(&mut block, 1024, &self.superblock(0));
        self.put(0, &block)
    }

    fn superblock(&self, group: u16) -> [u8; 1024] {
        let inodes = self.layout.groups * INODES_PER_GROUP;
        let volume = Volume {
            uuid: self.upper.effective_uuid(),
            hash_seed: self.upper.derived(b"hash seed"),
            label: &self.upper.label,
            blocks: self.layout.blocks,
            free_blocks: self.layout.free_blocks(),
            overhead: self.layout.overhead(),
            inodes,
            free_inodes: inodes - WORK,
            inodes_per_group: INODES_PER_GROUP,
            backup_group: self.layout.backup_group(),
            time: self.upper.time,
            journal: self.journal().map(|inode| (inode.body, inode.size)),
            large_values: false,
        };
        volume.superblock(group)
    }

    fn put(&mut self, block: u64, bytes: &[u8]) -> Result<()> {
        let written = self.out.seek(SeekFrom::Start(block * BLOCK_SIZE as u64));
        written.and_then(|_| self.out.write_all(bytes)).map_err(|e| Error::io("writing an ext4 disk", e))
    }
}
