//! The first difference of two directory trees.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use plyfold_core::{Error, Result, printable};

use super::tree::{self, Node};

/// In what two trees can differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Aspect {
    /// The bytes of a file.
    Content,
    /// The device number.
    Device,
    /// The link count of a directory: overlayfs always says 1.
    DirectoryLinks,
    /// Which names of the tree are one file.
    HardLinks,
    /// The link count of what is no directory: overlayfs counts names that an upper layer hides.
    Links,
    /// Permissions, with set-uid, set-gid and sticky.
    Mode,
    /// The modification time, to the nanosecond.
    Mtime,
    /// A name that one tree has.
    Name,
    /// User and group.
    Owner,
    /// The length of a file.
    Size,
    /// The text of a symbolic link.
    Target,
    /// The file type.
    Type,
    /// An extended attribute, of any namespace that the caller may see.
    Xattr,
}

/// Where two trees differ first, in the order of their paths, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// The path below the roots, empty for the roots themselves.
    pub path: Vec<u8>,
    /// In what they differ.
    pub aspect: Aspect,
    /// What the first tree has, as text.
    pub left: String,
    /// What the second tree has, as text.
    pub right: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = String::from_utf8_lossy(&self.path);
        write!(f, "/{}: {:?}: {} against {}", printable(&path), self.aspect, self.left, self.right)
    }
}

/// Compares two trees in names, types, permissions, owners, modification times, link counts, hard links, device
/// numbers, link texts, extended attributes, sizes and content, except for what `ignored` names.
///
/// Differences of metadata are found before those of content.
///
/// # Errors
/// [`Io`](plyfold_core::ErrorKind::Io) from either tree.
pub fn difference(left: &Path, right: &Path, ignored: &[Aspect]) -> Result<Option<Difference>> {
    let (left_nodes, right_nodes) = (tree::read(left)?, tree::read(right)?);
    let names: BTreeSet<_> = left_nodes.keys().chain(right_nodes.keys()).collect();
    for name in names {
        let found = match (left_nodes.get(name), right_nodes.get(name)) {
            (Some(left), Some(right)) => of_nodes(left, right, ignored),
            (left, _) => {
                let text = |there: bool| if there { "there" } else { "not there" }.to_owned();
                (!ignored.contains(&Aspect::Name))
                    .then(|| (Aspect::Name, text(left.is_some()), text(left.is_none())))
            }
        };
        if let Some((aspect, left, right)) = found {
            return Ok(Some(Difference { path: name.clone(), aspect, left, right }));
        }
    }
    if ignored.contains(&Aspect::Content) {
        Ok(None)
    } else {
        of_contents(left, right, &left_nodes, &right_nodes)
    }
}

fn of_nodes(left: &Node, right: &Node, ignored: &[Aspect]) -> Option<(Aspect, String, String)> {
    let links = if left.is_directory() { Aspect::DirectoryLinks } else { Aspect::Links };
    let of = |aspect: Aspect, show: &dyn Fn(&Node) -> String| {
        let (left, right) = (show(left), show(right));
        (left != right && !ignored.contains(&aspect)).then_some((aspect, left, right))
    };
    let text = |bytes: &[u8]| printable(&String::from_utf8_lossy(bytes));
    of(Aspect::Type, &|node| format!("{:o}", node.mode >> 12))
        .or_else(|| of(Aspect::Mode, &|node| format!("{:04o}", node.mode & 0o7777)))
        .or_else(|| of(Aspect::Owner, &|node| format!("{}:{}", node.owner.0, node.owner.1)))
        .or_else(|| of(Aspect::Mtime, &|node| format!("{}.{:09}", node.mtime.0, node.mtime.1)))
        .or_else(|| of(links, &|node| node.links.to_string()))
        .or_else(|| of(Aspect::HardLinks, &|node| format!("same file as /{}", text(&node.first_name))))
        .or_else(|| of(Aspect::Device, &|node| format!("{:?}", node.device)))
        .or_else(|| of(Aspect::Size, &|node| format!("{:?}", node.size)))
        .or_else(|| of(Aspect::Target, &|node| node.target.as_deref().map_or_else(String::new, text)))
        .or_else(|| of(Aspect::Xattr, &|node| first_other(node, left, right)))
}

/// The first extended attribute that only one of two nodes has or whose value differs, as `node` has it.
fn first_other(node: &Node, left: &Node, right: &Node) -> String {
    let names: BTreeSet<_> = left.xattrs.keys().chain(right.xattrs.keys()).collect();
    let other = names.into_iter().find(|name| left.xattrs.get(*name) != right.xattrs.get(*name));
    other.map_or_else(String::new, |name| {
        let shown = printable(&String::from_utf8_lossy(name));
        match node.xattrs.get(name) {
            Some(value) => format!("{shown}={}", value.escape_ascii()),
            None => format!("no {shown}"),
        }
    })
}

fn of_contents(
    left: &Path,
    right: &Path,
    left_nodes: &BTreeMap<Vec<u8>, Node>,
    right_nodes: &BTreeMap<Vec<u8>, Node>,
) -> Result<Option<Difference>> {
    let is_file =
        |nodes: &BTreeMap<Vec<u8>, Node>, name| nodes.get(name).is_some_and(|node| node.size.is_some());
    for (name, node) in left_nodes {
        // The other names of a file have the same content, as long as both trees agree on which they are.
        let again = node.first_name != *name
            && right_nodes.get(name).is_some_and(|n| n.first_name == node.first_name);
        if again || node.size.is_none() || !is_file(right_nodes, name) {
            continue;
        }
        let open = |root: &Path| {
            let path = root.join(OsStr::from_bytes(name));
            File::open(&path).map_err(|e| Error::io("opening a file", e).with_context("path", path.display()))
        };
        if let Some((left, right)) = of_files(open(left)?, open(right)?)? {
            return Ok(Some(Difference { path: name.clone(), aspect: Aspect::Content, left, right }));
        }
    }
    Ok(None)
}

/// The first byte in which two files differ, as both have it.
fn of_files(mut left: impl Read, mut right: impl Read) -> io::Result<Option<(String, String)>> {
    const CHUNK: u64 = 1 << 16;
    let (mut left_chunk, mut right_chunk) = (Vec::new(), Vec::new());
    let mut offset = 0;
    loop {
        left_chunk.clear();
        right_chunk.clear();
        left.by_ref().take(CHUNK).read_to_end(&mut left_chunk)?;
        right.by_ref().take(CHUNK).read_to_end(&mut right_chunk)?;
        if left_chunk != right_chunk {
            let same = left_chunk.iter().zip(&right_chunk).take_while(|(left, right)| left == right).count();
            let show = |chunk: &[u8]| match chunk.get(same) {
                Some(byte) => format!("{byte:#04x} at {}", offset + same),
                None => format!("the end at {}", offset + same),
            };
            return Ok(Some((show(&left_chunk), show(&right_chunk))));
        }
        if left_chunk.is_empty() {
            return Ok(None);
        }
        offset += left_chunk.len();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::time::{Duration, SystemTime};

    use super::*;

    fn sample() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |name| root.path().join(name);
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("dir/file"), vec![7; 100_000]).unwrap();
        fs::hard_link(at("dir/file"), at("link")).unwrap();
        symlink("dir/file", at("symlink")).unwrap();
        for name in ["dir/file", "dir", ""] {
            File::open(at(name))
                .unwrap()
                .set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(1))
                .unwrap();
        }
        root
    }

    fn aspect_after(change: impl Fn(&Path), ignored: &[Aspect]) -> Option<(String, Aspect)> {
        let (left, right) = (sample(), sample());
        change(right.path());
        // The link's own time cannot be set with std.
        let ignored = [ignored, &[Aspect::Mtime]].concat();
        let found = difference(left.path(), right.path(), &ignored).unwrap();
        found.map(|found| (String::from_utf8(found.path).unwrap(), found.aspect))
    }

    #[test]
    fn equal_trees_have_no_difference() {
        assert_eq!(aspect_after(|_| {}, &[]), None);
    }

    #[test]
    fn each_aspect_is_found_at_its_path() {
        let found = |path: &str, aspect| Some((path.to_owned(), aspect));
        let extra = |root: &Path| fs::write(root.join("dir/extra"), "").unwrap();
        assert_eq!(aspect_after(extra, &[]), found("dir/extra", Aspect::Name));
        assert_eq!(aspect_after(extra, &[Aspect::Name]), None);
        let mode =
            |root: &Path| fs::set_permissions(root.join("dir"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(aspect_after(mode, &[]), found("dir", Aspect::Mode));
        assert_eq!(aspect_after(mode, &[Aspect::Mode]), None);
        let content = |root: &Path| {
            let mut bytes = vec![7; 100_000];
            bytes[99_999] = 8;
            fs::write(root.join("link"), bytes).unwrap();
        };
        assert_eq!(aspect_after(content, &[]), found("dir/file", Aspect::Content));
        let size = |root: &Path| fs::write(root.join("link"), "short").unwrap();
        assert_eq!(aspect_after(size, &[]), found("dir/file", Aspect::Size));
        let unlinked = |root: &Path| {
            fs::remove_file(root.join("link")).unwrap();
            fs::copy(root.join("dir/file"), root.join("link")).unwrap();
        };
        assert_eq!(aspect_after(unlinked, &[]), found("dir/file", Aspect::Links));
        assert_eq!(aspect_after(unlinked, &[Aspect::Links]), found("link", Aspect::HardLinks));
        let retarget = |root: &Path| {
            fs::remove_file(root.join("symlink")).unwrap();
            symlink("dir/filf", root.join("symlink")).unwrap();
        };
        assert_eq!(aspect_after(retarget, &[]), found("symlink", Aspect::Target));
        let retype = |root: &Path| {
            fs::remove_file(root.join("symlink")).unwrap();
            fs::create_dir(root.join("symlink")).unwrap();
        };
        assert_eq!(aspect_after(retype, &[Aspect::DirectoryLinks]), found("symlink", Aspect::Type));
    }

    #[test]
    fn times_differ_by_a_nanosecond() {
        let (left, right) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (root, nanos) in [(&left, 1), (&right, 2)] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
            File::open(root.path()).unwrap().set_modified(time).unwrap();
        }
        let found = difference(left.path(), right.path(), &[]).unwrap().unwrap();
        assert_eq!(found.to_string(), "/: Mtime: 0.000000001 against 0.000000002");
    }
}
