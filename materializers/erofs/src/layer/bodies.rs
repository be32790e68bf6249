//! Where the data of a compressed layer's files is.

use plyfold_core::Result;
use plyfold_core::layer::TreeLimits;
use plyfold_core::tree::{HeapSize, NodeId, Tree};

use crate::bodies::{Body, FileBodies};
use crate::compress::algorithm::{BLOCK, Compression};
use crate::compress::clusters::write_behind_inode;
use crate::compress::extents::{ExtentReader, Recorded};
use crate::content::{Chunks, Content, DataLayout};
use crate::fault::ErofsFault;
use crate::format::{LAYOUT_COMPACT, LAYOUT_INLINE, NULL_BLOCK};

/// A file of the tar, in the order of its entries. Its data is placed after it has got its place in the tree.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct LayerFile(u32);

impl LayerFile {
    /// All files without a byte.
    pub(crate) const EMPTY: Self = Self(0);
}

impl HeapSize for LayerFile {
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// Where a file's data is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Blocks(u32),
    /// The first block, and where the rest stands with the extents.
    Inline(u32, u64),
    /// The number of its chunks.
    Chunks(u32),
    /// The number of what is recorded of it.
    Compressed(u32),
}

/// The data of a layer's files.
pub(super) struct Bodies {
    /// By file.
    places: Vec<Place>,
    chunks: Vec<Chunks>,
    recorded: Vec<Recorded>,
    extents: Option<(Compression, ExtentReader)>,
    /// Counts what is held for files.
    account: Tree<()>,
}

impl Bodies {
    /// Those of no file but the empty ones.
    pub(super) fn new(limits: TreeLimits) -> Self {
        Self {
            places: vec![Place::Blocks(NULL_BLOCK)],
            chunks: Vec::new(),
            recorded: Vec::new(),
            extents: None,
            account: Tree::within(limits),
        }
    }

    /// One more file.
    pub(super) fn add(&mut self) -> Result<LayerFile> {
        self.account.charge(size_of::<Place>())?;
        let number = u32::try_from(self.places.len()).map_err(|_| ErofsFault::Inodes)?;
        self.places.push(Place::Blocks(NULL_BLOCK));
        Ok(LayerFile(number))
    }

    /// A file that is written as it is.
    pub(super) fn place(&mut self, file: LayerFile, content: Content) -> Result<()> {
        self.account.charge(content.heap_bytes())?;
        self.places[file.0 as usize] = match content.0 {
            DataLayout::Blocks { start, .. } => Place::Blocks(start),
            DataLayout::Chunks(chunks) => {
                self.chunks.push(*chunks);
                Place::Chunks(self.chunks.len() as u32 - 1)
            }
            DataLayout::Inline { .. } => return Err(ErofsFault::FileLayout(LAYOUT_INLINE).into()),
            DataLayout::Compressed { .. } => return Err(ErofsFault::FileLayout(LAYOUT_COMPACT).into()),
        };
        Ok(())
    }

    /// A file whose whole blocks are written, and whose rest is recorded.
    pub(super) fn place_inline(&mut self, file: LayerFile, start: u32, rest: u64) {
        self.places[file.0 as usize] = Place::Inline(start, rest);
    }

    /// A file that has been compressed.
    pub(super) fn place_compressed(&mut self, file: LayerFile, recorded: Recorded) -> Result<()> {
        self.account.charge(size_of::<Recorded>())?;
        self.recorded.push(recorded);
        self.places[file.0 as usize] = Place::Compressed(self.recorded.len() as u32 - 1);
        Ok(())
    }

    /// Ends the files.
    pub(super) fn end(&mut self, compression: &Compression, extents: ExtentReader) {
        self.extents = Some((compression.clone(), extents));
    }
}

impl FileBodies<LayerFile> for Bodies {
    fn body<'a>(&'a self, _: NodeId, file: &'a LayerFile) -> Result<Body<'a>> {
        Ok(match self.places[file.0 as usize] {
            Place::Blocks(start) => Body::Blocks { device: 0, start },
            Place::Inline(start, _) => Body::Inline { start },
            Place::Chunks(number) => Body::Chunks(&self.chunks[number as usize]),
            Place::Compressed(number) => {
                let Recorded { blocks, tail, .. } = self.recorded[number as usize];
                Body::Compressed { blocks, tail }
            }
        })
    }

    fn write_rest(&self, _: NodeId, file: &LayerFile, size: u64, out: &mut Vec<u8>) -> Result<()> {
        let (Place::Inline(_, at), Some((_, extents))) = (self.places[file.0 as usize], &self.extents) else {
            return Err(ErofsFault::FileLayout(LAYOUT_INLINE).into());
        };
        extents.bytes(at, (size % u64::from(BLOCK)) as usize, out)
    }

    fn compression(&self) -> Option<&Compression> {
        self.extents.as_ref().map(|(compression, _)| compression)
    }

    fn write_clusters(&self, _: NodeId, file: &LayerFile, size: u64, out: &mut Vec<u8>) -> Result<()> {
        let (Place::Compressed(number), Some((compression, extents))) =
            (self.places[file.0 as usize], &self.extents)
        else {
            return Err(ErofsFault::FileLayout(LAYOUT_COMPACT).into());
        };
        write_behind_inode(compression, extents, &self.recorded[number as usize], size, out)
    }
}
