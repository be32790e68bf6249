//! A directory tree on this machine, as far as an image can say what it should be.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use plyfold_core::{Error, Result};
use rustix::fs::{lgetxattr, llistxattr};

/// What `stat`, `readlink` and `getxattr` say about one name.
#[derive(Debug)]
pub(crate) struct Node {
    /// Type and permissions.
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: (i64, i64),
    pub(crate) links: u64,
    /// Major and minor number of a device.
    pub(crate) device: Option<(u32, u32)>,
    /// Bytes of a regular file.
    pub(crate) size: Option<u64>,
    /// The text of a symbolic link.
    pub(crate) target: Option<Vec<u8>>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first of a file's names in the tree.
    pub(crate) first_name: Vec<u8>,
}

impl Node {
    pub(crate) fn is_directory(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }
}

/// All names of the tree below `root`, each relative to it; the root is the empty name.
pub(crate) fn read(root: &Path) -> Result<BTreeMap<Vec<u8>, Node>> {
    let mut paths = vec![root.to_owned()];
    let mut seen = 0;
    while let Some(path) = paths.get(seen).cloned() {
        seen += 1;
        let metadata = fs::symlink_metadata(&path).map_err(|e| looking_at(&path, e))?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path).map_err(|e| looking_at(&path, e))? {
                paths.push(entry.map_err(|e| looking_at(&path, e))?.path());
            }
        }
    }
    paths.sort();
    let mut first_names = HashMap::new();
    let mut nodes = BTreeMap::new();
    for path in paths {
        let name = path.strip_prefix(root).unwrap_or(&path).as_os_str().as_bytes().to_vec();
        let node = node(&path, &name, &mut first_names).map_err(|e| looking_at(&path, e))?;
        nodes.insert(name, node);
    }
    Ok(nodes)
}

fn looking_at(path: &Path, error: std::io::Error) -> Error {
    Error::io("reading a directory tree", error).with_context("path", path.display())
}

fn node(path: &Path, name: &[u8], first_names: &mut HashMap<(u64, u64), Vec<u8>>) -> std::io::Result<Node> {
    let metadata = fs::symlink_metadata(path)?;
    let kind = metadata.mode() & 0o170_000;
    let is_device = matches!(kind, 0o020_000 | 0o060_000);
    let identity = (metadata.dev(), metadata.ino());
    let first_name =
        if metadata.is_dir() { name } else { first_names.entry(identity).or_insert_with(|| name.to_vec()) };
    Ok(Node {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        links: metadata.nlink(),
        device: is_device.then(|| (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()))),
        size: metadata.is_file().then_some(metadata.len()),
        target: if metadata.is_symlink() {
            Some(fs::read_link(path)?.into_os_string().as_bytes().to_vec())
        } else {
            None
        },
        xattrs: xattrs(path)?,
        first_name: first_name.to_vec(),
    })
}

/// The extended attributes of `path`, not of what a link there points to; none where the file system has none.
///
/// # Errors
/// What the kernel answers, such as [`NotFound`](std::io::ErrorKind::NotFound).
pub fn xattrs(path: &Path) -> std::io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    // XATTR_LIST_MAX and XATTR_SIZE_MAX of the kernel.
    let mut list = vec![0_u8; 65536];
    let mut value = vec![0_u8; 65536];
    let listed = match llistxattr(path, &mut list[..]) {
        Ok(listed) => listed,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut xattrs = BTreeMap::new();
    for name in list[..listed].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let length = lgetxattr(path, name, &mut value[..])?;
        xattrs.insert(name.to_vec(), value[..length].to_vec());
    }
    Ok(xattrs)
}
