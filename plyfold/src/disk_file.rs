//! Files that are disks: what they are, and the files in them, without mounting them and without root.
//!
//! ```
//! use plyfold::disk_file::{DiskFormat, files, format_of};
//! use plyfold::materializers::ext4::Ext4Upper;
//! use plyfold::Materializer as _;
//!
//! let disk = tempfile::NamedTempFile::new()?;
//! Ext4Upper::new(64 << 20)?.join(&[], &mut disk.reopen()?)?;
//! assert_eq!(format_of(disk.path())?, Some(DiskFormat::Ext4));
//! assert_eq!(files(disk.path())?.list(b"/")?.len(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use plyfold_core::files::Files;
use plyfold_core::{Error, ReadAt, Result, Slice, data_from, reopened};
use plyfold_disk::{Partitions, has_partitions};
use plyfold_erofs::{DeviceSummary, ErofsFiles, Reader, Summary};
use plyfold_ext4::Ext4Files;
use plyfold_vmdk::{Descriptor, FlatDisk, MAX_DESCRIPTOR, SparseDisk};

/// Bytes from the start of a file that say what it is.
const START: u64 = 4096;
/// How a VMDK descriptor begins, and how a binary VMDK does.
const DESCRIPTOR: &[u8] = b"# Disk DescriptorFile";
const SPARSE: &[u8] = b"KDMV";

/// What a disk is by its first bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DiskFormat {
    /// An EROFS image.
    Erofs,
    /// An ext4 file system, or one of its predecessors.
    Ext4,
    /// A disk with a GUID partition table.
    Gpt,
    /// A VMDK descriptor: text that names the files of a disk.
    Vmdk,
    /// A VMDK in one binary file.
    SparseVmdk,
}

/// What a file or a block device is, by its first bytes and never by its name; `None` for what is no disk that is known
/// here, and for what cannot be read twice, such as a pipe.
///
/// # Errors
/// [`NotFound`](crate::ErrorKind::NotFound) and [`Io`](crate::ErrorKind::Io).
pub fn format_of(path: &Path) -> Result<Option<DiskFormat>> {
    let kind = fs::metadata(path).map_err(|e| at(path, e))?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Ok(None);
    }
    let mut start = Vec::new();
    open(path)?.take(START).read_to_end(&mut start).map_err(|e| at(path, e))?;
    Ok(format_by(&start))
}

fn format_by(start: &[u8]) -> Option<DiskFormat> {
    if Summary::is_image(start) {
        Some(DiskFormat::Erofs)
    } else if plyfold_ext4::Summary::is_file_system(start) {
        Some(DiskFormat::Ext4)
    } else if has_partitions(start) {
        Some(DiskFormat::Gpt)
    } else if start.starts_with(DESCRIPTOR) {
        Some(DiskFormat::Vmdk)
    } else if start.starts_with(SPARSE) {
        Some(DiskFormat::SparseVmdk)
    } else {
        None
    }
}

/// What a guest reads of a disk: the bytes of a file, or those of the disk that a VMDK is.
pub struct DiskBytes(Source);

enum Source {
    File(File),
    Flat(Mutex<FlatDisk>),
    Sparse(Mutex<SparseDisk<File>>),
}

impl DiskBytes {
    /// Opens a disk, or any other file, whose bytes are taken as they are.
    ///
    /// # Errors
    /// Those of [`format_of`], [`descriptor`], [`FlatDisk`] and [`SparseDisk`].
    pub fn open(path: &Path) -> Result<Self> {
        let source = match format_of(path)? {
            Some(DiskFormat::Vmdk) => {
                let flat = FlatDisk::new(&descriptor(path)?, path.parent().unwrap_or(path));
                Source::Flat(Mutex::new(flat.map_err(|e| e.with_context("path", path.display()))?))
            }
            Some(DiskFormat::SparseVmdk) => {
                let sparse =
                    SparseDisk::new(open(path)?).map_err(|e| e.with_context("path", path.display()))?;
                Source::Sparse(Mutex::new(sparse))
            }
            _ => Source::File(open(path)?),
        };
        Ok(Self(source))
    }

    /// The same of a file that is open, by a descriptor with a position of its own.
    pub(crate) fn of_file(file: &File) -> Result<Self> {
        reopened(file)
            .map(|file| Self(Source::File(file)))
            .map_err(|e| Error::io("opening the file again", e))
    }

    /// Whether it is the disk of a VMDK, and not a file as it is.
    pub fn is_of_vmdk(&self) -> bool {
        !matches!(self.0, Source::File(_))
    }

    fn source(&self) -> &dyn ReadAt {
        match &self.0 {
            Source::File(file) => file,
            Source::Flat(disk) => disk,
            Source::Sparse(disk) => disk,
        }
    }
}

impl ReadAt for DiskBytes {
    fn size(&self) -> io::Result<u64> {
        self.source().size()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.source().read_exact_at(buffer, offset)
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<u64>> {
        match &self.0 {
            // Nothing else has its position.
            Source::File(file) => data_from(file, offset),
            Source::Flat(disk) => disk.lock().unwrap_or_else(PoisonError::into_inner).data_from(offset),
            Source::Sparse(disk) => disk.lock().unwrap_or_else(PoisonError::into_inner).data_from(offset),
        }
    }
}

impl fmt::Debug for DiskBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskBytes").finish_non_exhaustive()
    }
}

/// What a part of a disk is, by its first bytes.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io), and what is wrong with a VMDK that the part is in.
pub fn format_within(mut part: Slice<'_>) -> Result<Option<DiskFormat>> {
    start_of(&mut part, START)
}

/// The files in a disk: of an EROFS image, of an ext4 file system, and of one of these in the disk of a VMDK. Of partitions
/// it is the first with such; those behind it are the devices of an EROFS image.
///
/// # Errors
/// Those of [`format_of`], [`Reader`], [`Ext4Files`], [`Partitions`], [`FlatDisk`] and [`SparseDisk`];
/// [`Unsupported`](crate::ErrorKind::Unsupported) for what is none of these.
pub fn files(path: &Path) -> Result<Box<dyn Files>> {
    let opened = match format_of(path)? {
        Some(DiskFormat::Vmdk) => of_descriptor(path),
        Some(DiskFormat::SparseVmdk) => SparseDisk::new(open(path)?).and_then(of_disk),
        Some(_) => of_disk(open(path)?),
        None => Err(Error::unsupported(
            "the file is no EROFS image, no ext4 file system, no VMDK and no disk of these",
        )),
    };
    opened.map_err(|e| e.with_context("path", path.display()))
}

/// The descriptor in a file.
///
/// # Errors
/// Those of [`Descriptor::parse`]; [`Io`](crate::ErrorKind::Io).
pub fn descriptor(path: &Path) -> Result<Descriptor> {
    let mut text = Vec::new();
    let read = open(path)?.take(MAX_DESCRIPTOR as u64 + 1).read_to_end(&mut text);
    read.map_err(|e| at(path, e))?;
    let text = String::from_utf8(text).map_err(|_| Error::corrupt("the VMDK descriptor is not UTF-8"));
    text.and_then(|text| Descriptor::parse(&text)).map_err(|e| e.with_context("path", path.display()))
}

fn of_descriptor(path: &Path) -> Result<Box<dyn Files>> {
    of_disk(FlatDisk::new(&descriptor(path)?, path.parent().unwrap_or(path))?)
}

/// The files in a file system, or in the one of the first partition.
fn of_disk(mut disk: impl Read + io::Seek + 'static) -> Result<Box<dyn Files>> {
    match start_of(&mut disk, START)? {
        Some(DiskFormat::Gpt) => of_partitions(Partitions::new(disk)?),
        format => of_file_system(disk, format),
    }
}

fn of_partitions(mut partitions: Partitions<impl Read + io::Seek + 'static>) -> Result<Box<dyn Files>> {
    let sizes: Vec<u64> = partitions.list().iter().map(|partition| partition.size).collect();
    for (index, size) in sizes.iter().enumerate() {
        partitions = partitions.starting_with(index);
        match start_of(&mut partitions, START.min(*size))? {
            Some(DiskFormat::Erofs) => {
                let image = Summary::read(&mut partitions)?;
                let start = |device: &DeviceSummary| u64::from(device.start) * u64::from(image.block_size);
                let places: Vec<u64> = image.devices.iter().map(start).collect();
                return of_file_system(partitions.with_places(&places)?, Some(DiskFormat::Erofs));
            }
            Some(DiskFormat::Ext4) => return of_file_system(partitions, Some(DiskFormat::Ext4)),
            _ => {}
        }
    }
    let count = sizes.len();
    Err(Error::unsupported(format!(
        "there is no EROFS image and no ext4 file system in the partitions of the disk, of which it has {count}"
    )))
}

fn of_file_system(
    source: impl Read + io::Seek + 'static,
    format: Option<DiskFormat>,
) -> Result<Box<dyn Files>> {
    match format {
        Some(DiskFormat::Erofs) => Ok(Box::new(ErofsFiles::new(Reader::new(source)?)?)),
        Some(DiskFormat::Ext4) => Ok(Box::new(Ext4Files::new(source)?)),
        _ => Err(Error::unsupported("there is no EROFS image and no ext4 file system on the disk")),
    }
}

/// What begins with so many bytes at most.
fn start_of(disk: &mut (impl Read + io::Seek), most: u64) -> Result<Option<DiskFormat>> {
    let mut start = Vec::new();
    let read = disk.rewind().and_then(|()| disk.take(most).read_to_end(&mut start));
    read.map_err(|e| Error::io("reading the disk", e))?;
    Ok(format_by(&start))
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| at(path, e))
}

fn at(path: &Path, error: io::Error) -> Error {
    open_error("reading a disk", error).with_context("path", path.display())
}

/// The error of opening a file that the caller has named.
pub(crate) fn open_error(action: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::not_found("no such file"),
        _ => Error::io(action, error),
    }
}
