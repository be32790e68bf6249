//! Threads that hash data which one thread hands over, chunk by chunk and in order.

use std::num::NonZero;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use plyfold_core::{Error, ErrorKind, Result};

use crate::leaves::LeafHash;
use crate::parameters::Parameters;

/// The most threads: one reader or writer keeps no more of them busy.
const MOST: usize = 8;
/// How many chunks each thread has.
const AHEAD: u64 = 2;

/// A chunk of data, and the blocks of the lowest level that it makes.
pub(crate) type HashedChunk = (Vec<u8>, Vec<u8>);

/// The threads. They end with this value.
pub(crate) struct HashPool {
    parameters: Parameters,
    threads: usize,
    /// The number of a chunk says which one hashes it.
    workers: Vec<Worker>,
    sent: u64,
    taken: u64,
}

struct Worker {
    chunks: SyncSender<Vec<u8>>,
    hashed: Receiver<HashedChunk>,
    thread: JoinHandle<()>,
}

impl HashPool {
    /// At most so many threads, each of which is started when there is work for it.
    pub(crate) fn new(parameters: Parameters, threads: NonZero<usize>) -> Self {
        Self { parameters, threads: threads.get().min(MOST), workers: Vec::new(), sent: 0, taken: 0 }
    }

    /// Hands over the next chunk. When the threads have enough, the first one that they have comes back.
    pub(crate) fn push(&mut self, chunk: Vec<u8>) -> Result<Option<HashedChunk>> {
        let is_full = self.sent - self.taken == AHEAD * self.threads as u64;
        let first = if is_full { self.take()? } else { None };
        let at = self.worker(self.sent);
        if at == self.workers.len() {
            self.workers.push(Worker::start(self.parameters.clone())?);
        }
        self.workers[at].chunks.send(chunk).map_err(|_| panicked())?;
        self.sent += 1;
        Ok(first)
    }

    /// The first chunk that was handed over and has not come back.
    pub(crate) fn take(&mut self) -> Result<Option<HashedChunk>> {
        if self.taken == self.sent {
            return Ok(None);
        }
        let hashed = self.workers[self.worker(self.taken)].hashed.recv().map_err(|_| panicked())?;
        self.taken += 1;
        Ok(Some(hashed))
    }

    fn worker(&self, chunk: u64) -> usize {
        (chunk % self.threads as u64) as usize
    }
}

impl Drop for HashPool {
    fn drop(&mut self) {
        for Worker { chunks, hashed, thread } in self.workers.drain(..) {
            drop((chunks, hashed));
            // A panic of it has ended `push` or `take` with an error already.
            let _ = thread.join();
        }
    }
}

impl Worker {
    fn start(parameters: Parameters) -> Result<Self> {
        let (chunks, to_hash) = sync_channel::<Vec<u8>>(AHEAD as usize);
        let (send, hashed) = sync_channel(AHEAD as usize);
        let work = move || {
            let hash = LeafHash::new(&parameters);
            for chunk in to_hash {
                let leaves = hash.leaves(&chunk);
                if send.send((chunk, leaves)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("verity".to_owned()).spawn(work);
        Ok(Self { chunks, hashed, thread: thread.map_err(|e| Error::io("starting a thread", e))? })
    }
}

fn panicked() -> Error {
    Error::new(ErrorKind::Internal, "a worker thread panicked")
}
