//! The lowest level of a hash tree, computed from the data on several threads.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use plyfold_core::{Error, ErrorKind, ReadAt, Result};
use sha2::{Digest as _, Sha256};

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
        Self(Sha256::new_with_prefix(salt))
    }

    /// In hash type 1 the salt stands in front of the block.
    pub(crate) fn digest(&self, block: &[u8]) -> [u8; DIGEST] {
        self.0.clone().chain_update(block).finalize().into()
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

/// Hands over the lowest level of the tree, chunk by chunk and in order: complete blocks, padded with zeros. They are made
/// on several threads, each of which holds a chunk and the digests of a few more.
pub(crate) fn each_chunk(
    layout: &TreeLayout,
    data: &dyn ReadAt,
    work: &Work,
    mut each: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let chunks = Chunks::new(layout);
    let threads = chunks.count().min(work.threads.get() as u64);
    thread::scope(|scope| {
        let mut hashed = Vec::new();
        for number in 0..threads {
            let (send, receive) = sync_channel(AHEAD);
            let hash = move || {
                let own = (number..chunks.count()).step_by(threads as usize);
                hash_chunks(layout, data, work, own, &send);
            };
            let started = thread::Builder::new().name("verity".to_owned()).spawn_scoped(scope, hash);
            started.map_err(|e| Error::io("starting a thread", e))?;
            hashed.push(receive);
        }
        for (chunk, receive) in (0..chunks.count()).zip(hashed.iter().cycle()) {
            let panicked = |e| Error::new(ErrorKind::Internal, "a worker thread panicked").with_source(e);
            each(chunk, &receive.recv().map_err(panicked)??)?;
        }
        Ok(())
    })
}

/// Ends early when its digests are not wanted any more.
fn hash_chunks(
    layout: &TreeLayout,
    data: &dyn ReadAt,
    work: &Work,
    chunks: impl Iterator<Item = u64>,
    send: &SyncSender<Result<Vec<u8>>>,
) {
    let (hash, mut buffer) = (BlockHash::new(layout.parameters().salt()), Vec::new());
    for chunk in chunks {
        let leaves = read_chunk(layout, data, work, chunk, &hash, &mut buffer);
        let failed = leaves.is_err();
        if send.send(leaves).is_err() || failed {
            return;
        }
    }
}

fn read_chunk(
    layout: &TreeLayout,
    data: &dyn ReadAt,
    work: &Work,
    chunk: u64,
    hash: &BlockHash,
    buffer: &mut Vec<u8>,
) -> Result<Vec<u8>> {
    work.stop.check()?;
    let (offset, size) = Chunks::new(layout).range(chunk);
    buffer.resize(size, 0);
    read(data, buffer, offset)?;
    Ok(hash_chunk(layout.parameters(), buffer, hash))
}

/// The blocks of the lowest level that complete blocks of data make.
pub(crate) fn hash_chunk(parameters: &Parameters, data: &[u8], hash: &BlockHash) -> Vec<u8> {
    let data_block = parameters.data_block_size() as usize;
    let size = (data.len() / data_block * DIGEST).next_multiple_of(parameters.hash_block_size() as usize);
    let mut leaves = Vec::with_capacity(size);
    for block in data.chunks_exact(data_block) {
        leaves.extend_from_slice(&hash.digest(block));
    }
    leaves.resize(size, 0);
    leaves
}

/// Fills `buffer` from `offset` on.
pub(crate) fn read(file: &dyn ReadAt, buffer: &mut [u8], offset: u64) -> Result<()> {
    file.read_exact_at(buffer, offset).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => VerityFault::Ended(buffer.len() as u64, offset).into(),
        _ => Error::io("reading what is to be verified", e),
    })
}
