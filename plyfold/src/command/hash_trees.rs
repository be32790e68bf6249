//! The hash trees in the partitions of a disk.

use std::io;

use crate::disk_file::{DiskFormat, format_within};
use crate::materializers::disk::PartitionInfo;
use crate::materializers::erofs::Summary;
use crate::materializers::verity::{TreeLayout, Uuid};
use crate::{Error, ReadAt, Result, Slice, is_zero};

/// What the name of a partition with a tree has behind the name of the image's.
const HOLDER: &str = "-verity";
/// What the size of a disk in a VMDK of one file is a multiple of, and that of the data of a raw disk.
const MIB: u64 = 1 << 20;
const RAW: u64 = 2 << 20;
/// What a superblock of dm-verity begins with.
const SIGNATURE: &[u8; 8] = b"verity\0\0";

/// What a partition is for dm-verity.
pub(crate) enum Role<'a> {
    /// An image with a hash tree.
    Hashed(Box<Hashed<'a>>),
    /// The hash tree of the image in the partition of this place in the list, or of none that is known.
    Tree(Option<usize>),
    /// Anything else.
    Other,
}

/// An image with a hash tree.
pub(crate) struct Hashed<'a> {
    pub(crate) layout: TreeLayout,
    pub(crate) uuid: Uuid,
    /// The place in the list of the partition that the tree is in.
    pub(crate) holder: usize,
    pub(crate) data: Slice<'a>,
    pub(crate) tree: Slice<'a>,
}

/// What a tree is of, in words.
pub(crate) fn blocks(layout: &TreeLayout) -> String {
    let (blocks, bytes) = (layout.data_blocks(), layout.parameters().data_block_size());
    let unit = if blocks == 1 { "block" } else { "blocks" };
    format!("{blocks} {unit} of {bytes} bytes")
}

/// What the partition is at this place of the list.
///
/// A tree is behind the image in the image's partition, or in a partition of its own, which has the name of the image's
/// and `-verity` behind it. What a superblock says is not verified.
pub(crate) fn role<'a>(disk: &'a dyn ReadAt, list: &[PartitionInfo], index: usize) -> Result<Role<'a>> {
    let Some(own) = list.get(index) else { return Ok(Role::Other) };
    let data = slice(disk, own);
    if begins_a_tree(&data)? {
        let name = own.name.strip_suffix(HOLDER);
        let image = list.iter().position(|of| Some(of.name.as_str()) == name);
        // Of several with the name of the tree, one is verified.
        return Ok(Role::Tree(image.filter(|_| name.and_then(|name| holder(list, name)) == Some(index))));
    }
    let apart = holder(list, &own.name);
    if let Some((holder, of)) = apart.and_then(|holder| Some((holder, list.get(holder)?))) {
        let tree = slice(disk, of);
        if begins_a_tree(&tree)? {
            let (layout, uuid) = TreeLayout::read(&tree, 0)?;
            layout.check_covers(own.size)?;
            return Ok(Role::Hashed(Box::new(Hashed { layout, uuid, holder, data, tree })));
        }
    }
    Ok(match TreeLayout::find(&data)? {
        Some((layout, uuid)) => {
            Role::Hashed(Box::new(Hashed { layout, uuid, holder: index, data, tree: data }))
        }
        None => Role::Other,
    })
}

/// The place of the partition with the tree of the image of this name.
fn holder(list: &[PartitionInfo], name: &str) -> Option<usize> {
    list.iter().position(|of| of.name.strip_suffix(HOLDER) == Some(name))
}

/// The tree behind all data of a file system, if there is one.
///
/// It ends where the file does. A VMDK in one file has the size of complete MiB, so that zeros may follow the tree: it is then where
/// the superblock of an EROFS image says that the data ends, or at the end of the 2 MiB in which that is, as of a raw disk.
pub(crate) fn behind(part: &Slice<'_>) -> Result<Option<(TreeLayout, Uuid)>> {
    if let Some(found) = TreeLayout::find(part)? {
        return Ok(Some(found));
    }
    if format_within(*part)? != Some(DiskFormat::Erofs) {
        return Ok(None);
    }
    // What is no sound image is for others to say.
    let Ok(summary) = Summary::read(*part) else { return Ok(None) };
    let size = part.size().map_err(reading)?;
    let devices = summary.devices.iter().map(|of| u64::from(of.start) + u64::from(of.blocks));
    let end = devices.fold(summary.blocks, u64::max).saturating_mul(summary.block_size.into());
    for unit in [1, 4096, RAW] {
        let Some(offset) = end.checked_next_multiple_of(unit).filter(|offset| *offset < size) else {
            continue;
        };
        let rest = Slice::new(part, offset, size - offset);
        if !begins_a_tree(&rest)? {
            continue;
        }
        let (layout, uuid) = TreeLayout::read(part, offset)?;
        let is_behind =
            layout.data_size().next_multiple_of(layout.parameters().hash_block_size().into()) == offset;
        if is_behind && is_padding(part, layout.end(), size)? {
            return Ok(Some((layout, uuid)));
        }
    }
    Ok(None)
}

/// Whether nothing but zeros follows, less than a MiB.
fn is_padding(part: &Slice<'_>, start: u64, end: u64) -> Result<bool> {
    let Some(length) = end.checked_sub(start).filter(|length| *length < MIB) else { return Ok(false) };
    let mut bytes = vec![0; length as usize];
    part.read_exact_at(&mut bytes, start).map_err(reading)?;
    Ok(is_zero(&bytes))
}

fn reading(error: io::Error) -> Error {
    Error::io("reading a disk", error)
}

/// The bytes of a partition.
pub(crate) fn slice<'a>(disk: &'a dyn ReadAt, partition: &PartitionInfo) -> Slice<'a> {
    Slice::new(disk, partition.start, partition.size)
}

/// Whether a superblock of dm-verity stands at the start.
pub(crate) fn begins_a_tree(part: &Slice<'_>) -> Result<bool> {
    let mut start = [0; SIGNATURE.len()];
    match part.read_exact_at(&mut start, 0) {
        Ok(()) => Ok(start == *SIGNATURE),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(reading(e)),
    }
}
