//! A fixed number of buffers that go round: memory stays bounded and warm, and a producer that runs ahead waits.

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::page_buffer::PageBuffer;

/// Bytes of one buffer: a multiple of tar's 512, so that no header of a plain tar spans two of them.
pub(super) const CHUNK: usize = 256 << 10;
/// Buffers of inflated bytes: they cover short delays of a thread. What comes back last is used first, so that few of them go
/// round, in the caches of two cores, while no thread is late.
pub(super) const INFLATED: usize = 16;
/// Buffers of bytes as they come.
pub(super) const READ: usize = 8;
/// Buffers that are kept for the next layers, 8 MiB: those of many small layers would be made anew for each of them.
const KEPT: usize = 32;
/// How many chunks are worth waking a thread for.
pub(super) const BATCH: usize = 4;

/// What layers that are done have left.
static LEFT: Mutex<Vec<PageBuffer>> = Mutex::new(Vec::new());

/// The buffers of one stage.
pub(super) struct Pool(Arc<Buffers>);

struct Buffers {
    state: Mutex<State>,
    /// Half of them are here.
    freed: Condvar,
}

struct State {
    size: usize,
    free: Vec<PageBuffer>,
    /// How many are here, those that were never made included.
    here: usize,
    is_awaited: bool,
}

impl Pool {
    /// So many buffers, each made when it is used first.
    pub(super) fn new(size: usize) -> Self {
        let state = State { size, free: Vec::new(), here: size, is_awaited: false };
        Self(Arc::new(Buffers { state: Mutex::new(state), freed: Condvar::new() }))
    }

    /// An empty buffer; `None` when all are on their way.
    pub(super) fn take(&self) -> Option<Chunk> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.here = state.here.checked_sub(1)?;
        let bytes = state.free.pop().or_else(|| left().pop()).unwrap_or_else(|| PageBuffer::new(CHUNK));
        Some(Chunk { bytes, length: 0, members: Edges::default(), home: self.0.clone() })
    }

    /// An empty buffer, which is waited for.
    pub(super) fn next(&self) -> Chunk {
        loop {
            match self.take() {
                Some(chunk) => return chunk,
                None => self.wait(Duration::MAX),
            }
        }
    }

    /// Waits until half of the buffers are here, so that a producer is not woken for each, or until the time is over.
    ///
    /// Every buffer comes back: its holder drops it, also when it panics.
    pub(super) fn wait(&self, at_most: Duration) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_awaited = true;
        let is_low = |state: &mut State| state.here < state.size / 2;
        let waited = self.0.freed.wait_timeout_while(state, at_most, is_low);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_awaited = false;
    }
}

fn left() -> MutexGuard<'static, Vec<PageBuffer>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Buffers {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut left = left();
        let room = KEPT.saturating_sub(left.len());
        left.extend(state.free.drain(..).take(room));
    }
}

/// Where members of a gzip stream begin and end in a chunk, as far as their CRC-32 is not compared yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Edges {
    /// Where the data of the member ends that began in an earlier chunk, and the CRC-32 that it has to have.
    pub(super) end: Option<(usize, u32)>,
    /// Where the data of the member begins that ends in a later chunk.
    pub(super) begin: Option<usize>,
}

/// A buffer and how much of it is filled. Goes back to its pool when dropped.
pub(super) struct Chunk {
    bytes: PageBuffer,
    length: usize,
    pub(super) members: Edges,
    home: Arc<Buffers>,
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
        let mut state = self.home.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.free.push(std::mem::take(&mut self.bytes));
        state.here += 1;
        if state.is_awaited && state.here >= state.size / 2 {
            self.home.freed.notify_one();
        }
    }
}
