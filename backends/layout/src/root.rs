//! A layout directory as it lies on disk: nothing is opened that is not a regular file inside it.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use plyfold_core::layout_index::{self, INDEX_LIMIT, LAYOUT_LIMIT, LayoutIndex, blob_name};
use plyfold_core::{Advice, Descriptor, Digest, Error, ErrorKind, Mismatch, Result, Size, digest};
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use rustix::io::Errno;

/// A layout directory, which need not exist yet.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    /// For its owner alone, as a store is; otherwise files are readable by all.
    pub(crate) private: bool,
    follow: bool,
    /// `index.json` as it was read last: with ten thousand names, parsing takes longer than all else.
    read: Mutex<Option<(Stamp, Names)>>,
}

/// How often the kernel is asked for a path that is looked up beside renames.
const RACES: usize = 1000;

/// `index.json`, parsed and raw.
pub(crate) type Names = Arc<(LayoutIndex, Bytes)>;

/// Identifies one state of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None` for a file that changed a moment ago: file systems keep time in steps of some milliseconds, and a
    /// second change within one step does not change the time.
    fn of(found: &Metadata) -> Option<Self> {
        const TICKS: Duration = Duration::from_millis(50);
        let age = found.modified().ok()?.elapsed().ok()?;
        (age > TICKS).then(|| Self {
            file: (found.dev(), found.ino()),
            size: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// What is at a path in the layout.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PathKind {
    Absent,
    /// A regular file of this many bytes.
    File(u64),
    /// Anything else: symbolic link, directory, pipe, device, socket.
    Irregular(FileType),
}

impl Root {
    pub(crate) fn new(path: PathBuf, private: bool, follow: bool) -> Self {
        Self { path, private, follow, read: Mutex::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is an `oci-layout` file of a version that we know.
    pub(crate) fn is_layout(&self) -> Result<bool> {
        let Some(bytes) = self.document("oci-layout", LAYOUT_LIMIT)? else { return Ok(false) };
        layout_index::check_layout(&bytes)?;
        Ok(true)
    }

    /// Whether the directory is empty, or has no more than what is made before `oci-layout`: a program is about to store there, or
    /// was ended then.
    fn is_begun(&self) -> Result<bool> {
        if self.foreign()?.is_some() {
            return Ok(false);
        }
        Ok(match self.document("index.json", INDEX_LIMIT)? {
            Some(bytes) => LayoutIndex::parse(&bytes, &self.path)?.entries().next().is_none(),
            None => true,
        })
    }

    /// What is in the directory and in no layout, if anything.
    pub(crate) fn foreign(&self) -> Result<Option<OsString>> {
        // The marker too: another process may have made the layout since we looked.
        const OWN: [&str; 8] =
            ["artifacts", "blobs", "index.json", "ingest", "locks", "lost+found", "oci-layout", "quarantine"];
        let at = |e| Error::io(format!("reading the directory {}", self.path.display()), e);
        for entry in fs::read_dir(&self.path).map_err(at)? {
            let name = entry.map_err(at)?.file_name();
            if !OWN.iter().any(|own| *own == name) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// `index.json` as it is now.
    pub(crate) fn index(&self) -> Result<Names> {
        if !self.is_layout()? {
            if self.is_begun()? {
                let message = "there is no image in the layout directory: nothing is stored yet";
                return Err(Error::not_found(message));
            }
            let error = layout_index::not_a_layout("there is no oci-layout file");
            let version = self.document("version", LAYOUT_LIMIT).ok().flatten();
            return Err(match version {
                Some(version) if version.starts_with(b"Directory Transport Version") => {
                    error.with_better_hint("it is the directory of one image, which opens as dir:DIRECTORY")
                }
                _ => error,
            });
        }
        self.read_index().map_err(|e| if *e.kind() == ErrorKind::Io { e } else { self.damaged_index(&e) })
    }

    fn read_index(&self) -> Result<Names> {
        let Some((file, size)) = self.open("index.json".as_ref())? else {
            return Err(layout_index::not_a_layout("there is no index.json"));
        };
        let stamp = file.metadata().ok().as_ref().and_then(Stamp::of);
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, names)) = known.as_ref().filter(|(before, _)| Some(*before) == stamp) {
            return Ok(names.clone());
        }
        let bytes = read(file, size, "index.json", INDEX_LIMIT)?;
        let names = Arc::new((LayoutIndex::parse(&bytes, &self.path)?, bytes));
        *known = stamp.map(|stamp| (stamp, names.clone()));
        Ok(names)
    }

    /// As [`Root::index`], and reads the file whatever is known of it.
    pub(crate) fn index_again(&self) -> Result<Names> {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.index()
    }

    /// The content of `index.json` when it is itself the image with this digest.
    pub(crate) fn index_as_image(&self, digest: &Digest) -> Result<Option<Bytes>> {
        let names = self.index()?;
        Ok(names.0.as_image(digest, &names.1).map(|_| names.1.clone()))
    }

    /// The same error, with what its reader can do here.
    fn damaged_index(&self, e: &Error) -> Error {
        let error = e.bare().with_context("document", "index.json");
        if self.private {
            error.with_advice(Advice::RepairNames)
        } else {
            error.with_hint("the file is left as it is; put a copy back, or move it away and start again")
        }
    }

    /// Bytes that this user can still write here; `None` where the file system does not say.
    pub(crate) fn free(&self) -> Result<Option<u64>> {
        let room = rustix::fs::statvfs(&self.path);
        let room = room
            .map_err(|e| Error::io(format!("reading the free space of {}", self.path.display()), e.into()))?;
        // A file system that has no blocks counts none, such as many in user space. One that is read-only is not full,
        // though it may report so: a write gives the right error.
        let is_read_only = room.f_flag.contains(StatVfsMountFlags::RDONLY);
        Ok((room.f_blocks > 0 && !is_read_only).then(|| room.f_bavail.saturating_mul(room.f_frsize)))
    }

    /// Whether this user cannot write here. The folder's permissions decide: without write permission no name can be
    /// changed.
    pub(crate) fn is_read_only(&self) -> bool {
        let refused = rustix::fs::accessat(CWD, &self.path, Access::WRITE_OK, AtFlags::EACCESS).err();
        matches!(refused, Some(Errno::ACCESS | Errno::PERM | Errno::ROFS))
    }

    /// The permissions of a file that is written here.
    pub(crate) fn mode(&self, mode: u32) -> u32 {
        if self.private { mode & 0o700 } else { mode }
    }

    /// What stands where a blob belongs.
    pub(crate) fn stat_blob(&self, digest: &Digest) -> Result<PathKind> {
        digest::supported(digest)?;
        Ok(self.find(blob_name(digest).as_ref())?.1)
    }

    /// The size of a blob; `None` when there is no regular file in its place.
    pub(crate) fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(if let PathKind::File(size) = self.stat_blob(digest)? { Some(size) } else { None })
    }

    /// A blob's file, which has the size of its descriptor.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` when it has another size or is no regular file.
    pub(crate) fn open_blob(&self, blob: &Descriptor) -> Result<File> {
        let Some((file, size)) = self.open_file(blob.digest())? else {
            return Err(Error::not_found(format!("no blob {}", blob.digest())));
        };
        if size != blob.size() {
            return Err(Error::from(Mismatch {
                expected: blob.digest().clone(),
                actual: None,
                expected_size: Some(blob.size()),
                actual_size: size,
            }));
        }
        Ok(file)
    }

    /// A whole blob of at most `limit` bytes, not verified; `None` when it is absent.
    pub(crate) fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Bytes>> {
        let opened = self.open_file(digest)?;
        opened.map(|(file, size)| read(file, size, digest.as_ref(), limit)).transpose()
    }

    /// Where a blob belongs.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join(blob_name(digest))
    }

    /// A blob's file, of whatever size.
    pub(crate) fn open_file(&self, digest: &Digest) -> Result<Option<(File, u64)>> {
        digest::supported(digest)?;
        self.open(blob_name(digest).as_ref())
    }

    /// What is in the place of `oci-layout` or `index.json`, whatever it says.
    pub(crate) fn document(&self, name: &str, limit: u64) -> Result<Option<Bytes>> {
        let opened = self.open(name.as_ref())?;
        opened.map(|(file, size)| read(file, size, name, limit)).transpose()
    }

    /// Opens a path in the layout, and says how large the file is.
    pub(crate) fn open(&self, inner: &Path) -> Result<Option<(File, u64)>> {
        let (path, name) = (self.path.join(inner), inner.file_name().unwrap_or_default());
        let irregular = |kind| {
            let refusal = format!("{} is not a regular file but {}", path.display(), describe(kind));
            self.way_out(Error::corrupt(refusal), kind)
        };
        let (Some(folder), found) = self.find(inner)? else { return Ok(None) };
        match found {
            PathKind::Absent => return Ok(None),
            PathKind::Irregular(kind) => return Err(irregular(kind)),
            PathKind::File(_) => {}
        }
        // The path may have been replaced since: no link out of the layout is followed, and the open of a pipe does not
        // block.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(&folder, name, flags | self.nofollow(), Mode::empty()) {
            Err(Errno::LOOP) if self.follows_inside() => {
                self.open_inside(inner, flags).map_err(|e| match e {
                    Errno::ACCESS | Errno::IO | Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
                        Error::io(format!("opening {}", path.display()), e.into())
                    }
                    _ => irregular(FileType::Symlink),
                })?
            }
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(irregular(FileType::Symlink)),
            opened => opened.map_err(|e| Error::io(format!("opening {}", path.display()), e.into()))?,
        };
        let file = File::from(file);
        let size = || format!("reading the size of {}", path.display());
        let metadata = file.metadata().map_err(|e| Error::io(size(), e))?;
        if !metadata.is_file() {
            return Err(irregular(FileType::Unknown));
        }
        Ok(Some((file, metadata.len())))
    }

    /// What is at a path in the layout, with the folder it stands in.
    fn find(&self, inner: &Path) -> Result<(Option<OwnedFd>, PathKind)> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut folder = rustix::fs::openat(CWD, &self.path, flags, Mode::empty()).map_err(|e| match e {
            Errno::NOENT => Error::not_found(format!("there is no directory {}", self.path.display())),
            Errno::NOTDIR => layout_index::not_a_layout("it is not a directory")
                .with_hint("images in tar files open as oci-archive:FILE or docker-archive:FILE"),
            e => Error::io(format!("opening {}", self.path.display()), e.into()),
        })?;
        let mut below = PathBuf::new();
        for name in inner.parent().into_iter().flatten() {
            below.push(name);
            let path = self.path.join(&below);
            folder = match rustix::fs::openat(&folder, name, flags | self.nofollow(), Mode::empty()) {
                Err(Errno::NOENT) => return Ok((None, PathKind::Absent)),
                Err(Errno::NOTDIR | Errno::LOOP) => match self.open_inside(&below, flags) {
                    Ok(folder) if self.follows_inside() => folder,
                    _ => {
                        let is_link = path.is_symlink();
                        let kind = if is_link { FileType::Symlink } else { FileType::Unknown };
                        let refusal = format!("{} is not a directory", path.display());
                        return Err(self.way_out(Error::corrupt(refusal), kind));
                    }
                },
                opened => opened.map_err(|e| Error::io(format!("opening {}", path.display()), e.into()))?,
            };
        }
        let how = if self.follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let found = match rustix::fs::statat(&folder, inner.file_name().unwrap_or_default(), how) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => PathKind::File(u64::try_from(stat.st_size).unwrap_or(0)),
                FileType::Symlink if self.follows_inside() => self.linked(inner),
                kind => PathKind::Irregular(kind),
            },
            Err(Errno::NOENT) => PathKind::Absent,
            Err(e) => return Err(Error::io(format!("looking at {}", inner.display()), e.into())),
        };
        Ok((Some(folder), found))
    }

    /// Whether links are followed as long as they stay inside the layout: in layouts of other tools, whose build
    /// systems may link each blob to one place for all. In a store every file is its own.
    fn follows_inside(&self) -> bool {
        !self.private && !self.follow
    }

    /// What a symbolic link inside the layout stands for.
    fn linked(&self, inner: &Path) -> PathKind {
        // Look at the path only: opening a device may have effects.
        let found = self.open_inside(inner, OFlags::PATH | OFlags::CLOEXEC);
        match found.and_then(|place| rustix::fs::fstat(&place)) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                PathKind::File(u64::try_from(stat.st_size).unwrap_or(0))
            }
            _ => PathKind::Irregular(FileType::Symlink),
        }
    }

    /// Opens what a path leads to through symbolic links, none of which leaves the layout at any step: the kernel sees
    /// to that, also when links change meanwhile. A link to an absolute path counts when it is a path in the layout.
    fn open_inside(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, &self.path, folder, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        // Beside a rename, anywhere on the machine, the kernel may not know, and is to be asked again: openat2(2), `EAGAIN`.
        let open = |path: &Path| {
            let mut opened = Err(Errno::AGAIN);
            for _ in 0..RACES {
                opened = rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve);
                if !matches!(opened, Err(Errno::AGAIN)) {
                    break;
                }
            }
            opened
        };
        match (open(path), self.inside(path)) {
            (Err(Errno::XDEV), Some(inside)) => open(&inside),
            (opened, _) => opened,
        }
    }

    /// Where the absolute target of a link lies within the layout.
    fn inside(&self, path: &Path) -> Option<PathBuf> {
        let target = fs::read_link(self.path.join(path)).ok().filter(|target| target.is_absolute())?;
        let root = self.path.canonicalize().ok()?;
        Some(target.strip_prefix(root).ok()?.to_owned())
    }

    /// A refusal with what can be done about it.
    fn way_out(&self, refusal: Error, kind: FileType) -> Error {
        if kind != FileType::Symlink || self.private {
            return refusal;
        }
        refusal.with_advice(Advice::options(
            "links that stay inside the layout are followed; {} follows all, in a layout that you trust",
            [("follow-symlinks", "true")],
        ))
    }

    fn nofollow(&self) -> OFlags {
        if self.follow { OFlags::empty() } else { OFlags::NOFOLLOW }
    }
}

fn read(file: File, size: u64, name: &str, limit: u64) -> Result<Bytes> {
    let too_large = |size| Error::limit(format!("{name} has {}", Size(size).beyond(Size(limit))));
    if size > limit {
        return Err(too_large(size));
    }
    let mut bytes = Vec::new();
    let outcome = file.take(limit + 1).read_to_end(&mut bytes);
    outcome.map_err(|e: io::Error| Error::io(format!("reading {name}"), e))?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes.into())
}

pub(crate) fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::Symlink => "a symbolic link",
        FileType::Directory => "a directory",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::BlockDevice | FileType::CharacterDevice => "a device",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_does_not_count_is_not_full() {
        let free = |path: &str| Root::new(path.into(), true, false).free().unwrap();
        assert_eq!(free("/proc"), None);
        assert!(free(env!("CARGO_MANIFEST_DIR")).is_some());
    }
}
