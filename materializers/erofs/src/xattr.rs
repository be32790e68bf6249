//! Extended attributes on disk: a body after each inode, and an area of entries that several inodes share.
//!
//! An entry (name and value) that two or more inodes have is written once, in the shared area; all others stand
//! behind their inode. What EROFS has no room for is refused; what it has no prefix for, and no Linux file
//! system shows (such as `system.nfs4_acl`), is left out, which [`XattrTable::dropped`] tells.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use plyfold_core::layer::Metadata;
use plyfold_core::tree::{DroppedXattrs, XATTR_PREFIXES, Xattrs, xattr_prefix};
use plyfold_core::{Result, printable};

use crate::fault::ErofsFault;
use crate::format::EXTENDED_SIZE;

/// The header of a body: name filter (4 bytes), number of shared entries (1), 7 unused.
pub(crate) const HEADER: usize = 12;
/// The largest body that an inode can tell.
const BODY_MAX: usize = HEADER + (u16::MAX as usize - 1) * 4;
/// In a prefix index: it is the number of a prefix of the image's own.
const OWN_PREFIX: u8 = 0x80;
/// The number of shared entries is one byte.
const SHARED_MAX: usize = 255;

/// No entry, or no place in the shared area.
const NONE: u32 = u32::MAX;

/// The most bytes that an inode takes with its attributes. It takes less if its time is that of most, or attributes are shared.
pub(crate) fn most_own(metadata: &Metadata) -> u64 {
    let entry = |(name, value): &(Vec<u8>, Vec<u8>)| (4 + name.len() + value.len()).next_multiple_of(4);
    let entries: usize = metadata.xattrs.iter().map(entry).sum();
    EXTENDED_SIZE + if entries == 0 { 0 } else { (HEADER + entries) as u64 }
}

/// A set of attributes, as one or more inodes have it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct SetId(u32);

/// All attributes of an image. Filled first, then settled, then written. The attributes themselves stay where they
/// are, in the tree's sets: they are encoded when they are written.
#[derive(Debug)]
pub(crate) struct XattrTable {
    sets: Vec<Set>,
    set_ids: HashMap<Xattrs, SetId>,
    /// The entries of all sets, those of one set together.
    members: Vec<u32>,
    entries: Vec<Entry>,
    /// The last entry of each hash.
    by_hash: HashMap<u64, u32>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Set {
    xattrs: Xattrs,
    /// Its first member, and how many it has.
    first: u32,
    count: u32,
    uses: u32,
    /// The size of the body as inodes tell it.
    icount: u16,
}

#[derive(Debug)]
struct Entry {
    /// A set that has it, and its position there.
    set: SetId,
    position: u32,
    uses: u32,
    /// Its place in the shared area, in units of 4 bytes.
    shared: u32,
    /// Another entry of the same hash.
    next: u32,
}

impl XattrTable {
    /// A table of the empty set.
    pub(crate) fn new() -> Self {
        Self {
            sets: vec![Set::default()],
            set_ids: HashMap::new(),
            members: Vec::new(),
            entries: Vec::new(),
            by_hash: HashMap::new(),
            hasher: RandomState::new(),
        }
    }

    /// Takes the attributes of one more inode.
    ///
    /// # Errors
    /// [`Limit`](plyfold_core::ErrorKind::Limit) for a name or value too long for EROFS.
    pub(crate) fn add(&mut self, xattrs: &Xattrs) -> Result<SetId> {
        if xattrs.is_empty() {
            return Ok(SetId::default());
        }
        let id = match self.set_ids.get(xattrs) {
            Some(id) => *id,
            None => self.add_set(xattrs)?,
        };
        self.sets[id.0 as usize].uses += 1;
        Ok(id)
    }

    fn add_set(&mut self, xattrs: &Xattrs) -> Result<SetId> {
        let id = SetId(self.sets.len() as u32);
        let first = self.members.len() as u32;
        self.sets.push(Set { xattrs: xattrs.clone(), first, ..Set::default() });
        let mut attributes = xattrs.iter();
        loop {
            let position = attributes.position();
            let Some((name, value)) = attributes.next() else { break };
            if Encoded::new(name, value)?.is_some() {
                let entry = self.entry(id, position as u32, name, value);
                self.members.push(entry);
            }
        }
        self.sets[id.0 as usize].count = self.members.len() as u32 - first;
        self.set_ids.insert(xattrs.clone(), id);
        Ok(id)
    }

    /// The entry of this name and value, which a set has at `position`.
    fn entry(&mut self, set: SetId, position: u32, name: &[u8], value: &[u8]) -> u32 {
        let hash = self.hasher.hash_one((name, value));
        let last = self.by_hash.get(&hash).copied().unwrap_or(NONE);
        let mut known = last;
        while known != NONE {
            let entry = &self.entries[known as usize];
            if self.attribute(entry) == Some((name, value)) {
                return known;
            }
            known = entry.next;
        }
        let id = self.entries.len() as u32;
        self.entries.push(Entry { set, position, uses: 0, shared: NONE, next: last });
        self.by_hash.insert(hash, id);
        id
    }

    fn attribute(&self, entry: &Entry) -> Option<(&[u8], &[u8])> {
        self.sets[entry.set.0 as usize].xattrs.iter_from(entry.position as usize).next()
    }

    fn encoded(&self, entry: &Entry) -> Option<Encoded<'_>> {
        let (name, value) = self.attribute(entry)?;
        Encoded::new(name, value).ok().flatten()
    }

    /// Decides what is shared, once all inodes are known.
    ///
    /// # Errors
    /// [`Limit`](plyfold_core::ErrorKind::Limit) when the attributes of one inode are too large together.
    pub(crate) fn settle(&mut self) -> Result<()> {
        for set in &self.sets {
            for entry in &self.members[set.first as usize..][..set.count as usize] {
                self.entries[*entry as usize].uses += set.uses;
            }
        }
        let mut end = 0_u32;
        for at in 0..self.entries.len() {
            if self.entries[at].uses > 1 {
                let size = self.encoded(&self.entries[at]).map_or(0, |encoded| encoded.size());
                self.entries[at].shared = end;
                end = u32::try_from(size / 4)
                    .ok()
                    .and_then(|length| end.checked_add(length))
                    .ok_or(ErofsFault::XattrsShared)?;
            }
        }
        for at in 1..self.sets.len() {
            let (shared, inline) = self.split(SetId(at as u32));
            let size = shared.len() * 4 + inline.iter().map(Encoded::size).sum::<usize>();
            let icount = if size == 0 { 0 } else { 1 + size / 4 };
            let too_large = |_| ErofsFault::XattrBytes(HEADER + size, BODY_MAX);
            self.sets[at].icount = icount.try_into().map_err(too_large)?;
        }
        Ok(())
    }

    /// What was left out.
    pub(crate) fn dropped(&self) -> DroppedXattrs {
        let mut dropped = DroppedXattrs::default();
        for set in &self.sets {
            dropped.count(set.xattrs.iter().map(|(name, _)| name), set.uses.into());
        }
        dropped
    }

    /// The size of an inode's body as the inode tells it.
    pub(crate) fn icount(&self, id: SetId) -> u16 {
        self.sets[id.0 as usize].icount
    }

    /// Writes an inode's body.
    pub(crate) fn write(&self, id: SetId, out: &mut Vec<u8>) {
        if self.icount(id) == 0 {
            return;
        }
        let (shared, inline) = self.split(id);
        out.extend_from_slice(&[0, 0, 0, 0, shared.len() as u8, 0, 0, 0, 0, 0, 0, 0]);
        for place in shared {
            out.extend_from_slice(&place.to_le_bytes());
        }
        for entry in inline {
            entry.write(out);
        }
    }

    /// Writes the shared area, entry by entry.
    pub(crate) fn write_shared(&self, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut bytes = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.shared != NONE) {
            bytes.clear();
            if let Some(encoded) = self.encoded(entry) {
                encoded.write(&mut bytes);
            }
            write(&bytes)?;
        }
        Ok(())
    }

    fn split(&self, id: SetId) -> (Vec<u32>, Vec<Encoded<'_>>) {
        let (mut shared, mut inline) = (Vec::new(), Vec::new());
        let set = &self.sets[id.0 as usize];
        for entry in &self.members[set.first as usize..][..set.count as usize] {
            let entry = &self.entries[*entry as usize];
            if entry.shared != NONE && shared.len() < SHARED_MAX {
                shared.push(entry.shared);
            } else {
                inline.extend(self.encoded(entry));
            }
        }
        (shared, inline)
    }
}

/// An entry on disk: length of the name's rest (1 byte), prefix index (1), length of the value (2), both, padding to
/// 4.
#[derive(Clone, Copy, Debug)]
struct Encoded<'a> {
    index: u8,
    rest: &'a [u8],
    value: &'a [u8],
}

impl<'a> Encoded<'a> {
    /// `None` for an attribute of no known prefix.
    fn new(name: &'a [u8], value: &'a [u8]) -> Result<Option<Self>> {
        let shown = || printable(&String::from_utf8_lossy(name));
        let Some((index, rest)) = xattr_prefix(name) else { return Ok(None) };
        if u8::try_from(rest.len()).is_err() {
            return Err(ErofsFault::XattrNameLong(shown()).into());
        }
        if u16::try_from(value.len()).is_err() {
            return Err(ErofsFault::XattrValueLong(shown(), value.len()).into());
        }
        Ok(Some(Self { index, rest, value }))
    }

    /// The size with its padding.
    fn size(&self) -> usize {
        (4 + self.rest.len() + self.value.len()).next_multiple_of(4)
    }

    fn write(&self, out: &mut Vec<u8>) {
        let end = out.len() + self.size();
        out.extend_from_slice(&[self.rest.len() as u8, self.index]);
        out.extend_from_slice(&(self.value.len() as u16).to_le_bytes());
        out.extend_from_slice(self.rest);
        out.extend_from_slice(self.value);
        out.resize(end, 0);
    }
}

/// The size of an entry without its padding, out of its header.
pub(crate) fn entry_size(header: [u8; 4]) -> usize {
    let [name_length, _, low, high] = header;
    header.len() + usize::from(name_length) + usize::from(u16::from_le_bytes([low, high]))
}

/// An entry's full name and value.
///
/// # Errors
/// [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for a prefix that is none of [`XATTR_PREFIXES`] and of the
/// image's own `prefixes`.
pub(crate) fn decode(entry: &[u8], prefixes: &[Vec<u8>]) -> Result<(Vec<u8>, Vec<u8>)> {
    let [name_length, index, _, _, rest @ ..] = entry else {
        return Err(ErofsFault::Malformed("an xattr is too short").into());
    };
    let prefix = match index & OWN_PREFIX {
        0 => XATTR_PREFIXES.iter().find(|(known, _)| known == index).map(|(_, prefix)| *prefix),
        _ => prefixes.get(usize::from(index & !OWN_PREFIX)).map(|prefix| &**prefix),
    };
    let prefix = prefix.ok_or(ErofsFault::XattrPrefix(*index))?;
    let (name, value) = rest
        .split_at_checked((*name_length).into())
        .filter(|(name, _)| !name.contains(&0))
        .ok_or(ErofsFault::Malformed("an xattr has no name"))?;
    Ok(([prefix, name].concat(), value.to_vec()))
}
