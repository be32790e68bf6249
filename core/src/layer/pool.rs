//! A fixed number of buffers that go round: memory stays bounded and warm, and a producer that runs ahead waits.

use std::ops::Deref;
use std::sync::mpsc::{self, Receiver, Sender};

/// Bytes of one buffer: a multiple of tar's 512, so that no header of a plain tar spans two of them.
pub(super) const CHUNK: usize = 256 << 10;
/// Buffers of one stage. Fits the caches of two cores, and covers short delays of a thread.
const CHUNKS: usize = 8;

/// The buffers of one stage.
pub(super) struct Pool {
    free: Receiver<Vec<u8>>,
    give_back: Sender<Vec<u8>>,
    unmade: usize,
}

impl Pool {
    pub(super) fn new() -> Self {
        let (give_back, free) = mpsc::channel();
        Self { free, give_back, unmade: CHUNKS }
    }

    /// An empty buffer; waits until one comes back when all are on their way.
    ///
    /// Every buffer comes back: its holder drops it, also when it panics.
    pub(super) fn take(&mut self) -> Chunk {
        let bytes = match self.free.try_recv() {
            Ok(bytes) => bytes,
            Err(_) if self.unmade > 0 => {
                self.unmade -= 1;
                vec![0; CHUNK]
            }
            // The pool holds a sender itself, so the channel cannot be found closed.
            Err(_) => self.free.recv().unwrap_or_default(),
        };
        Chunk { bytes, length: 0, give_back: self.give_back.clone() }
    }
}

/// A buffer and how much of it is filled. Goes back to its pool when dropped.
pub(super) struct Chunk {
    bytes: Vec<u8>,
    length: usize,
    give_back: Sender<Vec<u8>>,
}

impl Chunk {
    /// The part that is not filled yet.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.length..]
    }

    /// Marks the first `count` bytes of [`Chunk::room`] as filled.
    pub(super) fn filled(&mut self, count: usize) {
        self.length = (self.length + count).min(self.bytes.len());
    }

    pub(super) fn is_full(&self) -> bool {
        self.length == self.bytes.len()
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // A pool that is gone needs no buffers.
        let _ = self.give_back.send(std::mem::take(&mut self.bytes));
    }
}
