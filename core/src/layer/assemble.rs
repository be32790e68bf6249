//! A header and its extensions become one entry, whatever dialect each is of.

use super::fault::TarFault;
use super::header::Header;
use super::pax::Pax;
use super::sparse::Sparse;
use super::{Entry, EntryKind, FileKind, ImagePath, LayerLimits, Metadata};
use crate::{Error, Result, Size};

/// What stood before a header and belongs to its entry.
#[derive(Default)]
pub(super) struct Extensions {
    /// GNU `L`.
    pub(super) long_name: Option<Vec<u8>>,
    /// GNU `K`.
    pub(super) long_link: Option<Vec<u8>>,
    /// PAX `x`.
    pub(super) pax: Option<Pax>,
}

/// The entry that `header` is the last part of.
///
/// # Errors
/// [`Corrupt`](crate::ErrorKind::Corrupt), [`Limit`](crate::ErrorKind::Limit),
/// [`Ambiguous`](crate::ErrorKind::Ambiguous), [`Unsupported`](crate::ErrorKind::Unsupported).
pub(super) fn entry(
    header: &Header<'_>,
    long: &Extensions,
    pax: &Pax,
    sparse: Option<Sparse>,
    limits: &LayerLimits,
) -> Result<Entry> {
    let path = path(header, long, pax, limits)?;
    let kind = kind(header, long, pax, sparse, limits).map_err(|e| e.with_context("path", &path))?;
    if path.is_root() && kind != EntryKind::Node(FileKind::Directory(())) {
        return Err(TarFault::Malformed("an entry has no name").into());
    }
    let metadata = metadata(header, pax, limits).map_err(|e| e.with_context("path", &path))?;
    Ok(Entry { path, kind, metadata })
}

/// Where the entry stands in the image.
///
/// # Errors
/// [`Ambiguous`](crate::ErrorKind::Ambiguous) when its GNU and its PAX name differ, and those of the path.
pub(super) fn path(
    header: &Header<'_>,
    long: &Extensions,
    pax: &Pax,
    limits: &LayerLimits,
) -> Result<ImagePath> {
    ImagePath::within(&name(header, long.long_name.as_deref(), pax)?, limits)
}

/// Bytes of data that stand behind the header. PAX wins over the header always: readers that disagreed here
/// could be made to see entries inside a file's data (CVE-2025-62518).
pub(super) fn stored(header: &Header<'_>, pax: &Pax, long_name: Option<&[u8]>) -> Result<u64> {
    // Read for every type: an invalid size is refused on directories, too.
    let size = pax.number("size")?.map_or_else(|| header.size(), Ok)?;
    Ok(match header.typeflag() {
        // Links, devices, directories and FIFOs have none, whatever their size field says.
        b'1'..=b'6' => 0,
        b'\0' if name(header, long_name, pax)?.ends_with(b"/") => 0,
        _ => size,
    })
}

/// Whether an entry of this type stands for something in an image, or is refused: `M` continues a file whose
/// first part is in another volume.
pub(super) fn is_known(typeflag: u8) -> bool {
    is_file(typeflag) || matches!(typeflag, b'1'..=b'6' | b'D' | b'M')
}

/// Whether the entry is a regular file, if its name does not say that it is a directory.
pub(super) fn is_file(typeflag: u8) -> bool {
    matches!(typeflag, b'\0' | b'0' | b'7' | b'S')
}

fn name(header: &Header<'_>, long_name: Option<&[u8]>, pax: &Pax) -> Result<Vec<u8>> {
    // A sparse file's other name is a stand-in for readers that do not know the format.
    if let Some(name) = pax.text("GNU.sparse.name").filter(|_| is_file(header.typeflag())) {
        return Ok(name.to_vec());
    }
    let text = one(long_name, pax.text("path"), "names")?;
    Ok(text.map_or_else(|| header.path(), <[u8]>::to_vec))
}

/// The value of the GNU or the PAX extension. Both with different values is an error: readers disagree which one
/// counts.
fn one<'a>(gnu: Option<&'a [u8]>, pax: Option<&'a [u8]>, what: &'static str) -> Result<Option<&'a [u8]>> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => Err(TarFault::Two(what).into()),
        (gnu, pax) => Ok(gnu.or(pax)),
    }
}

fn kind(
    header: &Header<'_>,
    long: &Extensions,
    pax: &Pax,
    sparse: Option<Sparse>,
    limits: &LayerLimits,
) -> Result<EntryKind> {
    let link = || {
        let text = one(long.long_link.as_deref(), pax.text("linkpath"), "link targets")?;
        let target = text.unwrap_or_else(|| header.link_name());
        match target {
            b"" => Err(TarFault::Malformed("a link has no target").into()),
            _ if target.contains(&0) => Err(TarFault::Malformed("a link's target has a NUL byte").into()),
            // Linux' PATH_MAX counts the NUL at the end.
            _ if target.len() >= limits.path => {
                Err(Error::from(TarFault::LinkLong(target.len(), limits.path - 1)))
            }
            _ => Ok(target),
        }
    };
    Ok(match header.typeflag() {
        // Before typeflags had a directory, a slash at the end made one. GNU tar and bsdtar read every type of
        // file so, whatever data it has.
        b'\0' | b'0' | b'7' if name(header, long.long_name.as_deref(), pax)?.ends_with(b"/") => {
            EntryKind::Node(FileKind::Directory(()))
        }
        flag if is_file(flag) => file(stored(header, pax, long.long_name.as_deref())?, sparse, limits)?,
        b'1' => EntryKind::HardLink { target: ImagePath::within(link()?, limits)? },
        b'2' => EntryKind::Node(FileKind::Symlink { target: link()?.into() }),
        b'3' => {
            let (major, minor) = device(header, pax)?;
            EntryKind::Node(FileKind::CharDevice { major, minor })
        }
        b'4' => {
            let (major, minor) = device(header, pax)?;
            EntryKind::Node(FileKind::BlockDevice { major, minor })
        }
        // `D` is GNU's directory with a list of its names as data.
        b'5' | b'D' => EntryKind::Node(FileKind::Directory(())),
        b'6' => EntryKind::Node(FileKind::Fifo),
        other => return Err(TarFault::Type(char::from(other)).into()),
    })
}

fn file(stored: u64, sparse: Option<Sparse>, limits: &LayerLimits) -> Result<EntryKind> {
    let (size, content) = match sparse {
        None => (stored, None),
        Some(sparse) => {
            let map_bytes = stored.checked_sub(sparse.map_bytes);
            sparse.check(
                map_bytes.ok_or(TarFault::Malformed("a sparse file's map is larger than its data"))?,
            )?;
            (sparse.size, (stored - sparse.map_bytes != sparse.size).then_some(sparse.extents))
        }
    };
    if size > limits.file {
        return Err(TarFault::FileSize(Size(size).beyond(Size(limits.file))).into());
    }
    Ok(EntryKind::Node(FileKind::File { size, content }))
}

fn device(header: &Header<'_>, pax: &Pax) -> Result<(u32, u32)> {
    let (major, minor) = (pax.number("SCHILY.devmajor")?, pax.number("SCHILY.devminor")?);
    let (major, minor) = match (major, minor) {
        (Some(major), Some(minor)) => (major, minor),
        _ => header.device()?,
    };
    // Linux' dev_t has 12 and 20 bits.
    if major > 0xfff || minor > 0xf_ffff {
        return Err(TarFault::Device(major, minor).into());
    }
    Ok((major, minor))
}

fn metadata(header: &Header<'_>, pax: &Pax, limits: &LayerLimits) -> Result<Metadata> {
    Ok(Metadata {
        mode: header.mode()?,
        uid: pax.number("uid")?.map_or_else(|| header.uid(), Ok)?,
        gid: pax.number("gid")?.map_or_else(|| header.gid(), Ok)?,
        mtime: pax.mtime()?.map_or_else(|| header.mtime(), Ok)?,
        xattrs: pax.xattrs(limits)?,
    })
}
