//! Extended attributes on disk: a body after each inode, and an area of entries that several inodes share.
//!
//! An entry (name and value) that two or more inodes have is written once, in the shared area; all others stand
//! behind their inode. What EROFS has no room for is refused; what it has no prefix for, and no Linux file
//! system shows (such as `system.nfs4_acl`), is dropped with a warning.

use std::collections::HashMap;

use plyfold_core::tree::Xattrs;
use plyfold_core::{Error, Result, printable};

use crate::format::u16_at;

/// Name prefixes and their indexes. Those without a final dot are whole names.
pub(crate) const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

/// The header of a body: name filter (4 bytes), number of shared entries (1), 7 unused.
pub(crate) const HEADER: usize = 12;
/// The largest body that `i_xattr_icount` can express.
const BODY_MAX: usize = HEADER + (u16::MAX as usize - 1) * 4;
/// The number of shared entries is one byte.
const SHARED_MAX: usize = 255;

/// A set of attributes, as one or more inodes have it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct SetId(u32);

/// All attributes of an image. Filled first, then settled, then written.
#[derive(Debug)]
pub(crate) struct XattrTable {
    sets: Vec<Set>,
    set_ids: HashMap<Xattrs, SetId>,
    entries: Vec<Entry>,
    entry_ids: HashMap<Box<[u8]>, u32>,
}

#[derive(Debug, Default)]
struct Set {
    entries: Vec<u32>,
    uses: u32,
    /// The size of the body in bytes.
    size: u32,
}

#[derive(Debug)]
struct Entry {
    /// Header, name, value and padding.
    bytes: Box<[u8]>,
    uses: u32,
    /// Its place in the shared area, in units of 4 bytes.
    shared: Option<u32>,
}

impl XattrTable {
    /// A table of the empty set.
    pub(crate) fn new() -> Self {
        Self {
            sets: vec![Set::default()],
            set_ids: HashMap::new(),
            entries: Vec::new(),
            entry_ids: HashMap::new(),
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
        let mut set = Set::default();
        for (name, value) in xattrs.iter() {
            let Some(bytes) = encode(name, value)? else { continue };
            let next = self.entries.len() as u32;
            let id = *self.entry_ids.entry(bytes.clone()).or_insert(next);
            if id == next {
                self.entries.push(Entry { bytes, uses: 0, shared: None });
            }
            set.entries.push(id);
        }
        let id = SetId(self.sets.len() as u32);
        self.sets.push(set);
        self.set_ids.insert(xattrs.clone(), id);
        Ok(id)
    }

    /// Decides what is shared, once all inodes are known.
    ///
    /// # Errors
    /// [`Limit`](plyfold_core::ErrorKind::Limit) when the attributes of one inode are too large together.
    pub(crate) fn settle(&mut self) -> Result<()> {
        for set in &self.sets {
            for entry in &set.entries {
                self.entries[*entry as usize].uses += set.uses;
            }
        }
        let mut end = 0;
        for entry in &mut self.entries {
            if entry.uses > 1 {
                entry.shared = Some(end);
                end = u32::try_from(entry.bytes.len() / 4)
                    .ok()
                    .and_then(|length| end.checked_add(length))
                    .ok_or_else(|| Error::limit("the image has more than 16 GiB of shared xattrs"))?;
            }
        }
        for at in 1..self.sets.len() {
            let (shared, inline) = self.split(SetId(at as u32));
            let bodies: usize = inline.iter().map(|entry| entry.len()).sum();
            let size =
                if shared.is_empty() && inline.is_empty() { 0 } else { HEADER + shared.len() * 4 + bodies };
            if size > BODY_MAX {
                return Err(Error::limit(format!(
                    "a file has {size} bytes of xattrs, EROFS holds {BODY_MAX}"
                )));
            }
            self.sets[at].size = size as u32;
        }
        Ok(())
    }

    /// The size of an inode's body in bytes.
    pub(crate) fn size(&self, id: SetId) -> u32 {
        self.sets[id.0 as usize].size
    }

    /// Writes an inode's body.
    pub(crate) fn write(&self, id: SetId, out: &mut Vec<u8>) {
        if self.size(id) == 0 {
            return;
        }
        let (shared, inline) = self.split(id);
        out.extend_from_slice(&[0, 0, 0, 0, shared.len() as u8, 0, 0, 0, 0, 0, 0, 0]);
        for place in shared {
            out.extend_from_slice(&place.to_le_bytes());
        }
        for entry in inline {
            out.extend_from_slice(entry);
        }
    }

    /// The shared area.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().filter(|entry| entry.shared.is_some()).map(|entry| &*entry.bytes)
    }

    fn split(&self, id: SetId) -> (Vec<u32>, Vec<&[u8]>) {
        let (mut shared, mut inline) = (Vec::new(), Vec::new());
        for entry in &self.sets[id.0 as usize].entries {
            let entry = &self.entries[*entry as usize];
            match entry.shared {
                Some(place) if shared.len() < SHARED_MAX => shared.push(place),
                _ => inline.push(&*entry.bytes),
            }
        }
        (shared, inline)
    }
}

/// An entry: length of the name's rest (1 byte), prefix index (1), length of the value (2), both, padding to 4.
fn encode(name: &[u8], value: &[u8]) -> Result<Option<Box<[u8]>>> {
    let shown = || printable(&String::from_utf8_lossy(name)).to_string();
    let prefix = PREFIXES.iter().find_map(|(index, prefix)| {
        let rest = name.strip_prefix(*prefix)?;
        (prefix.ends_with(b".") != rest.is_empty()).then_some((*index, rest))
    });
    let Some((index, rest)) = prefix else {
        tracing::warn!(xattr = shown(), "dropped: EROFS has no prefix for it");
        return Ok(None);
    };
    let Ok(name_length) = u8::try_from(rest.len()) else {
        return Err(Error::limit(format!("the xattr name {} is longer than EROFS holds", shown())));
    };
    let Ok(value_length) = u16::try_from(value.len()) else {
        let length = value.len();
        return Err(Error::limit(format!("the xattr {} has {length} bytes, EROFS holds 65535", shown())));
    };
    let mut bytes = vec![name_length, index];
    bytes.extend_from_slice(&value_length.to_le_bytes());
    bytes.extend_from_slice(rest);
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(Some(bytes.into()))
}

/// The size of an entry without its padding, out of its header.
pub(crate) fn entry_size(header: [u8; 4]) -> usize {
    header.len() + usize::from(header[0]) + usize::from(u16_at(&header, 2))
}

/// An entry's full name and value.
///
/// # Errors
/// [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for a prefix that is none of [`PREFIXES`].
pub(crate) fn decode(entry: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let [name_length, index, _, _, rest @ ..] = entry else {
        return Err(Error::corrupt("an xattr is too short"));
    };
    let prefix = PREFIXES.iter().find(|(known, _)| known == index);
    let (_, prefix) = prefix.ok_or_else(|| Error::unsupported(format!("an xattr of prefix {index}")))?;
    let (name, value) = rest
        .split_at_checked((*name_length).into())
        .filter(|(name, _)| !name.contains(&0))
        .ok_or_else(|| Error::corrupt("an xattr has no name"))?;
    Ok(([prefix, name].concat(), value.to_vec()))
}
