//! Extended attributes: in the inode where they fit, else in one block, the largest values of too many in inodes of their
//! own (`attributes.rst`).

use plyfold_core::tree::{is_overlay_xattr, xattr_prefix};
use plyfold_core::{Result, printable};

use crate::fault::Ext4Fault;
use crate::format::{BLOCK_SIZE, Block, Checksum, Inode, put, put16, put32};

const MAGIC: u32 = 0xea02_0000;
/// Bytes before the first entry in a block: `ext4_xattr_header`.
const BLOCK_HEADER: usize = 32;
/// Bytes before the first entry in an inode: the magic.
const INODE_HEADER: usize = 4;
/// Bytes of an entry before its name.
const ENTRY: usize = 16;

/// The attributes of one inode, in the order that ext4 keeps them in.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Xattrs(Vec<Attribute>);

/// One attribute as it is stored. The order is that of a block: by index, name length and name.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Attribute {
    index: u8,
    name_length: u8,
    name: Vec<u8>,
    value: Vec<u8>,
    /// The inode that has the value, and its checksum, if the value is not stored beside the name.
    apart: Option<(u32, u32)>,
}

impl Xattrs {
    /// Takes full names and values; overlayfs' own attributes are left out.
    pub(crate) fn new(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<Self> {
        let mut attributes = xattrs
            .iter()
            .filter(|(name, _)| !is_overlay_xattr(name))
            .map(|(name, value)| Attribute::new(name, value))
            .collect::<Result<Vec<_>>>()?;
        attributes.sort();
        let attributes = Self(attributes);
        let (size, room) = (attributes.size(), BLOCK_SIZE - BLOCK_HEADER);
        if size > room {
            return Err(Ext4Fault::AttributeBytes(size, room).into());
        }
        Ok(attributes)
    }

    /// As [`Xattrs::new`], of any number of bytes: values that do not fit into one block get inodes of their own, the
    /// largest first. What ext4 has no prefix for is dropped with a warning: no Linux file system shows it.
    pub(crate) fn with_large_values(xattrs: &plyfold_core::tree::Xattrs, checksum: Checksum) -> Result<Self> {
        let mut attributes = Vec::new();
        for (name, value) in xattrs {
            if is_overlay_xattr(name) {
                continue;
            }
            if xattr_prefix(name).is_none() {
                let shown = printable(&String::from_utf8_lossy(name));
                tracing::warn!(xattr = shown, "dropped: ext4 has no prefix for it");
                continue;
            }
            attributes.push(Attribute::new(name, value)?);
        }
        attributes.sort();
        let mut attributes = Self(attributes);
        let room = BLOCK_SIZE - BLOCK_HEADER;
        while attributes.size() > room {
            let beside = attributes.0.iter_mut().filter(|attribute| attribute.apart.is_none());
            // Of values of one size, the first: the order is fixed.
            match beside.rev().max_by_key(|attribute| attribute.value.len()) {
                Some(largest) if !largest.value.is_empty() => {
                    largest.apart = Some((0, checksum.over(&[&largest.value])));
                }
                _ => return Err(Ext4Fault::AttributeBytes(attributes.size(), room).into()),
            }
        }
        Ok(attributes)
    }

    /// The values that have inodes of their own, each with its checksum.
    pub(crate) fn large_values(&self) -> impl Iterator<Item = (&[u8], u32)> {
        self.0.iter().filter_map(|attribute| Some((&*attribute.value, attribute.apart?.1)))
    }

    /// Gives these inodes their numbers, from `first` on.
    pub(crate) fn number(&mut self, first: u32) {
        let apart = self.0.iter_mut().filter_map(|attribute| attribute.apart.as_mut());
        for (number, (inode, _)) in (first..).zip(apart) {
            *inode = number;
        }
    }

    /// The attributes, if they need a block.
    pub(crate) fn block(&self) -> Option<&Self> {
        (self.size() > Inode::TAIL - INODE_HEADER).then_some(self)
    }

    /// The end of the inode: the attributes, if they need no block.
    pub(crate) fn in_inode(&self) -> Vec<u8> {
        let mut tail = vec![0; Inode::TAIL];
        if !self.0.is_empty() && self.block().is_none() {
            put32(&mut tail, 0, MAGIC);
            // Offsets of values count from the first entry.
            self.pack(&mut tail[INODE_HEADER..], 0);
        }
        tail
    }

    /// The block of attributes that will stand at `number`, and that so many inodes have.
    pub(crate) fn encode(&self, number: u64, inodes: u32, checksum: Checksum) -> Block {
        let mut block = [0; BLOCK_SIZE];
        put32(&mut block, 0x0, MAGIC);
        put32(&mut block, 0x4, inodes); // h_refcount
        put32(&mut block, 0x8, 1); // h_blocks
        let hash = self.0.iter().fold(0, |hash: u32, attribute| hash.rotate_left(16) ^ attribute.hash());
        put32(&mut block, 0xc, hash);
        self.pack(&mut block, BLOCK_HEADER);
        let sum = checksum.over(&[&number.to_le_bytes(), &block]);
        put32(&mut block, 0x10, sum);
        block
    }

    /// Entries upwards from `at`, values downwards from the end of `area`, from whose start their offsets count.
    fn pack(&self, area: &mut [u8], mut at: usize) {
        let mut end = area.len();
        for attribute in &self.0 {
            let value = attribute.beside();
            end -= value.len().next_multiple_of(4);
            area[at] = attribute.name_length;
            area[at + 1] = attribute.index;
            put16(area, at + 2, if value.is_empty() { 0 } else { end as u16 });
            put32(area, at + 4, attribute.apart.map_or(0, |(inode, _)| inode)); // e_value_inum
            put32(area, at + 8, attribute.value.len() as u32);
            put32(area, at + 12, attribute.hash());
            put(area, at + ENTRY, &attribute.name);
            put(area, end, value);
            at += (ENTRY + attribute.name.len()).next_multiple_of(4);
        }
    }

    /// Bytes of entries, the four zeros that end them, and values.
    fn size(&self) -> usize {
        let entry =
            |a: &Attribute| (ENTRY + a.name.len()).next_multiple_of(4) + a.beside().len().next_multiple_of(4);
        4 + self.0.iter().map(entry).sum::<usize>()
    }
}

impl Attribute {
    fn new(full_name: &[u8], value: &[u8]) -> Result<Self> {
        let shown = || printable(&String::from_utf8_lossy(full_name));
        let (index, name) = xattr_prefix(full_name).ok_or_else(|| Ext4Fault::Attribute(shown()))?;
        let name_length = u8::try_from(name.len()).map_err(|_| Ext4Fault::AttributeName(shown()))?;
        let value = match index {
            2 | 3 => acl(value).ok_or_else(|| Ext4Fault::Acl(shown()))?,
            _ => value.to_vec(),
        };
        Ok(Self { index, name_length, name: name.to_vec(), value, apart: None })
    }

    /// The value as it stands beside the name.
    fn beside(&self) -> &[u8] {
        if self.apart.is_some() { &[] } else { &self.value }
    }

    /// `e_hash`: over the name's bytes, as signed characters, and the value's padded little-endian words, or the checksum
    /// of a value that stands elsewhere.
    fn hash(&self) -> u32 {
        let name = self
            .name
            .iter()
            .fold(0, |hash: u32, byte| hash.rotate_left(5) ^ i32::from(byte.cast_signed()).cast_unsigned());
        let sum = self.apart.map(|(_, sum)| sum.to_le_bytes());
        let value = sum.as_ref().map_or(&*self.value, |sum| sum);
        value.chunks(4).fold(name, |hash, chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            hash.rotate_left(16) ^ u32::from_le_bytes(word)
        })
    }
}

/// A POSIX ACL from the form of `getxattr` (version 2, entries of 8 bytes) to ext4's (version 1, no id where the
/// tag needs none).
fn acl(value: &[u8]) -> Option<Vec<u8>> {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    let entries = value.strip_prefix(&2_u32.to_le_bytes())?;
    let mut stored = 1_u32.to_le_bytes().to_vec();
    for entry in entries.chunks(8) {
        let (tag_and_permissions, id) = entry.split_at_checked(4)?;
        stored.extend_from_slice(tag_and_permissions);
        match u16::from_le_bytes([entry[0], entry[1]]) {
            USER | GROUP => stored.extend_from_slice(id.first_chunk::<4>()?),
            0x01 | 0x04 | 0x10 | 0x20 if id.len() == 4 => {}
            _ => return None,
        }
    }
    Some(stored)
}
