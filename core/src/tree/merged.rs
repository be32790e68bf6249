//! An image as a tree, with the bytes of its files.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::layer::{Compression, DataExtent, LayerSummary, LayerTar, TreeLimits};
use crate::range_write::RangeWrite;
use crate::{Digest, Error, Result, is_zero};

use super::{
    DroppedXattrs, Kind, LayerTree, LayerTreeBuilder, NodeId, Tree, TreeFault, is_kept_xattr,
    is_overlay_xattr,
};

mod data;
mod source;
mod spool;

pub use data::FileData;
pub(crate) use data::Watched;
pub use source::{LayerContent, LayerFile, LayerReader, LayerRun, LayerSource};

use data::{Contents, Place, Run, Runs};
use spool::Gathered;

/// Runs from so many bytes on are copied by the kernel: smaller ones take longer that way.
const BY_KERNEL: u64 = 64 << 10;
/// Bytes of other runs that are copied at once.
const PIECE: usize = 64 << 10;
/// What holes are made of.
const BLOCK: u64 = 4096;

/// An image whose layers have been read to their verified ends and stacked, with the content of every file: what a
/// format for whole images is written from.
///
/// Content lies where a layer has it: in a tar that is a file of this machine and not compressed
/// ([`LayerTar::in_file`]), or in the file that some format has made of the layer ([`LayerFile`]). Content of other layers
/// lies in a file without a name in the folder that [`MergedTree::read`] is given, and is gone when the tree is
/// dropped; files that upper layers replace take room there, too. Memory holds the metadata alone, within the
/// [`TreeLimits`].
///
/// What is read does not depend on where content lies, but for the order of [`NodeId`]s, for what
/// [`MergedTree::extents`] tells of zeros, and for its files. So a format puts files in the order of their names, and finds
/// holes by the bytes (rule M 266 `content_makes_the_same_bytes_wherever_it_lies`).
///
/// Extended attributes that no layer's file keeps ([`is_kept_xattr`]) are left out, but by
/// [`with_every_xattr`](Self::with_every_xattr), and always those of overlayfs: a layer must not set those.
///
/// ```
/// use plyfold_core::layer::{LayerOptions, LayerTar, TreeLimits};
/// use plyfold_core::tree::{Kind, MergedTree};
///
/// let mut header = tar::Header::new_ustar();
/// header.set_path("hello")?;
/// header.set_mode(0o644);
/// header.set_size(5);
/// header.set_cksum();
/// let mut layer = tar::Builder::new(Vec::new());
/// layer.append(&header, &b"world"[..])?;
/// let layer = std::io::Cursor::new(layer.into_inner()?);
///
/// let scratch = tempfile::tempdir()?;
/// let layers = [LayerTar::new(layer, LayerOptions::default())];
/// let image = MergedTree::read(layers, TreeLimits::default(), scratch.path())?;
/// for (path, id) in image.tree().walk() {
///     if let Kind::File { size, .. } = image.tree().node(id).kind {
///         let mut content = vec![0; size as usize];
///         image.read_at(id, 0, &mut content)?;
///         assert_eq!((path.as_bytes(), &*content), (&b"hello"[..], &b"world"[..]));
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MergedTree {
    tree: Tree<FileData>,
    contents: Contents,
    diff_ids: Vec<Option<Digest>>,
    summaries: Vec<LayerSummary>,
    dropped: DroppedXattrs,
}

/// A run of a file's data.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Extent<'a> {
    /// The open file that has the bytes: for `copy_file_range` and `FICLONERANGE`.
    pub file: &'a File,
    /// The first byte there. In a run of 4,096 bytes or more it mostly lies as far behind a multiple of 4,096 as
    /// [`offset`](Self::offset) does, so that file systems can share blocks; in a tar it does not.
    pub at: u64,
    /// The first byte in the file of the image.
    pub offset: u64,
    /// Bytes in the run, not 0.
    pub length: u64,
}

impl MergedTree {
    /// The most files of layers that are held open. Content of further layers is copied.
    pub const OPEN_FILES: usize = spool::OPEN_FILES;

    /// Reads the layers, bottom first, each to its verified end. Waits for them, so it is for a thread that may wait.
    ///
    /// Content that lies in no file goes to one in the folder `scratch`, which is made if there is none: give it one on a
    /// disk, such as the cache's own.
    ///
    /// # Errors
    /// What `layers` yields; those of [`LayerTar`] and of [`Tree::from_layers`]; [`Io`](crate::ErrorKind::Io) from
    /// `scratch`. A bad layer is an error, whatever stands in it before the fault.
    pub fn read(
        layers: impl IntoIterator<Item = Result<LayerTar>>,
        limits: TreeLimits,
        scratch: &Path,
    ) -> Result<Self> {
        Self::from_sources(layers.into_iter().map(|layer| layer.map(LayerSource::from)), limits, scratch)
    }

    /// As [`MergedTree::read`], of layers that some format has made a file of, too.
    ///
    /// Such a file was verified when it was made, and what is read of it is not verified here.
    ///
    /// # Errors
    /// As [`MergedTree::read`]; those of [`LayerReader::read`].
    pub fn from_sources(
        layers: impl IntoIterator<Item = Result<LayerSource>>,
        limits: TreeLimits,
        scratch: &Path,
    ) -> Result<Self> {
        Self::gather(layers, limits, scratch, is_kept_xattr)
    }

    /// As [`MergedTree::from_sources`], for what holds attributes of every name, such as a tar: only overlayfs' own are left
    /// out. The [files](LayerFile) of layers have to be such that nothing was left out of them
    /// ([`Made::losses`](crate::Made::losses)).
    ///
    /// # Errors
    /// As [`MergedTree::from_sources`].
    pub fn with_every_xattr(
        layers: impl IntoIterator<Item = Result<LayerSource>>,
        limits: TreeLimits,
        scratch: &Path,
    ) -> Result<Self> {
        Self::gather(layers, limits, scratch, |name| !is_overlay_xattr(name))
    }

    fn gather(
        layers: impl IntoIterator<Item = Result<LayerSource>>,
        limits: TreeLimits,
        scratch: &Path,
        keeps: fn(&[u8]) -> bool,
    ) -> Result<Self> {
        let mut gathered = Gathered::new(scratch);
        let each = limits.clone();
        let (mut diff_ids, mut summaries) = (Vec::new(), Vec::new());
        let mut dropped = DroppedXattrs::default();
        let trees = layers.into_iter().map(|layer| {
            let (tree, diff_id) = match layer? {
                LayerSource::File(file) => of_file(file, each.clone(), &mut gathered)?,
                LayerSource::Tar(tar) => {
                    let (tree, summary) = of_tar(*tar, each.clone(), &mut gathered, (keeps, &mut dropped))?;
                    let diff_id = summary.diff_id.clone();
                    summaries.push(summary);
                    (tree, diff_id)
                }
            };
            diff_ids.push(diff_id);
            Ok(tree)
        });
        let tree = Tree::from_layers_within(trees, limits)?;
        Ok(Self { tree, contents: gathered.finish()?, diff_ids, summaries, dropped })
    }

    /// Checks that no file that content lies in was written to since it was read, as far as its size and the time of its
    /// last write show; where the time is another, the tar of a layer that was [hashed](crate::layer::Hashing) is hashed
    /// again, as caches set the time of blobs that are used. To be asked when all content has been used, and before what
    /// was made of it is shown to others.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when one was; [`Io`](crate::ErrorKind::Io).
    pub fn check_unchanged(&self) -> Result<()> {
        self.contents.files.iter().try_for_each(Watched::check)
    }

    /// The digests of the layers' uncompressed tars, bottom first, in which formats see which image it is. `None` for a
    /// layer that was read without [hashing](crate::layer::Hashing) it.
    pub fn diff_ids(&self) -> &[Option<Digest>] {
        &self.diff_ids
    }

    /// What is known of the layers that were read as they came, bottom first, and not out of a [file](LayerFile).
    pub fn summaries(&self) -> &[LayerSummary] {
        &self.summaries
    }

    /// Attributes of the layers' tars that no Linux file system stores, and that are not in the tree. What was left out of
    /// a [file of a layer](LayerFile) is not among them.
    pub fn dropped_xattrs(&self) -> &DroppedXattrs {
        &self.dropped
    }

    /// Names, kinds, owners, times and extended attributes.
    pub fn tree(&self) -> &Tree<FileData> {
        &self.tree
    }

    /// Reads the bytes of a regular file from `offset` on, holes as zeros; how many there were. Fewer than `buffer`
    /// takes are the last ones of the file; what is no regular file has none.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) from the disk.
    ///
    /// # Panics
    /// When `file` is of another, larger tree.
    pub fn read_at(&self, file: NodeId, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let Kind::File { size, content } = &self.tree.node(file).kind else { return Ok(0) };
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = buffer.len().min(left);
        let buffer = &mut buffer[..count];
        let end = offset + count as u64;
        let read = |buffer: &mut [u8], place: Place, behind: u64| {
            let file = self.contents.file(place.file())?;
            let read = file.read_exact_at(buffer, place.offset() + behind);
            read.map_err(|e| Error::io("reading the image's content back", e))
        };
        if count == 0 {
            return Ok(0);
        }
        let Some(runs) = &content.runs else {
            read(buffer, content.at, offset)?;
            return Ok(count);
        };
        buffer.fill(0);
        let first = runs.partition_point(|run| run.offset + run.length <= offset);
        for run in runs[first..].iter().take_while(|run| run.offset < end) {
            let from = run.offset.max(offset);
            let to = (run.offset + run.length).min(end);
            let part = (from - offset) as usize..(to - offset) as usize;
            read(&mut buffer[part], run.at, from - run.offset)?;
        }
        Ok(count)
    }

    /// Writes `length` bytes of a regular file, from `offset` on, to `out` where that stands: by
    /// [`RangeWrite::copy_range`] where they are many, so that blocks are shared where that is possible. Holes are written as
    /// zeros.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) from the disk and from `out`, also when the file has fewer bytes.
    ///
    /// # Panics
    /// When `file` is of another, larger tree.
    pub fn copy_to(&self, file: NodeId, offset: u64, length: u64, out: &mut dyn RangeWrite) -> Result<()> {
        let end = offset.saturating_add(length);
        let mut buffer = vec![0; PIECE.min(usize::try_from(length).unwrap_or(PIECE))];
        let mut at = offset;
        for extent in self.extents(file) {
            let (from, to) = (extent.offset.max(offset), (extent.offset + extent.length).min(end));
            if to <= from || to - from < BY_KERNEL {
                continue;
            }
            self.copy_pieces(file, at..from, out, &mut buffer)?;
            let copied = out.copy_range(extent.file, extent.at + from - extent.offset, to - from);
            copied.map_err(|e| Error::io("copying an image's content", e))?;
            at = to;
        }
        self.copy_pieces(file, at..end, out, &mut buffer)
    }

    fn copy_pieces(
        &self,
        file: NodeId,
        range: std::ops::Range<u64>,
        out: &mut dyn RangeWrite,
        buffer: &mut [u8],
    ) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let count = (range.end - at).min(buffer.len() as u64) as usize;
            let count = self.read_at(file, at, &mut buffer[..count])?;
            if count == 0 {
                return Err(TreeFault::Malformed("more bytes of a file are wanted than it has").into());
            }
            out.write_all(&buffer[..count]).map_err(|e| Error::io("copying an image's content", e))?;
            at += count as u64;
        }
        Ok(())
    }

    /// Whether a regular file may have a run of so many blocks of zeros or more, of 4,096 bytes each from its start on; the
    /// file's end may cut the last one. `false` is certain, and found by a look at a few bytes; `true` is not certain.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) from the disk.
    ///
    /// # Panics
    /// When `file` is of another, larger tree.
    pub fn may_have_holes(&self, file: NodeId, blocks: u64) -> Result<bool> {
        let Kind::File { size, .. } = self.tree.node(file).kind else { return Ok(false) };
        if size.div_ceil(BLOCK) < blocks.max(1) {
            return Ok(false);
        }
        let step = blocks.max(1).saturating_mul(BLOCK);
        let mut block = [0; BLOCK as usize];
        // One of so many blocks in a row has a number that is a multiple of that.
        let mut at = 0;
        while at < size {
            let count = self.read_at(file, at, &mut block)?;
            if is_zero(&block[..count]) {
                return Ok(true);
            }
            at = at.saturating_add(step);
        }
        Ok(false)
    }

    /// The runs of data of a regular file, in order; what lies between them is holes. What is no regular file has none.
    ///
    /// # Panics
    /// When `file` is of another, larger tree.
    pub fn extents(&self, file: NodeId) -> impl Iterator<Item = Extent<'_>> {
        let (whole, runs) = match &self.tree.node(file).kind {
            Kind::File { content: FileData { runs: Some(runs), .. }, .. } => (None, &***runs),
            Kind::File { size, content } if *size > 0 => {
                (Some(Run { at: content.at, offset: 0, length: *size }), &[][..])
            }
            _ => (None, &[][..]),
        };
        let extent = |Run { at, offset, length }| {
            let file = self.contents.file(at.file()).ok()?;
            Some(Extent { file, at: at.offset(), offset, length })
        };
        // What has bytes lies in a file.
        whole.into_iter().chain(runs.iter().copied()).filter_map(extent)
    }
}

/// Reads one layer's tar to its verified end.
fn of_tar(
    mut tar: LayerTar,
    limits: TreeLimits,
    gathered: &mut Gathered<'_>,
    (keeps, dropped): (fn(&[u8]) -> bool, &mut DroppedXattrs),
) -> Result<(LayerTree<FileData>, LayerSummary)> {
    let mut builder = LayerTreeBuilder::within(limits);
    let file = tar.plain_file();
    let number = if file.is_some() { gathered.next_number() } else { None };
    while let Some(mut entry) = tar.next_entry()? {
        dropped.count(entry.metadata.xattrs.iter().map(|(name, _)| &**name).filter(|name| !keeps(name)), 1);
        entry.metadata.xattrs.retain(|(name, _)| keeps(name));
        builder.insert(entry, |size, extents| {
            let mut position = tar.position();
            let mut take = |run: DataExtent| {
                if let Some(number) = number {
                    let place = Place::new(number, position);
                    position = position.saturating_add(run.length);
                    return place;
                }
                let place = gathered.begin(run.offset, run.length)?;
                tar.copy_data(run.length, |bytes| gathered.write(bytes))?;
                Ok(place)
            };
            let Some(extents) = extents else {
                return Ok(FileData { at: take(DataExtent { offset: 0, length: size })?, runs: None });
            };
            let runs = extents.iter().map(|extent| {
                let DataExtent { offset, length } = *extent;
                Ok(Run { at: take(*extent)?, offset, length })
            });
            let runs: Runs = runs.collect::<Result<_>>()?;
            Ok(FileData { at: Place::default(), runs: Some(Box::new(runs)) })
        })?;
    }
    let summary = tar.finish()?;
    if let (Some(file), Some(_)) = (file, number) {
        if summary.compression != Compression::None || summary.size > file.size() {
            return Err(TreeFault::Changed.into());
        }
        let file = file.with_content(summary.diff_id.clone(), summary.size);
        file.check()?;
        gathered.hold(file);
    }
    Ok((builder.finish()?, summary))
}

/// Reads the file that some format has made of a layer.
fn of_file(
    layer: LayerFile,
    limits: TreeLimits,
    gathered: &mut Gathered<'_>,
) -> Result<(LayerTree<FileData>, Option<Digest>)> {
    let LayerFile { file, reader, diff_id } = layer;
    let number = gathered.next_number();
    let read = (reader.read)(&mut LayerContent { file: &file, number, gathered }, limits);
    let tree = read.map_err(|e| e.with_context("format", reader.format))?;
    if number.is_some() {
        gathered.hold(file);
    } else {
        file.check()?;
    }
    Ok((tree, diff_id))
}
