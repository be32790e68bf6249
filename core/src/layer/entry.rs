//! One entry of a layer, whatever tar dialect it came in.

use std::fmt;

use super::fault::TarFault;
use super::limits::LayerLimits;
use crate::{Error, Result, printable};

pub(super) const PREFIX: &[u8] = b".wh.";

/// A path inside an image: relative to the root, no leading, trailing or double slash, no `.` or `..`.
///
/// The root itself is the empty path. Any bytes but NUL are allowed, each component is 1 to 255 bytes. A
/// whiteout's name is counted without its prefix `.wh.`: the file that it hides may have a name of 255 bytes.
#[derive(Clone, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ImagePath(Vec<u8>);

impl ImagePath {
    /// The root directory.
    pub const ROOT: Self = Self(Vec::new());

    /// A tar's name for a file, cleaned as Docker cleans it: empty components and `.` fall away, `..` takes away
    /// the component before it (without a look at symbolic links), and absolute names are names from the image's
    /// root, whose parent is the root.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for NUL and for a relative name that leaves the root by `..`, also
    /// where it comes back; [`Limit`](crate::ErrorKind::Limit) beyond the default [`LayerLimits`].
    ///
    /// ```
    /// use plyfold_core::layer::ImagePath;
    ///
    /// assert_eq!(ImagePath::parse(b"./usr//lib/../bin/")?.as_bytes(), b"usr/bin");
    /// assert!(ImagePath::parse(b"../etc/passwd").is_err());
    /// # Ok::<(), plyfold_core::Error>(())
    /// ```
    pub fn parse(name: &[u8]) -> Result<Self> {
        Self::within(name, &LayerLimits::default())
    }

    /// As [`ImagePath::parse`], with other limits.
    pub(super) fn within(name: &[u8], limits: &LayerLimits) -> Result<Self> {
        let shown = || printable(&String::from_utf8_lossy(&name[..name.len().min(256)]));
        let long = |fault: TarFault| Error::from(fault).with_context("path", shown());
        let mut clean = Vec::new();
        for component in name.split(|byte| *byte == b'/') {
            let counted = hidden_name(component).len();
            match component {
                b"" | b"." => continue,
                b".." if clean.is_empty() && !name.starts_with(b"/") => {
                    return Err(TarFault::Leaves(shown()).into());
                }
                b".." => {
                    let parent = clean.iter().rposition(|byte| *byte == b'/');
                    clean.truncate(parent.unwrap_or_default());
                    continue;
                }
                _ if component.contains(&0) => return Err(TarFault::PathNul(shown()).into()),
                _ if counted > limits.component => {
                    return Err(long(TarFault::Component(counted, limits.component)));
                }
                _ => {}
            }
            join(&mut clean, component);
        }
        let path = Self(clean);
        let counted = path.0.len() - path.name().len() + hidden_name(path.name()).len();
        if counted > limits.path {
            return Err(long(TarFault::PathLong(counted, limits.path)));
        }
        Ok(path)
    }

    /// Wraps bytes that already have the form described above.
    pub(crate) fn from_clean(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The path's bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root directory.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components, top-down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
    }

    /// The path of `name` in this directory; `name` is one component.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        let mut joined = Vec::with_capacity(self.0.len() + 1 + name.len());
        joined.extend_from_slice(&self.0);
        join(&mut joined, name);
        Self(joined)
    }

    /// What stands before the last component, without the slash between them; empty for the root.
    pub(crate) fn parent(&self) -> &[u8] {
        self.0.iter().rposition(|byte| *byte == b'/').map_or(&[], |slash| &self.0[..slash])
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }
}

/// Joins a name to a path.
pub(crate) fn join(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// The part of a component that a limit counts: without the prefix of a whiteout.
fn hidden_name(component: &[u8]) -> &[u8] {
    component.strip_prefix(PREFIX).unwrap_or(component)
}

impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", printable(&String::from_utf8_lossy(&self.0)))
    }
}

impl fmt::Debug for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A time stamp: seconds since 1970-01-01 UTC, possibly negative, plus 0 to 999,999,999 ns.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// Nanoseconds after `seconds`.
    pub nanos: u32,
}

/// Owner, mode, time and extended attributes of a file of any kind.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Metadata {
    /// Permission bits with set-uid, set-gid and sticky: 0 to 0o7777.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Extended attributes with their full names (`security.capability`), sorted by name, names unique.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A run of data in a sparse file; everything between runs is a hole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DataExtent {
    /// First byte of the run within the file.
    pub offset: u64,
    /// Bytes in the run.
    pub length: u64,
}

/// What a file is: an entry of a layer, or a node of a tree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FileKind<C, D> {
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A character device. 0:0 is overlayfs' whiteout.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A directory, with what is known of it.
    Directory(D),
    /// A named pipe.
    Fifo,
    /// A regular file.
    File {
        /// Its size in bytes, holes included.
        size: u64,
        /// Where its bytes lie.
        content: C,
    },
    /// A Unix socket. No tar has these; other trees do.
    Socket,
    /// A symbolic link.
    Symlink {
        /// The link's text, any bytes but NUL, kept as it is.
        target: Box<[u8]>,
    },
}

/// What an entry is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EntryKind {
    /// Another name of an earlier (or later) file of the same layer or a lower one.
    HardLink {
        /// The file's first name.
        target: ImagePath,
    },
    /// A file. The data of a regular one follows in the layer stream; its content is the runs of data of a sparse
    /// file, ascending and disjoint, and `None` when all of it is data.
    Node(FileKind<Option<Vec<DataExtent>>, ()>),
}

/// One entry of a layer: where, what, and with which metadata.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Where it stands in the image.
    pub path: ImagePath,
    /// What it is.
    pub kind: EntryKind,
    /// Owner, mode, time, extended attributes.
    pub metadata: Metadata,
}
