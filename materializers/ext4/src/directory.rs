//! Directories: one block of entries, or a hash tree of many (`directory.rst`).

use plyfold_core::Result;

use crate::fault::Ext4Fault;
use crate::fields::INDEX_FL;
use crate::format::{BLOCK_SIZE, Block, Checksum, put, put16, put32};
use crate::hash::half_md4;

/// Bytes of a block of entries before the entry-shaped checksum tail.
const ENTRY_BYTES: usize = BLOCK_SIZE - 12;
/// Bytes of `.` and `..`.
const DOTS: usize = 24;
/// Bytes of the largest entry, of a name of 255 bytes.
const LARGEST: usize = 264;
/// Where the entries of a hash tree's root begin, behind the dots and `dx_root_info`, and how many it has.
const ROOT_AT: usize = 32;
const ROOT_LIMIT: usize = (BLOCK_SIZE - ROOT_AT - 8) / 8;
/// The same of the nodes below the root, which begin with an entry that names nothing.
const NODE_AT: usize = 8;
const NODE_LIMIT: usize = (BLOCK_SIZE - NODE_AT - 8) / 8;

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) number: u32,
    /// `file_type` of an entry.
    pub(crate) file_type: u8,
}

/// `file_type` of a directory.
pub(crate) const DIRECTORY: u8 = 2;

/// What the blocks of a directory are made of besides its names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) number: u32,
    pub(crate) parent: u32,
    pub(crate) seed: &'a [u8; 16],
    pub(crate) checksum: Checksum,
}

/// The most blocks that a directory of these names takes: those of a hash tree, if it needs more than one.
pub(crate) fn most_blocks<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let bytes: u64 = names.map(|name| size(name) as u64).sum();
    if bytes + DOTS as u64 <= ENTRY_BYTES as u64 {
        return 1;
    }
    // A block of a hash tree is left when the next entry does not fit.
    let leaves = bytes.div_ceil((ENTRY_BYTES - LARGEST) as u64) + 1;
    leaves + 1 + if leaves > ROOT_LIMIT as u64 { leaves.div_ceil(NODE_LIMIT as u64) } else { 0 }
}

impl Place<'_> {
    /// Writes the blocks of a directory of these entries, in order; the flags that its inode has.
    pub(crate) fn write(
        &self,
        mut entries: Vec<Entry<'_>>,
        mut write: impl FnMut(&Block) -> Result<()>,
    ) -> Result<u32> {
        let dots = [(&b"."[..], self.number), (b"..", self.parent)];
        let dots = dots.map(|(name, number)| Entry { name, number, file_type: DIRECTORY });
        if DOTS + entries.iter().map(|entry| size(entry.name)).sum::<usize>() <= ENTRY_BYTES {
            entries.splice(0..0, dots);
            write(&self.block(&entries))?;
            return Ok(0);
        }
        let mut hashed: Vec<_> =
            entries.into_iter().map(|entry| (half_md4(entry.name, self.seed), entry)).collect();
        // Names of equal hashes keep the order of their bytes: the sort is stable.
        hashed.sort_by_key(|(hash, _)| *hash);
        let leaves = leaves(&hashed);
        let levels = usize::from(leaves.len() > ROOT_LIMIT);
        let nodes = if levels == 0 { 0 } else { leaves.len().div_ceil(NODE_LIMIT) };
        if nodes > ROOT_LIMIT {
            return Err(Ext4Fault::Names(hashed.len()).into());
        }
        // The root, the nodes, the leaves.
        let below: Vec<_> =
            leaves.iter().enumerate().map(|(at, leaf)| (leaf.0, (1 + nodes + at) as u32)).collect();
        let top: Vec<_> = match levels {
            0 => below.clone(),
            _ => below.chunks(NODE_LIMIT).enumerate().map(|(at, node)| (node[0].0, 1 + at as u32)).collect(),
        };
        write(&self.root(dots, &top, levels as u8))?;
        for node in below.chunks(NODE_LIMIT).take(nodes) {
            write(&self.node(node))?;
        }
        let ends = leaves.iter().skip(1).map(|leaf| leaf.1).chain([hashed.len()]);
        let mut block_entries = Vec::new();
        for ((_, start), end) in leaves.iter().zip(ends) {
            block_entries.clear();
            block_entries.extend(hashed[*start..end].iter().map(|(_, entry)| *entry));
            write(&self.block(&block_entries))?;
        }
        Ok(INDEX_FL)
    }

    /// A block of entries, the last of which reaches to the tail.
    pub(crate) fn block(&self, entries: &[Entry<'_>]) -> Block {
        let mut block = [0; BLOCK_SIZE];
        let mut at = 0;
        for (index, entry) in entries.iter().enumerate() {
            let last = index + 1 == entries.len();
            let length = if last { ENTRY_BYTES - at } else { size(entry.name) };
            put_entry(&mut block, at, entry, length);
            at += length;
        }
        let sum = self.sum(&block[..ENTRY_BYTES]);
        put16(&mut block, ENTRY_BYTES + 4, 12); // det_rec_len
        block[ENTRY_BYTES + 7] = 0xde; // det_reserved_ft
        put32(&mut block, ENTRY_BYTES + 8, sum);
        block
    }

    /// The first block of a hash tree, which looks like one of `.` and `..`.
    fn root(&self, dots: [Entry<'_>; 2], below: &[(u32, u32)], levels: u8) -> Block {
        let mut block = [0; BLOCK_SIZE];
        put_entry(&mut block, 0, &dots[0], 12);
        put_entry(&mut block, 12, &dots[1], BLOCK_SIZE - 12);
        block[28] = 1; // hash_version: half MD4
        block[29] = 8; // info_length
        block[30] = levels; // indirect_levels
        self.put_index(&mut block, ROOT_AT, ROOT_LIMIT, below);
        block
    }

    /// A node between the root and the leaves.
    fn node(&self, below: &[(u32, u32)]) -> Block {
        let mut block = [0; BLOCK_SIZE];
        put16(&mut block, 4, BLOCK_SIZE as u16); // fake_rec_len
        self.put_index(&mut block, NODE_AT, NODE_LIMIT, below);
        block
    }

    /// Hashes and blocks, of which the first needs no hash, and the checksum behind the room for all (`dx_tail`).
    fn put_index(&self, block: &mut Block, at: usize, limit: usize, below: &[(u32, u32)]) {
        for (place, (hash, number)) in below.iter().enumerate() {
            put32(block, at + 8 * place, *hash);
            put32(block, at + 8 * place + 4, *number);
        }
        put16(block, at, limit as u16);
        put16(block, at + 2, below.len() as u16);
        let used = at + 8 * below.len();
        // The tail counts with its checksum as zero.
        let sum = self.checksum.over(&[&self.number.to_le_bytes(), &[0; 4], &block[..used], &[0; 8]]);
        put32(block, at + 8 * limit + 4, sum); // dt_checksum
    }

    fn sum(&self, bytes: &[u8]) -> u32 {
        self.checksum.over(&[&self.number.to_le_bytes(), &[0; 4], bytes])
    }
}

/// Bytes of an entry of this name.
fn size(name: &[u8]) -> usize {
    (8 + name.len()).next_multiple_of(4)
}

fn put_entry(block: &mut Block, at: usize, entry: &Entry<'_>, length: usize) {
    put32(block, at, entry.number);
    put16(block, at + 4, length as u16);
    block[at + 6] = entry.name.len() as u8;
    block[at + 7] = entry.file_type;
    put(block, at + 8, entry.name);
}

/// The leaves of a hash tree: the hash that each is found by, and its first entry. A leaf that begins with the hash of
/// the one before it has its lowest bit set.
fn leaves(entries: &[((u32, u32), Entry<'_>)]) -> Vec<(u32, usize)> {
    let mut leaves = vec![(0, 0)];
    let mut used = 0;
    for (at, ((hash, _), entry)) in entries.iter().enumerate() {
        let length = size(entry.name);
        if used + length > ENTRY_BYTES {
            let continued = u32::from(entries[at - 1].0.0 == *hash);
            leaves.push((hash | continued, at));
            used = 0;
        }
        used += length;
    }
    leaves
}
