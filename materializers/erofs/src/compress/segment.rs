//! A piece of a file, cut into extents and compressed.

use plyfold_core::Result;
use sha2::{Digest as _, Sha256};

use super::algorithm::{BLOCK, Compression};
use super::buffers::Buffer;
use super::codec::Codec;
use super::extents::Extent;

const BLOCK_SIZE: usize = BLOCK as usize;

/// How often the length of an extent is searched.
const ATTEMPTS: u32 = 6;

/// A piece of a file, compressed.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    pub(crate) extents: Vec<Extent>,
    /// The bytes of the clusters, whole blocks.
    pub(crate) length: usize,
    /// The last extent, if it is less than a block when it is compressed, or not compressed and shorter than a block.
    pub(crate) tail: Option<Tail>,
    /// The last extent, if it is a fragment in place of a cluster.
    pub(crate) fragment: Option<Fragment>,
    /// Of all bytes of the file, where it may share its clusters with an equal one.
    pub(crate) sha256: Option<[u8; 32]>,
    /// Whether a cluster is compressed, or there is a fragment.
    pub(crate) is_smaller: bool,
}

/// The last bytes of a file, which are compressed with those of other files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment {
    /// In bytes.
    pub(crate) length: u32,
    /// Equal ones are stored once.
    pub(crate) sha256: [u8; 32],
}

/// What follows a piece.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Behind {
    /// More of the file: the piece is a multiple of a block.
    More,
    /// Nothing.
    End,
    /// Nothing, and the last extent may be a fragment of at most so many bytes.
    Fragment(u32),
}

/// The last extent of a file, which may stand behind its inode.
#[derive(Debug)]
pub(crate) struct Tail {
    /// Of the file.
    pub(crate) length: u32,
    pub(crate) is_plain: bool,
    pub(crate) bytes: Vec<u8>,
    /// What it is without compression, where that is no more than a block.
    pub(crate) plain: Vec<u8>,
}

/// Compresses pieces of files into clusters.
pub(crate) struct Compressor {
    codec: Codec,
    /// In bytes.
    cluster: usize,
}

impl Compressor {
    pub(crate) fn new(compression: &Compression) -> Result<Self> {
        Ok(Self { codec: Codec::new(compression)?, cluster: compression.cluster as usize })
    }

    /// Compresses a piece. Its clusters are appended to `blocks`.
    pub(crate) fn compress(&mut self, source: &[u8], behind: Behind, blocks: &mut Buffer) -> Result<Segment> {
        self.codec.restart()?;
        let (mut segment, before) = (Segment::default(), blocks.len());
        let mut at = 0;
        while at < source.len() {
            at += self.extent(&source[at..], behind, &mut segment, blocks);
        }
        segment.length = blocks.len() - before;
        Ok(segment)
    }

    /// The next extent, or a few plain ones; how many bytes.
    fn extent(&mut self, source: &[u8], behind: Behind, segment: &mut Segment, blocks: &mut Buffer) -> usize {
        let is_last = behind != Behind::More;
        if source.len() <= BLOCK_SIZE && !is_last {
            segment.plain(source, blocks);
            return source.len();
        }
        let can_be_fragment = matches!(behind, Behind::Fragment(most) if source.len() <= most as usize);
        if can_be_fragment && segment.is_smaller && source.len() <= self.cluster {
            segment.fragment(source);
            return source.len();
        }
        let cluster = blocks.room(self.cluster);
        let (mut read, mut wrote) = self.codec.fill(source, cluster, ATTEMPTS);
        let ends = is_last && read == source.len();
        if can_be_fragment && ends && !wrote.is_multiple_of(BLOCK_SIZE) && wrote < read {
            segment.fragment(source);
            return read;
        }
        if ends && wrote < BLOCK_SIZE && wrote < read {
            segment.tail(&cluster[..wrote], source, false);
            return read;
        }
        if ends && wrote > BLOCK_SIZE && !wrote.is_multiple_of(BLOCK_SIZE) {
            // What does not fill the last block may stand behind the inode.
            let less = wrote / BLOCK_SIZE * BLOCK_SIZE;
            let is_better = |read_less: usize, wrote_less: usize, rest: usize| {
                wrote_less.next_multiple_of(BLOCK_SIZE) < read_less && wrote_less + rest < less + BLOCK_SIZE
            };
            let shorter = self.codec.shorten(source, &mut cluster[..wrote], less, is_better);
            (read, wrote) = shorter.unwrap_or((read, wrote));
        }
        let in_blocks = wrote.next_multiple_of(BLOCK_SIZE);
        if wrote > 0 && in_blocks < read {
            // The data stands at the end of its blocks.
            if wrote < in_blocks {
                cluster.copy_within(..wrote, in_blocks - wrote);
                cluster[..in_blocks - wrote].fill(0);
            }
            blocks.filled(in_blocks);
            segment.compressed(in_blocks, read);
            return read;
        }
        if is_last && source.len() < BLOCK_SIZE {
            segment.tail(source, source, true);
            return source.len();
        }
        let whole = read.clamp(BLOCK_SIZE, self.cluster).min(source.len()) / BLOCK_SIZE * BLOCK_SIZE;
        segment.plain(&source[..whole], blocks);
        whole
    }
}

impl Segment {
    fn compressed(&mut self, size: usize, length: usize) {
        let blocks = (size / BLOCK_SIZE) as u16;
        self.extents.push(Extent { length: length as u32, blocks, is_plain: false });
        self.is_smaller = true;
    }

    /// Each block is an extent.
    fn plain(&mut self, source: &[u8], blocks: &mut Buffer) {
        blocks.append(source);
        blocks.zeros(source.len().next_multiple_of(BLOCK_SIZE) - source.len());
        for block in source.chunks(BLOCK_SIZE) {
            self.extents.push(Extent { length: block.len() as u32, blocks: 1, is_plain: true });
        }
    }

    /// A file that is a fragment as a whole.
    pub(crate) fn of_fragment(file: &[u8]) -> Self {
        let mut segment = Self::default();
        segment.fragment(file);
        segment
    }

    fn fragment(&mut self, bytes: &[u8]) {
        self.fragment = Some(Fragment { length: bytes.len() as u32, sha256: sha256(bytes) });
        self.is_smaller = true;
    }

    fn tail(&mut self, bytes: &[u8], source: &[u8], is_plain: bool) {
        let has_plain = !is_plain && source.len() <= BLOCK_SIZE;
        self.tail = Some(Tail {
            length: source.len() as u32,
            is_plain,
            bytes: bytes.to_vec(),
            plain: if has_plain { source.to_vec() } else { Vec::new() },
        });
        self.is_smaller |= !is_plain;
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
