//! Growing a file system that is not mounted: more groups behind those that there are.
//!
//! New groups hold their own bitmaps and inode tables and stay uninitialised, so that only descriptors are written. When
//! the table of descriptors is full, those of further groups stand in these groups (`meta_bg`), as the kernel has it when
//! it grows a mounted file system: nothing has to move.

use std::io::SeekFrom;

use plyfold_core::{Error, Output, Result, Size, is_zero};

use crate::fault::Ext4Fault;
use crate::fields::{
    BG_BLOCK_BITMAP, BG_BLOCK_BITMAP_CSUM, BG_CHECKSUM, BG_FLAGS, BG_FREE_BLOCKS_COUNT_LO, BLOCK_UNINIT,
};
use crate::format::{
    BLOCK_SIZE, BLOCKS_PER_GROUP, Block, Checksum, DESCRIPTOR_SIZE, bitmap, joined, joined16, le16, put,
    put16, split16,
};
use crate::superblock::Superblock;
use crate::upper::MAX_SIZE;
use crate::volume::Descriptor;

const BLOCK: u64 = BLOCK_SIZE as u64;
const PER_GROUP: u64 = BLOCKS_PER_GROUP as u64;
/// Descriptors in a block.
const DESCRIPTORS: u32 = (BLOCK_SIZE / DESCRIPTOR_SIZE) as u32;

/// Grows the ext4 file system in `file` to `size` bytes, in milliseconds, and yields the size that it had. The room is
/// sparse. It is not mounted meanwhile, and it is one that this crate has made, which may have been written to since.
///
/// What is at the end of the disk and makes no group, less than 20 MiB, stays unused. A process that is killed meanwhile
/// leaves the file system as it was, or one whose counts of free blocks `e2fsck` corrects.
///
/// # Errors
/// [`Config`](plyfold_core::ErrorKind::Config) for a size that no disk can have, for a file system that is mounted, was
/// not unmounted, or has errors, and for a file with something behind the file system;
/// [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for a smaller size, and for a file system of another maker;
/// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for what is no sound one; [`Io`](plyfold_core::ErrorKind::Io).
/// Nothing has been written then, but for `Io`.
pub fn resize(file: &mut dyn Output, size: u64) -> Result<u64> {
    if !(BLOCK..=MAX_SIZE).contains(&size) {
        return Err(Ext4Fault::RootfsSize(Size(size)).into());
    }
    if !size.is_multiple_of(BLOCK) {
        let hint = format!("the next size that is, is {} bytes", size.next_multiple_of(BLOCK));
        return Err(Error::from(Ext4Fault::Blocks(size)).with_hint(hint));
    }
    let mut bytes = [0; 1024];
    let mut disk = Disk(file);
    disk.read(1024, &mut bytes).map_err(|_| Ext4Fault::NoFileSystem)?;
    let superblock = Superblock::parse(&bytes)?;
    let (old, length) = (superblock.blocks(), disk.length()?);
    if size / BLOCK < old {
        let (own, wanted) = (Size(old * BLOCK), Size(size));
        return Err(Ext4Fault::Smaller(own.against(wanted), wanted.against(own)).into());
    }
    if length < old * BLOCK {
        return Err(Ext4Fault::Damaged("the length of the file").into());
    }
    disk.check_tail(old * BLOCK, length)?;
    let mut growth = Growth::new(superblock, size / BLOCK)?;
    let last = growth.read(&mut disk)?;
    disk.0.set_len(size).map_err(|e| match e.kind() {
        std::io::ErrorKind::FileTooLarge => failed(e)
            .with_hint("the file system of the disk's file, or `ulimit -f`, holds no file of this size"),
        _ => failed(e),
    })?;
    if let Err(e) = growth.write(&mut disk, last) {
        // Nothing refers to what is behind the old end. The first error is the one to report.
        let _ = disk.0.set_len(length);
        return Err(e);
    }
    growth.switch(&mut disk)?;
    Ok(length)
}

/// The file, by offsets.
struct Disk<'a>(&'a mut dyn Output);

impl Disk<'_> {
    fn read(&mut self, at: u64, bytes: &mut [u8]) -> Result<()> {
        let read = self.0.seek(SeekFrom::Start(at)).and_then(|_| self.0.read_exact(bytes));
        read.map_err(|e| Error::io("reading an ext4 disk", e))
    }

    fn put(&mut self, block: u64, bytes: &[u8]) -> Result<()> {
        let written = self.0.seek(SeekFrom::Start(block * BLOCK));
        written.and_then(|_| self.0.write_all(bytes)).map_err(failed)
    }

    fn length(&mut self) -> Result<u64> {
        self.0.seek(SeekFrom::End(0)).map_err(|e| Error::io("looking at an ext4 disk", e))
    }

    /// New inode tables have to read as zeros.
    fn check_tail(&mut self, mut at: u64, end: u64) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        loop {
            let data = self.0.data_from(at).map_err(|e| Error::io("reading an ext4 disk", e))?;
            at = data.unwrap_or(end);
            if at >= end {
                return Ok(());
            }
            let part = &mut buffer[..(end - at).min(1 << 20) as usize];
            self.read(at, part)?;
            if !is_zero(part) {
                return Err(Ext4Fault::Tail.into());
            }
            at += part.len() as u64;
        }
    }
}

/// From some groups to more.
struct Growth {
    superblock: Superblock,
    checksum: Checksum,
    old_blocks: u64,
    blocks: u64,
    old_groups: u32,
    groups: u32,
    backup_group: Option<u32>,
    /// Descriptor blocks behind the superblock.
    table: u32,
    /// The first descriptor block that changes, and all from there on.
    first: u32,
    descriptors: Vec<Block>,
}

impl Growth {
    fn new(superblock: Superblock, wanted: u64) -> Result<Self> {
        let old_blocks = superblock.blocks();
        let old_groups = old_blocks.div_ceil(PER_GROUP) as u32;
        let table = superblock.first_meta_group().unwrap_or(old_groups.div_ceil(DESCRIPTORS));
        let old_backup = Some(superblock.backup_groups()[0]).filter(|group| *group > 0);
        let mut growth = Self {
            checksum: superblock.checksum(),
            superblock,
            old_blocks,
            blocks: wanted,
            old_groups,
            groups: 0,
            backup_group: old_backup,
            table,
            first: (old_groups - 1) / DESCRIPTORS,
            descriptors: Vec::new(),
        };
        // A last group that has no room behind its own blocks is left out.
        loop {
            growth.groups = growth.blocks.div_ceil(PER_GROUP) as u32;
            // Group 1 of an older file system may have files where a backup would stand.
            let is_new = old_backup.is_none() && old_groups == 1 && growth.groups > 1;
            growth.backup_group = if is_new { Some(1) } else { old_backup };
            let last = growth.groups - 1;
            if growth.groups == old_groups || growth.metadata(last) < growth.group_blocks(last) {
                break;
            }
            growth.blocks = u64::from(last) * PER_GROUP;
        }
        let inodes = u64::from(growth.groups) * u64::from(growth.superblock.inodes_per_group());
        if inodes > u32::MAX.into() {
            return Err(Ext4Fault::Inodes.into());
        }
        Ok(growth)
    }

    fn group_blocks(&self, group: u32) -> u32 {
        (self.blocks - u64::from(group) * PER_GROUP).min(PER_GROUP) as u32
    }

    /// Blocks at a group's start for copies of the superblock and of descriptors.
    fn span(&self, group: u32) -> u32 {
        let (meta, place) = (group / DESCRIPTORS, group % DESCRIPTORS);
        if meta < self.table {
            let has_copy = group == 0 || self.backup_group == Some(group);
            return if has_copy { 1 + self.table } else { 0 };
        }
        u32::from([0, 1, DESCRIPTORS - 1].contains(&place))
    }

    /// Blocks at a new group's start that are not for files.
    fn metadata(&self, group: u32) -> u32 {
        self.span(group) + 2 + self.superblock.inodes_per_group() * 256 / BLOCK_SIZE as u32
    }

    /// Reads the descriptors that change; the bitmap of the last group, which may become longer, and its place.
    fn read(&mut self, disk: &mut Disk<'_>) -> Result<Option<(u64, Vec<u8>)>> {
        let mut block = [0; BLOCK_SIZE];
        disk.read(self.places(self.first)[0] * BLOCK, &mut block)?;
        self.descriptors = vec![[0; BLOCK_SIZE]; (self.groups.div_ceil(DESCRIPTORS) - self.first) as usize];
        let used = ((self.old_groups - 1) % DESCRIPTORS + 1) as usize * DESCRIPTOR_SIZE;
        put(&mut self.descriptors[0], 0, &block[..used]);
        let group = self.old_groups - 1;
        let last = &mut self.descriptors[0][used - DESCRIPTOR_SIZE..used];
        let known = le16(last, BG_CHECKSUM);
        put16(last, BG_CHECKSUM, 0);
        let sum = self.checksum.over(&[&group.to_le_bytes(), last]) as u16;
        put16(last, BG_CHECKSUM, known);
        if sum != known {
            return Err(Ext4Fault::Damaged("the checksum of a group").into());
        }
        if le16(last, BG_FLAGS) & BLOCK_UNINIT != 0 {
            return Ok(None);
        }
        let place = joined(last, BG_BLOCK_BITMAP);
        if place >= self.old_blocks {
            return Err(Ext4Fault::Damaged("the place of a bitmap").into());
        }
        let mut bits = vec![0; BLOCK_SIZE];
        disk.read(place * BLOCK, &mut bits)?;
        if self.checksum.over(&[&bits]) != joined16(last, BG_BLOCK_BITMAP_CSUM) {
            return Err(Ext4Fault::Damaged("the checksum of a bitmap").into());
        }
        Ok(Some((place, bits)))
    }

    /// All but the superblock: the file system has its old size.
    fn write(&mut self, disk: &mut Disk<'_>, last: Option<(u64, Vec<u8>)>) -> Result<()> {
        let bits = self.lengthen_last(last);
        let mut overhead = 0;
        for group in self.old_groups..self.groups {
            overhead += u64::from(self.metadata(group));
            self.add_group(group, disk)?;
        }
        for (at, block) in self.descriptors.iter().enumerate() {
            for place in self.places(self.first + at as u32) {
                disk.put(place, block)?;
            }
        }
        if let Some((place, bits)) = bits {
            disk.put(place, &bits)?;
        }
        if self.groups.div_ceil(DESCRIPTORS) > self.table {
            self.superblock.set_first_meta_group(self.table);
        }
        self.superblock.set_backup_group(self.backup_group.unwrap_or(0));
        let inodes = self.groups * self.superblock.inodes_per_group();
        self.superblock.grow(self.blocks, overhead, inodes)?;
        if let Some(group) = self.backup_group {
            let mut block = [0; BLOCK_SIZE];
            put(&mut block, 0, &self.superblock.copy(group as u16));
            disk.put(u64::from(group) * PER_GROUP, &block)?;
        }
        disk.0.flush().map_err(failed)
    }

    fn switch(&self, disk: &mut Disk<'_>) -> Result<()> {
        let primary = self.superblock.copy(0);
        let written = disk.0.seek(SeekFrom::Start(1024));
        written.and_then(|_| disk.0.write_all(&primary)).and_then(|()| disk.0.flush()).map_err(failed)
    }

    /// The old last group gets the blocks that it was short of: they were marked as used.
    fn lengthen_last(&mut self, last: Option<(u64, Vec<u8>)>) -> Option<(u64, Vec<u8>)> {
        let group = self.old_groups - 1;
        let old = (self.old_blocks - u64::from(group) * PER_GROUP) as u32;
        let new = self.group_blocks(group);
        let (mut changed, sum) = (None, self.checksum);
        if let Some((place, mut bits)) = last {
            (old as usize..new as usize).for_each(|bit| bits[bit / 8] &= !(1 << (bit % 8)));
            changed = Some((place, bits));
        }
        let at = (group % DESCRIPTORS) as usize * DESCRIPTOR_SIZE;
        let descriptor = &mut self.descriptors[0][at..at + DESCRIPTOR_SIZE];
        let free = u32::from(le16(descriptor, BG_FREE_BLOCKS_COUNT_LO)).wrapping_add(new - old);
        put16(descriptor, BG_FREE_BLOCKS_COUNT_LO, free as u16);
        if let Some((_, bits)) = &changed {
            split16(descriptor, BG_BLOCK_BITMAP_CSUM, sum.over(&[bits]));
        }
        put16(descriptor, BG_CHECKSUM, 0);
        let sum = sum.over(&[&group.to_le_bytes(), descriptor]);
        put16(descriptor, BG_CHECKSUM, sum as u16);
        changed
    }

    /// The descriptor of a new group, and the bitmap of the last one, which is never left uninitialised.
    fn add_group(&mut self, group: u32, disk: &mut Disk<'_>) -> Result<()> {
        let start = u64::from(group) * PER_GROUP + u64::from(self.span(group));
        let (used, blocks) = (self.metadata(group), self.group_blocks(group));
        let mut block_bitmap_checksum = None;
        if group + 1 == self.groups {
            let bits = bitmap(used, blocks);
            block_bitmap_checksum = Some(self.checksum.over(&[&bits]));
            disk.put(start, &bits)?;
        }
        let descriptor = Descriptor {
            block_bitmap: start,
            inode_bitmap: start + 1,
            inode_table: start + 2,
            block_bitmap_checksum,
            inode_bitmap_checksum: None,
            free_blocks: blocks - used,
            free_inodes: self.superblock.inodes_per_group(),
            directories: 0,
        };
        let block = &mut self.descriptors[(group / DESCRIPTORS - self.first) as usize];
        let at = (group % DESCRIPTORS) as usize * DESCRIPTOR_SIZE;
        put(block, at, &descriptor.encode(group, self.checksum));
        Ok(())
    }

    /// Where the copies of a descriptor block stand, the primary first.
    fn places(&self, number: u32) -> Vec<u64> {
        if number < self.table {
            let backup = self.backup_group.map(u64::from);
            return [0]
                .into_iter()
                .chain(backup)
                .map(|group| group * PER_GROUP + 1 + u64::from(number))
                .collect();
        }
        let groups = [0, 1, DESCRIPTORS - 1].map(|place| number * DESCRIPTORS + place);
        let there = groups.into_iter().filter(|group| *group < self.groups);
        there.map(|group| u64::from(group) * PER_GROUP).collect()
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("growing an ext4 disk", error)
}
