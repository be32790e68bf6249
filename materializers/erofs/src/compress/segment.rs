//! A piece of a file, cut into extents and compressed.

use plyfold_core::Result;

use super::algorithm::BLOCK;
use super::codec::Codec;
use super::extents::Extent;

const BLOCK_SIZE: usize = BLOCK as usize;

/// How often the length of an extent is searched.
const ATTEMPTS: u32 = 6;

/// A piece of a file, compressed.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    pub(crate) extents: Vec<Extent>,
    /// The clusters of the extents, whole blocks.
    pub(crate) blocks: Vec<u8>,
    /// The last extent, if it is less than a block when it is compressed, or not compressed and shorter than a block.
    pub(crate) tail: Option<Tail>,
    /// Whether a cluster is compressed.
    pub(crate) is_smaller: bool,
}

/// The last extent of a file, which may stand behind its inode.
#[derive(Debug)]
pub(crate) struct Tail {
    /// Of the file.
    pub(crate) length: u32,
    pub(crate) is_plain: bool,
    pub(crate) bytes: Vec<u8>,
}

/// Compresses pieces of files into clusters.
pub(crate) struct Compressor {
    codec: Codec,
    cluster: Vec<u8>,
}

impl Compressor {
    pub(crate) fn new(codec: Codec, cluster: u32) -> Self {
        Self { codec, cluster: vec![0; cluster as usize] }
    }

    /// Compresses a piece, which is the last one of its file or a multiple of a block.
    pub(crate) fn compress(&mut self, source: &[u8], is_last: bool) -> Result<Segment> {
        self.codec.restart()?;
        let mut segment = Segment::default();
        let mut at = 0;
        while at < source.len() {
            at += self.extent(&source[at..], is_last, &mut segment);
        }
        Ok(segment)
    }

    /// The next extent, or a few plain ones; how many bytes.
    fn extent(&mut self, source: &[u8], is_last: bool, segment: &mut Segment) -> usize {
        let size = self.cluster.len();
        if source.len() <= BLOCK_SIZE && !is_last {
            segment.plain(source);
            return source.len();
        }
        let (mut read, mut wrote) = self.codec.fill(source, &mut self.cluster, ATTEMPTS);
        let ends = is_last && read == source.len();
        if ends && wrote < BLOCK_SIZE && wrote < read {
            segment.tail(&self.cluster[..wrote], read, false);
            return read;
        }
        if ends && wrote > BLOCK_SIZE && !wrote.is_multiple_of(BLOCK_SIZE) {
            // What does not fill the last block may stand behind the inode.
            let less = wrote / BLOCK_SIZE * BLOCK_SIZE;
            let mut cluster = vec![0; less];
            let (read_less, wrote_less) = self.codec.fill(source, &mut cluster, 1);
            let rest = read - read_less.min(read);
            if wrote_less.next_multiple_of(BLOCK_SIZE) < read_less && wrote_less + rest < less + BLOCK_SIZE {
                self.cluster[..less].copy_from_slice(&cluster);
                (read, wrote) = (read_less, wrote_less);
            }
        }
        if wrote > 0 && wrote.next_multiple_of(BLOCK_SIZE) < read {
            segment.compressed(&self.cluster[..wrote], read);
            return read;
        }
        if is_last && source.len() < BLOCK_SIZE {
            segment.tail(source, source.len(), true);
            return source.len();
        }
        let whole = read.clamp(BLOCK_SIZE, size).min(source.len()) / BLOCK_SIZE * BLOCK_SIZE;
        segment.plain(&source[..whole]);
        whole
    }
}

impl Segment {
    fn compressed(&mut self, cluster: &[u8], length: usize) {
        let blocks = cluster.len().div_ceil(BLOCK_SIZE);
        // The data stands at the end of its blocks.
        self.blocks.resize(self.blocks.len() + blocks * BLOCK_SIZE - cluster.len(), 0);
        self.blocks.extend_from_slice(cluster);
        self.extents.push(Extent { length: length as u32, blocks: blocks as u16, is_plain: false });
        self.is_smaller = true;
    }

    /// Each block is an extent.
    fn plain(&mut self, source: &[u8]) {
        self.blocks.extend_from_slice(source);
        self.blocks.resize(self.blocks.len().next_multiple_of(BLOCK_SIZE), 0);
        for block in source.chunks(BLOCK_SIZE) {
            self.extents.push(Extent { length: block.len() as u32, blocks: 1, is_plain: true });
        }
    }

    fn tail(&mut self, bytes: &[u8], length: usize, is_plain: bool) {
        self.tail = Some(Tail { length: length as u32, is_plain, bytes: bytes.to_vec() });
        self.is_smaller |= !is_plain;
    }
}
