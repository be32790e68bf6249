//! The files of an image, one by one.

use std::io::{Read, Seek};

use plyfold_core::Result;
use plyfold_core::files::TreeFiles;
use plyfold_core::tree::{Kind, NodeId, Tree};

use crate::content::Content;
use crate::fault::ErofsFault;
use crate::overlay;
use crate::reader::Reader;

/// The files of an EROFS image: [`Files`](plyfold_core::files::Files) of a [`Reader`].
///
/// The image of one layer has overlayfs' marks as the files that they are: a whiteout is a character device 0:0. Files of
/// an image with devices are read where the devices follow it, as they do on the one disk that a VMDK makes of them.
///
/// ```
/// use plyfold_core::files::Files as _;
/// use plyfold_core::layer::{LayerOptions, LayerTar};
/// use plyfold_core::Materializer as _;
/// use plyfold_erofs::{ErofsFiles, ErofsLayer, Reader};
///
/// let mut tar = LayerTar::new(std::io::empty(), LayerOptions::default())?;
/// let mut image = tempfile::tempfile()?;
/// ErofsLayer::default().layer(&mut tar, &mut image)?;
/// let mut files = ErofsFiles::new(Reader::new(image)?)?;
/// assert!(files.list(b"/")?.is_empty());
/// # Ok::<(), plyfold_core::Error>(())
/// ```
#[derive(Debug)]
pub struct ErofsFiles<R> {
    reader: Reader<R>,
    tree: Tree<Content>,
}

impl<R: Read + Seek> ErofsFiles<R> {
    /// The files of an image, whose names and metadata are read into memory, within the reader's
    /// [limits](Reader::with_limits).
    ///
    /// # Errors
    /// As [`Reader::tree`].
    pub fn new(mut reader: Reader<R>) -> Result<Self> {
        let tree = reader.tree()?;
        Ok(Self { reader, tree })
    }
}

impl<R: Read + Seek> TreeFiles for ErofsFiles<R> {
    type Content = Content;

    fn tree(&self) -> &Tree<Content> {
        &self.tree
    }

    fn copy(&mut self, file: NodeId, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let node = self.tree.node(file);
        let Kind::File { size, content } = &node.kind else { return Ok(()) };
        if let Some(path) = overlay::data_below(&node.xattrs) {
            return Err(ErofsFault::BelowLayer(path).into());
        }
        // A device that is elsewhere would be read as the end of the image, which is damaged then.
        if self.reader.lacks(content) {
            return Err(ErofsFault::DevicesElsewhere(self.reader.devices()).into());
        }
        self.reader.copy(content, *size, take)
    }
}
