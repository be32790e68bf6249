//! What is known of files, and how they are asked for.

use crate::layer::Timestamp;
use crate::tree::Xattrs;
use crate::{Result, printable};

crate::fault! {
    /// Why a file cannot be shown.
    pub enum FilesFault;
    /// It has no bytes to read.
    Directory(String) => (Config, "{0} is a directory"),
    /// There is no such file.
    Missing(String) => (NotFound, "there is no file {0}"),
    /// It has no names to list.
    NoDirectory(String) => (Config, "{0} is no directory"),
    /// A device, a pipe or a socket: it has no bytes to read.
    Special(String, FileType) => (Config, "{0} is a {1}, which has no content in an image"),
}

/// Files by their paths.
///
/// A path is written as users write it: any bytes, from the root, with a slash in front or without one. Symbolic links on
/// its way are followed, inside the root and never out of it.
pub trait Files {
    /// What stands under a path. A symbolic link at its end is followed if `follow` says so, or a slash stands behind it.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) with [`FilesFault::Missing`]; [`Corrupt`](crate::ErrorKind::Corrupt) also
    /// for a path through more than 40 symbolic links.
    fn file(&mut self, path: &[u8], follow: bool) -> Result<FileInfo>;

    /// What stands in a directory, by name in the order of the names' bytes, without `.` and `..`.
    ///
    /// # Errors
    /// As [`Files::file`]; [`Config`](crate::ErrorKind::Config) with [`FilesFault::NoDirectory`].
    fn list(&mut self, directory: &[u8]) -> Result<Vec<FileInfo>>;

    /// Hands the bytes of a regular file to `take`, piece by piece, holes as zeros; symbolic links are followed.
    ///
    /// # Errors
    /// As [`Files::file`]; [`Config`](crate::ErrorKind::Config) with [`FilesFault::Directory`] and
    /// [`FilesFault::Special`]; those of `take`.
    fn read(&mut self, path: &[u8], take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>;
}

/// What a file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, strum::Display)]
#[non_exhaustive]
#[strum(serialize_all = "lowercase")]
pub enum FileType {
    /// A block device.
    #[strum(serialize = "block device")]
    BlockDevice,
    /// A character device.
    #[strum(serialize = "character device")]
    CharDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    #[strum(serialize = "named pipe")]
    Fifo,
    /// A regular file.
    #[strum(serialize = "regular file")]
    Regular,
    /// A Unix socket.
    Socket,
    /// A symbolic link.
    #[strum(serialize = "symbolic link")]
    Symlink,
}

/// What is known of a file, its bytes apart.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FileInfo {
    /// Its name: the last component of its path, and `/` for the root.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: FileType,
    /// Permission bits with set-uid, set-gid and sticky: 0 to 0o7777.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Bytes of a regular file and of a symbolic link's text; else 0.
    pub size: u64,
    /// Modification time.
    pub mtime: Timestamp,
    /// The number of its names, 2 and the subdirectories for a directory; `None` where the reader does not know.
    pub links: Option<u32>,
    /// Major and minor number of a device; `None` where the reader does not know.
    pub device: Option<(u32, u32)>,
    /// The text of a symbolic link.
    pub target: Option<Box<[u8]>>,
    /// Extended attributes; `None` where the reader does not know.
    pub xattrs: Option<Xattrs>,
}

impl FileInfo {
    /// A file of which no more is known.
    pub fn new(name: Vec<u8>, kind: FileType) -> Self {
        Self {
            name,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Timestamp::default(),
            links: None,
            device: None,
            target: None,
            xattrs: None,
        }
    }
}

/// A path as errors show it.
pub(super) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    format!("/{}", printable(text.trim_start_matches('/')))
}
