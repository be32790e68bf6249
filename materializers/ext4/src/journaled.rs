//! The files of a file system whose journal has to be replayed, by the crate `ext4-view`.
//!
//! The journal has a format of its own (`journal.rst`), which is not read here: the crate does that, and is used for nothing
//! else.

use std::io::{Read, Seek, SeekFrom};

use ext4_view::{Ext4, Ext4Error, Ext4Read, FileType as Found, Metadata};
use plyfold_core::files::{FileInfo, FileType, Files, FilesFault};
use plyfold_core::layer::{Timestamp, TreeLimits};
use plyfold_core::{Error, ErrorKind, Result};

use crate::fault::Ext4Fault;
use crate::names::{check_regular, last, shown};
use crate::reader::PIECE;

/// Such files. The crate takes the journal's blocks in place of those on the disk, and writes nothing. It knows no times before
/// 1970 and after 2038, no names of more than 255 bytes in links, and no holes but in extents.
pub(crate) struct Journaled {
    file_system: Ext4,
}

impl Journaled {
    pub(crate) fn new(source: impl Read + Seek + 'static) -> Result<Self> {
        let file_system = Ext4::load(Box::new(Source(source))).map_err(|e| fault(b"/", e))?;
        Ok(Self { file_system })
    }

    fn info(&self, path: &[u8], name: &[u8], metadata: &Metadata) -> Result<FileInfo> {
        let kind = match metadata.file_type() {
            Found::BlockDevice => FileType::BlockDevice,
            Found::CharacterDevice => FileType::CharDevice,
            Found::Directory => FileType::Directory,
            Found::Fifo => FileType::Fifo,
            Found::Regular => FileType::Regular,
            Found::Socket => FileType::Socket,
            Found::Symlink => FileType::Symlink,
        };
        let mut info = FileInfo::new(name.to_vec(), kind);
        let modified = metadata.modified();
        (info.mode, info.uid, info.gid) = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
        info.mtime = Timestamp { seconds: modified.seconds(), nanos: modified.nanoseconds() };
        if matches!(kind, FileType::Regular | FileType::Symlink) {
            info.size = metadata.len();
        }
        if kind == FileType::Symlink {
            let target = self.file_system.read_link(path).map_err(|e| fault(path, e))?;
            info.target = Some(AsRef::<[u8]>::as_ref(&target).into());
        }
        Ok(info)
    }
}

impl Files for Journaled {
    fn file(&mut self, path: &[u8], follow: bool) -> Result<FileInfo> {
        let absolute = absolute(path);
        let failed = |e| fault(path, e);
        let metadata = if follow || path.ends_with(b"/") {
            self.file_system.metadata(&*absolute)
        } else {
            self.file_system.symlink_metadata(&*absolute)
        };
        let metadata = metadata.map_err(failed)?;
        let mut name = last(path);
        if metadata.is_dir() {
            let real = self.file_system.canonicalize(&*absolute).map_err(failed)?;
            if AsRef::<[u8]>::as_ref(&real) == b"/" {
                name = b"/";
            }
        }
        self.info(&absolute, name, &metadata)
    }

    fn list(&mut self, directory: &[u8]) -> Result<Vec<FileInfo>> {
        let failed = |e| fault(directory, e);
        let path = absolute(directory);
        let most = TreeLimits::default().files;
        let mut found = Vec::new();
        for entry in self.file_system.read_dir(&*path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let name: &[u8] = name.as_ref();
            if name == b"." || name == b".." {
                continue;
            }
            if found.len() as u64 >= most {
                return Err(Ext4Fault::Listed(most).into());
            }
            let file = [&path[..], b"/", name].concat();
            found.push(self.info(&file, name, &entry.metadata().map_err(failed)?)?);
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    fn read(&mut self, path: &[u8], take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let failed = |e| fault(path, e);
        check_regular(path, self.file(path, true)?.kind)?;
        let mut file = self.file_system.open(&*absolute(path)).map_err(failed)?;
        let mut piece = vec![0; PIECE];
        loop {
            // A block at a time.
            let mut filled = 0;
            while filled < piece.len() {
                match file.read_bytes(&mut piece[filled..]).map_err(failed)? {
                    0 => break,
                    count => filled += count,
                }
            }
            if filled == 0 {
                return Ok(());
            }
            take(&piece[..filled])?;
        }
    }
}

/// What the file system is in.
struct Source<R>(R);

impl<R: Read + Seek> Ext4Read for Source<R> {
    fn read(
        &mut self,
        start: u64,
        bytes: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        self.0.seek(SeekFrom::Start(start))?;
        Ok(self.0.read_exact(bytes)?)
    }
}

fn absolute(path: &[u8]) -> Vec<u8> {
    [b"/", path].concat()
}

fn fault(path: &[u8], error: Ext4Error) -> Error {
    match error {
        Ext4Error::NotFound => FilesFault::Missing(shown(path)).into(),
        Ext4Error::IsADirectory => FilesFault::Directory(shown(path)).into(),
        Ext4Error::NotADirectory => FilesFault::NoDirectory(shown(path)).into(),
        Ext4Error::Io(source) => Error::new(ErrorKind::Io, "reading the file system").with_source(source),
        Ext4Error::Encrypted => Ext4Fault::Encrypted.into(),
        Ext4Error::Incompatible(what) => Ext4Fault::Unknown(what.to_string()).into(),
        Ext4Error::Corrupt(what) => Ext4Fault::Unreadable(what.to_string()).into(),
        other => Ext4Fault::Path(shown(path), other.to_string()).into(),
    }
}
