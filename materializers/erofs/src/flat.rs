//! A whole image as one file that needs no other.

use plyfold_core::layer::TreeLimits;
use plyfold_core::tree::{FileData, HeapSize as _, Kind, MergedTree, NodeId, Tree};
use plyfold_core::{Digest, Format, Input, Made, Materializer, Result, Role, Sink};
use uuid::Uuid;

use crate::bodies::{Body, FileBodies};
use crate::content::{Chunks, DataLayout};
use crate::data;
use crate::inodes::Inodes;
use crate::options::Options;
use crate::places::Packing;
use crate::stream::BlockStream;
use crate::writer;

/// Bytes on their way from the spool.
const BUFFER: usize = 1 << 20;

/// Makes one EROFS image of a whole OCI image, which needs no layer and no overlay.
///
/// It holds what the image shows and nothing else: no file that an upper layer replaces, no whiteout, none of overlayfs'
/// attributes. The last part of a file that fills no block stands behind the file's inode where both fit into one block,
/// so that small files take no blocks of their own. Whole blocks of a file are neighbours. A run of zeros of 1 MiB or
/// more is a hole, whether it was one in the layer or not.
///
/// Linux mounts it from 5.4 on; from 5.15 with a hole, from 6.4 with blocks of less than 4,096 bytes. What EROFS does
/// not hold is treated as by [`ErofsLayer`](crate::ErofsLayer).
///
/// The same image gives the same bytes however its layers were packed and read. The UUID is version 5 of
/// `erofs:image/DIFF_ID/DIFF_ID/…` in the URL namespace, the layers bottom first; it is zero for layers that were read
/// without hashing.
#[derive(Clone, Debug, Default)]
pub struct ErofsFlat {
    options: Options,
}

impl ErofsFlat {
    /// A materializer with other options than the defaults.
    pub fn new(options: Options) -> Self {
        Self { options }
    }
}

impl Materializer for ErofsFlat {
    fn format(&self) -> Format {
        Format { name: "erofs", version: 1, options: self.options.key(), extension: "erofs" }
    }

    fn input(&self) -> Input {
        Input::Image
    }

    fn image(&self, image: &MergedTree, out: &mut dyn Sink) -> Result<Made> {
        let options = &self.options;
        let limits = out.limits();
        let out = out.output(Role::Image)?;
        // What the format cannot hold of the metadata is found before a byte is written.
        let inodes = Inodes::new(image.tree(), options)?;
        let mut stream = BlockStream::new(out, options.block_size, writer::head_blocks(options, 0))?;
        let bodies = Bodies::write(image, &inodes, options.block_size, limits, &mut stream)?;
        let uuid = options.uuid.unwrap_or_else(|| image_uuid(image.diff_ids()));
        writer::finish_files(inodes, &bodies, Packing::BestFit, options, uuid, Vec::new(), stream)
    }
}

/// Derived as containerd derives that of a layer.
fn image_uuid(diff_ids: &[Option<Digest>]) -> [u8; 16] {
    let mut name = String::from("erofs:image");
    for diff_id in diff_ids {
        let Some(diff_id) = diff_id else { return [0; 16] };
        name.push('/');
        name.push_str(diff_id.as_ref());
    }
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).into_bytes()
}

/// Where a file's blocks are.
#[derive(Clone, Copy)]
enum Place {
    Blocks(u32),
    Inline(u32),
    /// The number of its chunks.
    Chunks(u32),
}

/// The data of an image's files, written.
struct Bodies<'a> {
    image: &'a MergedTree,
    block_size: u64,
    /// By node.
    places: Vec<Place>,
    /// Of the files with holes.
    chunks: Vec<Chunks>,
}

impl<'a> Bodies<'a> {
    /// Writes what does not stand behind inodes, in the order of the inodes.
    fn write(
        image: &'a MergedTree,
        inodes: &Inodes<'_, FileData>,
        block_size: u32,
        limits: TreeLimits,
        out: &mut BlockStream<'_>,
    ) -> Result<Self> {
        let tree = image.tree();
        let places = vec![Place::Blocks(0); tree.capacity()];
        let mut bodies = Self { image, block_size: block_size.into(), places, chunks: Vec::new() };
        // Counts the chunks: a tree of its own, as what they come from has been counted in the image's.
        let mut account = Tree::<()>::within(limits);
        let mut buffer = vec![0; BUFFER];
        for (at, planned) in inodes.planned.iter().enumerate() {
            let id = planned.id;
            let Kind::File { size, .. } = tree.node(id).kind else { continue };
            let rest = if bodies.rest_fits(inodes, at, size)? { size % bodies.block_size } else { 0 };
            let content = data::copy_file(image, (id, size, rest), out, block_size, &mut buffer)?;
            account.charge(content.heap_bytes())?;
            bodies.places[id.index()] = match content.0 {
                DataLayout::Blocks { start, .. } => Place::Blocks(start),
                DataLayout::Inline { start, .. } => Place::Inline(start),
                DataLayout::Chunks(chunks) => {
                    bodies.chunks.push(*chunks);
                    Place::Chunks(bodies.chunks.len() as u32 - 1)
                }
            };
        }
        Ok(bodies)
    }

    /// Whether the rest of a file behind its whole blocks and its inode fit into one block.
    fn rest_fits(&self, inodes: &Inodes<'_, FileData>, at: usize, size: u64) -> Result<bool> {
        let inode = inodes.inode(at)?;
        let rest = size % self.block_size;
        Ok(inodes.own_size(&inode) + inode.xattr_size() + rest <= self.block_size)
    }
}

impl FileBodies<FileData> for Bodies<'_> {
    fn body<'a>(&'a self, id: NodeId, _: &'a FileData) -> Result<Body<'a>> {
        Ok(match self.places[id.index()] {
            Place::Blocks(start) => Body::Blocks { device: 0, start },
            Place::Inline(start) => Body::Inline { start },
            Place::Chunks(number) => Body::Chunks(&self.chunks[number as usize]),
        })
    }

    fn write_rest(&self, id: NodeId, size: u64, out: &mut Vec<u8>) -> Result<()> {
        let rest = size % self.block_size;
        let start = out.len();
        out.resize(start + rest as usize, 0);
        self.image.read_at(id, size - rest, &mut out[start..]).map(drop)
    }
}
