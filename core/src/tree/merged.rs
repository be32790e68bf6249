//! An image as a tree, with the bytes of its files.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::durable::temporary_file;
use crate::layer::{DataExtent, LayerTar, TreeLimits};
use crate::{Digest, Error, Result};

use super::{HeapSize, Kind, LayerTree, LayerTreeBuilder, NodeId, Tree, is_overlay_xattr};

/// File systems share whole blocks (`FICLONERANGE`), and most have blocks of so many bytes.
const BLOCK: u64 = 4096;
/// Bytes on their way to the spool.
const BUFFER: usize = 256 << 10;

/// An image whose layers have been read to their verified ends and stacked, with the content of every file: what a
/// format for whole images is written from.
///
/// Content lies in a file without a name in the folder that [`MergedTree::read`] is given, and is gone when the tree is
/// dropped. Files that upper layers replace take room there, too. Memory holds the metadata alone, within the
/// [`TreeLimits`].
///
/// Overlayfs' own extended attributes ([`is_overlay_xattr`]) are left out: a layer must not set them.
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
    spool: File,
    diff_ids: Vec<Option<Digest>>,
}

/// Where the bytes of a file lie. Read them by [`MergedTree::read_at`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FileData {
    /// Where those of a file without holes begin.
    at: u64,
    /// The runs of data of a file with holes.
    runs: Option<Box<Runs>>,
}

/// Ascending, disjoint, not empty.
type Runs = Box<[Run]>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Run {
    at: u64,
    offset: u64,
    length: u64,
}

impl HeapSize for FileData {
    fn heap_bytes(&self) -> usize {
        self.runs.as_ref().map_or(0, |runs| size_of::<Runs>() + size_of_val(&***runs))
    }
}

/// A run of a file's data.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Extent<'a> {
    /// The open file that has the bytes: for `copy_file_range` and `FICLONERANGE`.
    pub file: &'a File,
    /// The first byte there. In a run of 4,096 bytes or more it lies as far behind a multiple of 4,096 as
    /// [`offset`](Self::offset) does.
    pub at: u64,
    /// The first byte in the file of the image.
    pub offset: u64,
    /// Bytes in the run, not 0.
    pub length: u64,
}

impl MergedTree {
    /// Reads the layers, bottom first, each to its verified end. Waits for them, so it is for a thread that may wait.
    ///
    /// Content goes to a file in the folder `scratch`, which is made if there is none: give it one on a disk, such as the
    /// cache's own.
    ///
    /// # Errors
    /// What `layers` yields; those of [`LayerTar`] and of [`Tree::from_layers`]; [`Io`](crate::ErrorKind::Io) from
    /// `scratch`. A bad layer is an error, whatever stands in it before the fault.
    pub fn read(
        layers: impl IntoIterator<Item = Result<LayerTar>>,
        limits: TreeLimits,
        scratch: &Path,
    ) -> Result<Self> {
        let at = |e: Error| e.with_context("path", scratch.display());
        let file = temporary_file(scratch)?;
        let mut spool = Spool { out: BufWriter::with_capacity(BUFFER, file), length: 0, scratch };
        let each = limits.clone();
        let mut diff_ids = Vec::new();
        let trees = layers.into_iter().map(|tar| {
            let (tree, diff_id) = layer(tar?, each.clone(), &mut spool)?;
            diff_ids.push(diff_id);
            Ok(tree)
        });
        let tree = Tree::from_layers_within(trees, limits)?;
        let spool = spool.out.into_inner().map_err(|e| at(spooling(e.into_error())))?;
        Ok(Self { tree, spool, diff_ids })
    }

    /// The digests of the layers' uncompressed tars, bottom first, in which formats see which image it is. `None` for a
    /// layer that was read without [hashing](crate::layer::Hashing) it.
    pub fn diff_ids(&self) -> &[Option<Digest>] {
        &self.diff_ids
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
        let read = |buffer: &mut [u8], at: u64| {
            let read = self.spool.read_exact_at(buffer, at);
            read.map_err(|e| Error::io("reading the image's content back", e))
        };
        let Some(runs) = &content.runs else {
            read(buffer, content.at + offset)?;
            return Ok(count);
        };
        buffer.fill(0);
        let first = runs.partition_point(|run| run.offset + run.length <= offset);
        for run in runs[first..].iter().take_while(|run| run.offset < end) {
            let from = run.offset.max(offset);
            let to = (run.offset + run.length).min(end);
            let part = (from - offset) as usize..(to - offset) as usize;
            read(&mut buffer[part], run.at + from - run.offset)?;
        }
        Ok(count)
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
        let extent = |Run { at, offset, length }| Extent { file: &self.spool, at, offset, length };
        whole.into_iter().chain(runs.iter().copied()).map(extent)
    }
}

/// Reads one layer to its verified end; the digest of its tar.
fn layer(
    mut tar: LayerTar,
    limits: TreeLimits,
    spool: &mut Spool<'_>,
) -> Result<(LayerTree<FileData>, Option<Digest>)> {
    let mut builder = LayerTreeBuilder::within(limits);
    while let Some(mut entry) = tar.next_entry()? {
        entry.metadata.xattrs.retain(|(name, _)| !is_overlay_xattr(name));
        builder.insert(entry, |size, extents| {
            let Some(extents) = extents else {
                let whole = DataExtent { offset: 0, length: size };
                return Ok(FileData { at: spool.take(&mut tar, whole)?, runs: None });
            };
            let runs = extents.iter().map(|extent| {
                let DataExtent { offset, length } = *extent;
                Ok(Run { at: spool.take(&mut tar, *extent)?, offset, length })
            });
            let runs: Runs = runs.collect::<Result<_>>()?;
            Ok(FileData { at: 0, runs: Some(Box::new(runs)) })
        })?;
    }
    let diff_id = tar.finish()?.diff_id;
    Ok((builder.finish()?, diff_id))
}

/// The content of an image on its way to the disk.
struct Spool<'a> {
    out: BufWriter<File>,
    length: u64,
    scratch: &'a Path,
}

impl Spool<'_> {
    /// Takes the next bytes of the tar's file; where they begin.
    fn take(&mut self, tar: &mut LayerTar, run: DataExtent) -> Result<u64> {
        if run.length >= BLOCK {
            let beyond = (self.length + BLOCK - run.offset % BLOCK) % BLOCK;
            self.write(&[0; BLOCK as usize][..((BLOCK - beyond) % BLOCK) as usize])?;
        }
        let at = self.length;
        tar.copy_data(run.length, |bytes| self.write(bytes))?;
        Ok(at)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.length += bytes.len() as u64;
        let written = self.out.write_all(bytes);
        written.map_err(|e| spooling(e).with_context("path", self.scratch.display()))
    }
}

fn spooling(error: std::io::Error) -> Error {
    Error::io("writing the image's content to a temporary file", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_on_the_heap_are_counted() {
        let run = Run { at: 0, offset: 0, length: 1 };
        let data = FileData { at: 0, runs: Some(Box::new(vec![run; 100].into())) };
        assert_eq!(data.heap_bytes(), 16 + 100 * 24);
        assert_eq!(FileData::default().heap_bytes(), 0);
        assert_eq!(size_of::<super::super::Node<FileData>>(), 72);
    }
}
