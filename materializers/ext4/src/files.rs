//! The files of a file system, one by one.

use std::fmt;
use std::io::{Read, Seek};

use plyfold_core::Result;
use plyfold_core::files::{FileInfo, FileType, Files, FilesFault};
use plyfold_core::layer::TreeLimits;

use crate::fault::Ext4Fault;
use crate::fields::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK};
use crate::format::ROOT_INODE;
use crate::journal::places;
use crate::mapping::bad;
use crate::names::{check_regular, last, shown};
use crate::reader::{FileSystem, PIECE, StoredInode};
use crate::replayed::Replayed;
use crate::summary::{SUPERBLOCK_BYTES, Summary, superblock};

/// The most groups of a file system: so many of 128 MiB are 128 TiB.
const GROUPS: u64 = 1 << 20;

/// The files of an ext4 file system, also of ext2 and ext3. Nothing is written: of a journal that has to be replayed, the
/// blocks are read where they are in it.
///
/// Link counts, device numbers and extended attributes are not known to it.
///
/// ```
/// use plyfold_core::Materializer as _;
/// use plyfold_core::files::Files as _;
/// use plyfold_ext4::{Ext4Files, Ext4Upper};
///
/// let mut disk = tempfile::tempfile()?;
/// Ext4Upper::new(64 << 20)?.join(&[], &mut disk)?;
/// let names: Vec<_> = Ext4Files::new(disk)?.list(b"/")?.into_iter().map(|file| file.name).collect();
/// assert_eq!(names, [&b"lost+found"[..], b"upper", b"work"]);
/// # Ok::<(), plyfold_core::Error>(())
/// ```
pub struct Ext4Files {
    files: Box<dyn Files>,
}

impl Ext4Files {
    /// The files of the file system in a file or a device.
    ///
    /// # Errors
    /// As [`Summary::read`]; [`Corrupt`](plyfold_core::ErrorKind::Corrupt) also for a file that ends before its file system
    /// and a journal that is damaged; [`Unsupported`](plyfold_core::ErrorKind::Unsupported) for features that are not known
    /// here, and a journal to be replayed that is on another device or has fast commits;
    /// [`Limit`](plyfold_core::ErrorKind::Limit) for more than 2^20 groups of blocks, and more than 2^19 blocks or 2 GiB to
    /// be replayed.
    pub fn new(source: impl Read + Seek + 'static) -> Result<Self> {
        let (mut file_system, superblock, summary) = opened(source)?;
        if !summary.needs_recovery {
            return Self::of(file_system);
        }
        let places = places(&mut file_system, &superblock, &summary)?;
        let replayed = Replayed::new(file_system.into_source(), summary.block_size, places);
        // The superblock may be in the journal, too.
        Self::of(opened(replayed)?.0)
    }

    fn of(mut file_system: FileSystem<impl Read + Seek + 'static>) -> Result<Self> {
        // There has to be a root.
        file_system.inode(ROOT_INODE)?;
        Ok(Self { files: Box::new(file_system) })
    }
}

/// A file system, and what its superblock says.
fn opened<R: Read + Seek>(mut source: R) -> Result<(FileSystem<R>, [u8; SUPERBLOCK_BYTES], Summary)> {
    let (superblock, size) = superblock(&mut source)?;
    let summary = Summary::of(&superblock, size)?;
    if summary.groups > GROUPS {
        return Err(Ext4Fault::Groups(summary.groups, GROUPS).into());
    }
    let needed = summary.blocks.checked_mul(summary.block_size.into());
    if needed.is_none_or(|needed| needed > summary.size) {
        return Err(Ext4Fault::Cut(summary.blocks, summary.block_size, summary.size).into());
    }
    Ok((FileSystem::new(source, &superblock, &summary)?, superblock, summary))
}

impl Files for Ext4Files {
    fn file(&mut self, path: &[u8], follow: bool) -> Result<FileInfo> {
        self.files.file(path, follow)
    }

    fn list(&mut self, directory: &[u8]) -> Result<Vec<FileInfo>> {
        self.files.list(directory)
    }

    fn read(&mut self, path: &[u8], take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.files.read(path, take)
    }
}

impl<R: Read + Seek> Files for FileSystem<R> {
    fn file(&mut self, path: &[u8], follow: bool) -> Result<FileInfo> {
        let inode = self.find(path, follow)?;
        let name = if inode.number == ROOT_INODE { b"/" } else { last(path) };
        self.info(name, &inode)
    }

    fn list(&mut self, directory: &[u8]) -> Result<Vec<FileInfo>> {
        let inode = self.find(directory, true)?;
        if !inode.is(S_IFDIR) {
            return Err(FilesFault::NoDirectory(shown(directory)).into());
        }
        let most = TreeLimits::default().files;
        let mut names = Vec::new();
        self.names(&inode, |number, name| {
            if name == b"." || name == b".." {
                return Ok(false);
            }
            if names.len() as u64 >= most {
                return Err(Ext4Fault::Listed(most).into());
            }
            names.push((name.to_vec(), number));
            Ok(false)
        })?;
        names.sort_unstable();
        names
            .into_iter()
            .map(|(name, number)| self.inode(number).and_then(|inode| self.info(&name, &inode)))
            .collect()
    }

    fn read(&mut self, path: &[u8], take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let inode = self.find(path, true)?;
        check_regular(path, file_type(&inode)?)?;
        let (mut piece, mut done) = (vec![0; PIECE], 0);
        while done < inode.size {
            let run = self.run(&inode, done / self.block_size)?;
            let (start, left) = (done, inode.size - done);
            let end = start + run.count.saturating_mul(self.block_size).min(left);
            // A piece ends with a block, but for the last one.
            while done < end {
                let bytes = &mut piece[..(end - done).min(PIECE as u64) as usize];
                match run.block {
                    Some(block) => self.read(block + (done - start) / self.block_size, bytes)?,
                    None => bytes.fill(0),
                }
                take(bytes)?;
                done += bytes.len() as u64;
            }
        }
        Ok(())
    }
}

impl<R: Read + Seek> FileSystem<R> {
    fn info(&mut self, name: &[u8], inode: &StoredInode) -> Result<FileInfo> {
        let mut info = FileInfo::new(name.to_vec(), file_type(inode)?);
        (info.mode, info.uid, info.gid, info.mtime) =
            (inode.mode & 0o7777, inode.uid, inode.gid, inode.mtime);
        if inode.is(S_IFREG) || inode.is(S_IFLNK) {
            info.size = inode.size;
        }
        if inode.is(S_IFLNK) {
            info.target = Some(self.target(inode)?.into());
        }
        Ok(info)
    }
}

fn file_type(inode: &StoredInode) -> Result<FileType> {
    Ok(match inode.mode & S_IFMT {
        S_IFIFO => FileType::Fifo,
        S_IFCHR => FileType::CharDevice,
        S_IFDIR => FileType::Directory,
        S_IFBLK => FileType::BlockDevice,
        S_IFREG => FileType::Regular,
        S_IFLNK => FileType::Symlink,
        S_IFSOCK => FileType::Socket,
        _ => return Err(bad(inode, "has no type that is known")),
    })
}

impl fmt::Debug for Ext4Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ext4Files").finish_non_exhaustive()
    }
}
