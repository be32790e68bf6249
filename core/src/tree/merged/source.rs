//! What a layer of an image is read from.

use std::fmt;
use std::fs::File;

use super::data::{FileData, Place, Run, Runs, Watched};
use super::spool::Gathered;
use crate::layer::{LayerTar, TreeLimits};
use crate::tree::{LayerTree, TreeFault};
use crate::{Digest, Result};

/// One layer of a [`MergedTree`](super::MergedTree).
#[derive(Debug)]
#[non_exhaustive]
pub enum LayerSource {
    /// A file that some format has made of it: content is used where it lies.
    File(LayerFile),
    /// Its tar.
    Tar(Box<LayerTar>),
}

impl From<LayerTar> for LayerSource {
    fn from(tar: LayerTar) -> Self {
        Self::Tar(Box::new(tar))
    }
}

impl From<LayerFile> for LayerSource {
    fn from(file: LayerFile) -> Self {
        Self::File(file)
    }
}

/// A file that a format of single layers has made, such as one out of a cache. It is held open, so its name may go, and
/// has to stay as it is.
#[derive(Debug)]
pub struct LayerFile {
    pub(super) file: Watched,
    pub(super) reader: LayerReader,
    pub(super) diff_id: Option<Digest>,
}

impl LayerFile {
    /// A file, what reads it, and the digest of the tar that it was made from.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn new(file: File, reader: LayerReader, diff_id: Option<Digest>) -> Result<Self> {
        Ok(Self { file: Watched::new(file)?, reader, diff_id })
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.file.size()
    }
}

/// How the files of a format of single layers are read back: one entry for each such format, registered with
/// [`register!`](crate::register).
///
/// Formats of whole images are then written from the files of this format that a cache has, and no layer is read again.
/// So what is read has to be what the layer's tar says: names, kinds, owners, modes, times, links, content, whiteouts and
/// opaque directories, and all extended attributes but those that [no layer file keeps](crate::tree::is_kept_xattr).
///
/// ```
/// use plyfold_core::tree::{LayerContent, LayerReader, LayerTree, FileData};
/// use plyfold_core::layer::TreeLimits;
///
/// fn read(layer: &mut LayerContent<'_, '_>, limits: TreeLimits) -> plyfold_core::Result<LayerTree<FileData>> {
///     let _ = (layer.file(), limits);
///     Err(plyfold_core::Error::unsupported("an example"))
/// }
///
/// plyfold_core::register!(LayerReader { format: "squash-layers", package: env!("CARGO_PKG_NAME"), read });
/// assert!(LayerReader::linked().any(|reader| reader.format == "squash-layers"));
/// ```
#[derive(Clone, Copy)]
pub struct LayerReader {
    /// The name of the format, whose files with default options are read.
    pub format: &'static str,
    /// The crate it comes from: `env!("CARGO_PKG_NAME")`.
    pub package: &'static str,
    /// Reads the layer's metadata, and says where content lies.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for a file that is not what the format writes,
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for what it does not read back,
    /// [`Limit`](crate::ErrorKind::Limit) beyond the limits.
    pub read: fn(&mut LayerContent<'_, '_>, TreeLimits) -> Result<LayerTree<FileData>>,
}

inventory::collect!(LayerReader);

impl LayerReader {
    /// Every reader that is linked into this program.
    pub fn linked() -> impl Iterator<Item = &'static Self> {
        inventory::iter::<Self>.into_iter()
    }
}

impl fmt::Debug for LayerReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerReader").field("format", &self.format).finish_non_exhaustive()
    }
}

/// A run of a file's data in the file of a layer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LayerRun {
    /// Its first byte in the layer's file.
    pub at: u64,
    /// Its first byte in the file of the image.
    pub offset: u64,
    /// Bytes, not 0.
    pub length: u64,
}

/// What a [`LayerReader`] reads, and what it tells where the content of files lies.
pub struct LayerContent<'a, 'b> {
    pub(super) file: &'a Watched,
    /// `None` when no more files are held open: content is copied then.
    pub(super) number: Option<u16>,
    pub(super) gathered: &'a mut Gathered<'b>,
}

impl<'a> LayerContent<'a, '_> {
    /// The file of the layer.
    pub fn file(&self) -> &'a File {
        &self.file.file
    }

    /// The content of a file of `size` bytes that lies in the layer's file, in ascending runs; what is between them is
    /// holes.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for runs that are not in order, or lie beyond the end of either file;
    /// [`Limit`](crate::ErrorKind::Limit) beyond 2^48 bytes; [`Io`](crate::ErrorKind::Io).
    pub fn lies_in(&mut self, size: u64, runs: &[LayerRun]) -> Result<FileData> {
        let mut end = 0;
        for LayerRun { at, offset, length } in runs {
            let (in_image, in_layer) = (offset.checked_add(*length), at.checked_add(*length));
            let is_sound = *length > 0
                && *offset >= end
                && in_image.is_some_and(|end| end <= size)
                && in_layer.is_some_and(|end| end <= self.file.size());
            if !is_sound {
                return Err(
                    TreeFault::Malformed("the runs of a file are not in order, or end behind it").into()
                );
            }
            end = offset + length;
        }
        if let [LayerRun { at, offset: 0, length }] = runs
            && *length == size
        {
            return Ok(FileData { at: self.place(runs[0], *at)?, runs: None });
        }
        if size == 0 {
            return Ok(FileData::default());
        }
        let placed = runs.iter().map(|run| {
            let LayerRun { at, offset, length } = *run;
            Ok(Run { at: self.place(*run, at)?, offset, length })
        });
        let runs: Runs = placed.collect::<Result<_>>()?;
        Ok(FileData { at: Place::default(), runs: Some(Box::new(runs)) })
    }

    fn place(&mut self, run: LayerRun, at: u64) -> Result<Place> {
        match self.number {
            Some(number) => Place::new(number, at),
            None => self.gathered.copy(self.file(), at, (run.offset, run.length)),
        }
    }

    /// The content of a file whose bytes the layer's file does not have as they are, such as compressed ones: `write` hands
    /// them over in order, and they are kept in a temporary file, at most `size` of them.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when there are not `size` bytes; [`Io`](crate::ErrorKind::Io); those of
    /// `write`.
    pub fn keep(
        &mut self,
        size: u64,
        write: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
    ) -> Result<FileData> {
        let at = self.gathered.begin(0, size)?;
        let other_size = || TreeFault::Malformed("a file has not as many bytes as its size says");
        let mut left = size;
        write(&mut |bytes| {
            left = left.checked_sub(bytes.len() as u64).ok_or_else(other_size)?;
            self.gathered.write(bytes)
        })?;
        if left > 0 {
            return Err(other_size().into());
        }
        Ok(FileData { at, runs: None })
    }
}

impl fmt::Debug for LayerContent<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerContent").field("file", &self.file).finish_non_exhaustive()
    }
}
