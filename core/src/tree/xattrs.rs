//! Sets of extended attributes, packed: many files of an image have none, and most others share a set.

use std::fmt;
use std::sync::Arc;

use crate::printable;

/// Bytes of an attribute besides its name and value: their lengths.
const LENGTHS: usize = 6;
/// Bytes that a set takes besides its attributes: here, in the table of known sets, and in a writer's tables.
const SET_BYTES: usize = 256;
/// Bytes that an attribute takes in a writer's tables.
const ATTRIBUTE_BYTES: usize = 64;

/// The prefixes of names that Linux' file systems store as a number, with that number. Those without a dot at their
/// end are complete names.
pub const XATTR_PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

/// The number of a name's prefix and the rest of the name; `None` for names that these file systems do not store.
pub fn xattr_prefix(name: &[u8]) -> Option<(u8, &[u8])> {
    XATTR_PREFIXES.iter().find_map(|(number, prefix)| {
        let rest = name.strip_prefix(*prefix)?;
        (prefix.ends_with(b".") != rest.is_empty()).then_some((*number, rest))
    })
}

/// Whether the attribute of this name is one of overlayfs' own, which no layer may set.
pub fn is_overlay_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Whether the attribute of this name is kept where a layer or an image becomes a file system: it has a
/// [prefix](XATTR_PREFIXES) that Linux' file systems store, and is none of overlayfs' own.
pub fn is_kept_xattr(name: &[u8]) -> bool {
    xattr_prefix(name).is_some() && !is_overlay_xattr(name)
}

/// Counts attributes that a layer has and no Linux file system stores: their names have none of the
/// [prefixes](XATTR_PREFIXES).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DroppedXattrs {
    files: u64,
    /// The first name, in the order of names.
    name: Option<Vec<u8>>,
    has_others: bool,
}

impl DroppedXattrs {
    /// Counts so many files with attributes of these names.
    pub fn count<'a>(&mut self, names: impl IntoIterator<Item = &'a [u8]>, files: u64) {
        let mut is_one = false;
        for name in names.into_iter().filter(|name| xattr_prefix(name).is_none()) {
            is_one = true;
            let is_first = self.name.as_ref().is_none_or(|first| name < &**first);
            self.has_others |= self.name.as_ref().is_some_and(|first| **first != *name);
            if is_first {
                self.name = Some(name.to_vec());
            }
        }
        self.files = self.files.saturating_add(if is_one { files } else { 0 });
    }

    /// What to tell a user, for [`Made::losses`](crate::Made::losses); `None` if nothing was dropped.
    pub fn loss(&self) -> Option<String> {
        let name = String::from_utf8_lossy(self.name.as_ref()?);
        let name = printable(&name);
        let files = self.files;
        Some(if self.has_others {
            format!(
                "extended attributes that no Linux file system stores are left out of {files} files, such as {name}"
            )
        } else {
            format!(
                "an extended attribute that no Linux file system stores is left out of {files} files: {name}"
            )
        })
    }
}

/// Extended attributes with their full names, in the order in which they were given: sorted by name. Clones share
/// one copy.
#[derive(Clone, Default, Eq, Hash, PartialEq)]
pub struct Xattrs(Option<Arc<Box<[u8]>>>);

impl Xattrs {
    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Names and values.
    pub fn iter(&self) -> XattrsIter<'_> {
        self.iter_from(0)
    }

    /// Names and values from the [position](XattrsIter::position) of one of them on.
    pub fn iter_from(&self, position: usize) -> XattrsIter<'_> {
        XattrsIter { bytes: self.0.as_ref().map_or(&[], |bytes| bytes), position }
    }

    /// The value of that name.
    pub fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// Names and values, each with memory of its own.
    pub fn to_vec(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
    }

    /// Bytes of memory that the set takes, whatever shares it, a writer's tables included.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            None => 0,
            Some(bytes) => SET_BYTES + bytes.len() + self.iter().count() * ATTRIBUTE_BYTES,
        }
    }

    /// An address that is equal for clones of one set and different for others.
    pub(super) fn address(&self) -> Option<usize> {
        self.0.as_ref().map(|set| Arc::as_ptr(set).addr())
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for Xattrs {
    /// # Panics
    /// Never: a name longer than 65,535 bytes, which no system has, is left out with its value.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(attributes: I) -> Self {
        let mut bytes = Vec::new();
        for (name, value) in attributes {
            let (name, value) = (name.as_ref(), value.as_ref());
            let (Ok(name_length), Ok(value_length)) = (u16::try_from(name.len()), u32::try_from(value.len()))
            else {
                continue;
            };
            bytes.reserve_exact(LENGTHS + name.len() + value.len());
            bytes.extend_from_slice(&name_length.to_le_bytes());
            bytes.extend_from_slice(&value_length.to_le_bytes());
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(value);
        }
        Self((!bytes.is_empty()).then(|| Arc::new(bytes.into())))
    }
}

impl From<Vec<(Vec<u8>, Vec<u8>)>> for Xattrs {
    fn from(attributes: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        attributes.into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a Xattrs {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = XattrsIter<'a>;

    fn into_iter(self) -> XattrsIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Xattrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, value)| (name.escape_ascii(), value.len()))).finish()
    }
}

/// The attributes of a set. See [`Xattrs::iter`].
#[derive(Clone, Debug)]
pub struct XattrsIter<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl XattrsIter<'_> {
    /// Where the next attribute stands in the set, for [`Xattrs::iter_from`].
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for XattrsIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (lengths, rest) = self.bytes.get(self.position..)?.split_at_checked(LENGTHS)?;
        let name_length = usize::from(u16::from_le_bytes([lengths[0], lengths[1]]));
        let value_length = u32::from_le_bytes([lengths[2], lengths[3], lengths[4], lengths[5]]) as usize;
        let (name, rest) = rest.split_at_checked(name_length)?;
        let value = rest.get(..value_length)?;
        self.position += LENGTHS + name_length + value_length;
        Some((name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::{DroppedXattrs, Xattrs};

    #[test]
    fn a_set_gives_back_what_it_was_made_of() {
        let pairs = vec![(b"user.a".to_vec(), Vec::new()), (b"user.b".to_vec(), vec![0; 70_000])];
        let set = Xattrs::from(pairs.clone());
        assert_eq!(set.to_vec(), pairs);
        assert_eq!(set.value(b"user.b").map(<[u8]>::len), Some(70_000));
        assert_eq!(set.value(b"user.c"), None);
        let mut all = set.iter();
        all.next();
        assert_eq!(set.iter_from(all.position()).next(), set.iter().nth(1));
        assert!(Xattrs::from(Vec::new()).is_empty());
        assert_eq!(Xattrs::default().heap_bytes(), 0);
    }

    #[test]
    fn what_no_file_system_stores_is_told() {
        let mut dropped = DroppedXattrs::default();
        dropped.count([&b"user.a"[..], b"trusted.overlay.opaque"], 1);
        assert_eq!(dropped.loss(), None);
        dropped.count([&b"weird.ns"[..], b"user.a"], 3);
        let text = dropped.loss().unwrap();
        assert!(text.contains("of 3 files: weird.ns"), "{text}");
        dropped.count([&b"system.nfs4_acl"[..], b"weird.ns"], 1);
        let text = dropped.loss().unwrap();
        assert!(text.contains("of 4 files, such as system.nfs4_acl"), "{text}");
    }
}
