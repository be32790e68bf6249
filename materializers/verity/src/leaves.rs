//! The lowest level of a hash tree, computed from the data on several threads.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Scope};

use plyfold_core::page_buffer::PageBuffer;
use plyfold_core::{Error, ErrorKind, ReadAt, Result, is_zero};
use plyfold_sha256::{Sha256, finish_two, update_two};

use crate::fault::VerityFault;
use crate::layout::{DIGEST, TreeLayout};
use crate::parameters::Parameters;
use crate::work::Work;

/// About how much a thread reads at once, in bytes.
const CHUNK: u64 = 1 << 20;
/// How many chunks a thread is ahead of the one that takes its digests.
const AHEAD: usize = 4;

/// The hash of blocks of one tree.
#[derive(Clone)]
pub(crate) struct BlockHash(Sha256);

impl BlockHash {
    pub(crate) fn new(salt: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(salt);
        Self(hash)
    }

    /// In hash type 1 the salt stands in front of the block.
    pub(crate) fn digest(&self, block: &[u8]) -> [u8; DIGEST] {
        let mut hash = self.0.clone();
        hash.update(block);
        hash.finish()
    }

    /// The digests of two blocks, in little more time than one takes.
    fn digest_two(&self, blocks: [&[u8]; 2]) -> [[u8; DIGEST]; 2] {
        let (mut one, mut two) = (self.0.clone(), self.0.clone());
        update_two([&mut one, &mut two], blocks);
        finish_two(one, two)
    }
}

/// The data that a thread takes at once: what makes complete blocks of the lowest level.
#[derive(Clone, Copy)]
pub(crate) struct Chunks {
    data_block: u64,
    /// Blocks of data in a chunk.
    pub(crate) blocks: u64,
    all_blocks: u64,
}

impl Chunks {
    pub(crate) fn new(layout: &TreeLayout) -> Self {
        let data_block = u64::from(layout.parameters().data_block_size());
        Self { data_block, blocks: Self::in_leaves(layout.parameters()), all_blocks: layout.data_blocks() }
    }

    /// The bytes of one.
    pub(crate) fn size(parameters: &Parameters) -> u64 {
        Self::in_leaves(parameters) * u64::from(parameters.data_block_size())
    }

    /// The bytes of the digests of one.
    pub(crate) fn leaves(parameters: &Parameters) -> u64 {
        Self::in_leaves(parameters) * DIGEST as u64
    }

    /// The blocks of data in one.
    fn in_leaves(parameters: &Parameters) -> u64 {
        let data_block = u64::from(parameters.data_block_size());
        let in_leaf = u64::from(parameters.hash_block_size()) / DIGEST as u64;
        (CHUNK / (data_block * in_leaf)).max(1) * in_leaf
    }

    fn count(&self) -> u64 {
        self.all_blocks.div_ceil(self.blocks)
    }

    /// Where a chunk begins, and its size, in bytes.
    fn range(&self, chunk: u64) -> (u64, usize) {
        let first = chunk * self.blocks;
        let blocks = self.blocks.min(self.all_blocks - first);
        (first * self.data_block, (blocks * self.data_block) as usize)
    }
}

/// The hash of the blocks of data of one tree. Most disks have many that are all zeros.
#[derive(Clone)]
pub(crate) struct LeafHash {
    hash: BlockHash,
    data_block: usize,
    hash_block: usize,
    /// The digest of a block of zeros.
    pub(crate) zeros: [u8; DIGEST],
}

impl LeafHash {
    pub(crate) fn new(parameters: &Parameters) -> Self {
        let (data_block, hash_block) = (parameters.data_block_size(), parameters.hash_block_size());
        let hash = BlockHash::new(parameters.salt());
        let zeros = hash.digest(&vec![0; data_block as usize]);
        Self { hash, data_block: data_block as usize, hash_block: hash_block as usize, zeros }
    }

    /// The blocks of the lowest level that complete blocks of data make.
    pub(crate) fn leaves(&self, data: &[u8]) -> Vec<u8> {
        let size = (data.len() / self.data_block * DIGEST).next_multiple_of(self.hash_block);
        let mut leaves = vec![0; size];
        let mut waiting: Option<(&mut [u8; DIGEST], &[u8])> = None;
        for (leaf, block) in leaves.as_chunks_mut().0.iter_mut().zip(data.chunks_exact(self.data_block)) {
            if is_zero(block) {
                *leaf = self.zeros;
            } else if let Some((first, other)) = waiting.take() {
                [*first, *leaf] = self.hash.digest_two([other, block]);
            } else {
                waiting = Some((leaf, block));
            }
        }
        if let Some((leaf, block)) = waiting {
            *leaf = self.hash.digest(block);
        }
        leaves
    }
}

/// Some of the lowest level of the tree.
pub(crate) enum Piece<'a> {
    /// Complete blocks, padded with zeros, that a chunk makes.
    Leaves(u64, &'a [u8]),
    /// Chunks of zeros, which were not read. The last chunk of the data is never one.
    Zeros(Range<u64>),
}

/// Hands over the lowest level of the tree in order. It is made on several threads, each of which holds a chunk and the
/// digests of a few more. Holes of the data are not read.
pub(crate) fn each_piece(
    layout: &TreeLayout,
    data: &dyn ReadAt,
    work: &Work,
    mut each: impl FnMut(Piece<'_>) -> Result<()>,
) -> Result<()> {
    let chunks = Chunks::new(layout);
    let threads = chunks.count().min(work.threads.get() as u64) as usize;
    let (hash, mut done) = (LeafHash::new(layout.parameters()), work.done_of(layout.data_size()));
    thread::scope(|scope| {
        let (mut runs, mut waiting) = (Runs { chunks, data, next: 0 }, VecDeque::new());
        let (mut workers, mut sent, mut taken) = (Vec::new(), 0_usize, 0_usize);
        loop {
            work.stop.check()?;
            while waiting.len() < threads * AHEAD {
                let Some(run) = runs.next()? else { break };
                if let Run::Data(chunk) = run {
                    if workers.len() < threads {
                        let hash = hash.clone();
                        workers.push(Worker::start(scope, move |chunk, buffer: &mut PageBuffer| {
                            read_chunk(chunks, data, chunk, &hash, buffer)
                        })?);
                    }
                    workers[sent % threads].chunks.send(chunk).map_err(panicked)?;
                    sent += 1;
                }
                waiting.push_back(run);
            }
            let end = match waiting.pop_front() {
                None => return Ok(()),
                Some(Run::Zeros(zeros)) => {
                    each(Piece::Zeros(zeros.clone()))?;
                    zeros.end
                }
                Some(Run::Data(chunk)) => {
                    let leaves = workers[taken % threads].leaves.recv().map_err(panicked)??;
                    taken += 1;
                    each(Piece::Leaves(chunk, &leaves))?;
                    chunk + 1
                }
            };
            done.at(end * Chunks::size(layout.parameters()));
        }
    })
}

/// Chunks that are read, or not.
enum Run {
    Data(u64),
    Zeros(Range<u64>),
}

/// The chunks of some data, in order.
struct Runs<'a> {
    chunks: Chunks,
    data: &'a dyn ReadAt,
    next: u64,
}

impl Runs<'_> {
    fn next(&mut self) -> Result<Option<Run>> {
        let (first, Some(last)) = (self.next, self.chunks.count().checked_sub(1)) else { return Ok(None) };
        if first > last {
            return Ok(None);
        }
        let found = self.data.data_from(self.chunks.range(first).0).map_err(reading)?;
        // The last chunk is read in any case: so a file that is too short is found.
        let of = |offset| offset / (self.chunks.blocks * self.chunks.data_block);
        let data = found.map_or(last, of).clamp(first, last);
        self.next = data.max(first + 1);
        Ok(Some(if data > first { Run::Zeros(first..data) } else { Run::Data(first) }))
    }
}

/// A thread that hashes chunks. It ends with its channels.
struct Worker {
    chunks: SyncSender<u64>,
    leaves: Receiver<Result<Vec<u8>>>,
}

impl Worker {
    fn start<'scope, F>(scope: &'scope Scope<'scope, '_>, hash: F) -> Result<Self>
    where
        F: Fn(u64, &mut PageBuffer) -> Result<Vec<u8>> + Send + 'scope,
    {
        let ((chunks, to_hash), (send, leaves)) = (sync_channel(AHEAD), sync_channel(AHEAD));
        let work = move || {
            let mut buffer = PageBuffer::default();
            for chunk in to_hash {
                if send.send(hash(chunk, &mut buffer)).is_err() {
                    return;
                }
            }
        };
        let started = thread::Builder::new().name("verity".to_owned()).spawn_scoped(scope, work);
        started.map_err(|e| Error::io("starting a thread", e))?;
        Ok(Self { chunks, leaves })
    }
}

fn panicked(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, "a worker thread panicked").with_source(e)
}

fn read_chunk(
    chunks: Chunks,
    data: &dyn ReadAt,
    chunk: u64,
    hash: &LeafHash,
    buffer: &mut PageBuffer,
) -> Result<Vec<u8>> {
    let (offset, size) = chunks.range(chunk);
    let buffer = buffer.first(size);
    read(data, buffer, offset)?;
    Ok(hash.leaves(buffer))
}

/// Fills `buffer` from `offset` on.
pub(crate) fn read(file: &dyn ReadAt, buffer: &mut [u8], offset: u64) -> Result<()> {
    file.read_exact_at(buffer, offset).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => VerityFault::Ended(buffer.len() as u64, offset).into(),
        _ => reading(e),
    })
}

fn reading(error: io::Error) -> Error {
    Error::io("reading what is to be verified", error)
}
