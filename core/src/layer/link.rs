//! What goes from the thread that makes a layer's bytes to the one that reads them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::fault::LayerFault;
use super::piece::{Piece, Totals};
use super::pool::{BATCH, Chunk};
use crate::Result;

/// How long the reader waits for more than one chunk.
const SLOW: Duration = Duration::from_millis(2);

/// The chunks that are made and not read yet. Their number is bounded by that of the buffers.
#[derive(Default)]
pub(super) struct Link {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Arc<Chunk>>,
    /// Follows the chunks.
    end: Option<Result<Totals>>,
    /// How many chunks the reader waits for.
    awaited: usize,
    /// The reader is gone.
    is_closed: bool,
}

impl Link {
    /// Hands over a chunk.
    pub(super) fn put(&self, chunk: Arc<Chunk>) {
        let mut state = self.state();
        if state.is_closed {
            return;
        }
        state.chunks.push_back(chunk);
        if state.awaited > 0 && state.chunks.len() >= state.awaited {
            state.awaited = 0;
            self.changed.notify_one();
        }
    }

    /// Hands over what follows the last chunk. Only the first end counts.
    pub(super) fn end(&self, end: Result<Totals>) {
        let mut state = self.state();
        state.end.get_or_insert(end);
        state.awaited = 0;
        self.changed.notify_one();
    }

    /// Whether the reader is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// The reader is gone.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        let chunks = std::mem::take(&mut state.chunks);
        drop(state);
        // They wake a maker that waits for buffers.
        drop(chunks);
    }

    /// Waits for the next piece. Helps the maker before it waits, and with what the chunks that were read have left to do:
    /// `help` does some of that if there is more of it than so many chunks have, and says whether it did.
    pub(super) fn next(&self, help: impl Fn(usize) -> bool) -> Result<Piece<Totals>> {
        loop {
            let mut state = self.state();
            if state.chunks.is_empty() && state.end.is_none() {
                drop(state);
                if help(0) {
                    continue;
                }
                state = self.wait();
            }
            if let Some(chunk) = state.chunks.pop_front() {
                let later = state.chunks.len();
                drop(state);
                while help(later) {}
                return Ok(Piece::Data(chunk));
            }
            if let Some(end) = state.end.take() {
                return end.map(Piece::End);
            }
        }
    }

    /// Waits for a batch of chunks, so that the maker need not wake the reader for each; of a slow source for one.
    fn wait(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        let is_idle = |state: &mut State| state.chunks.len() < state.awaited.max(1) && state.end.is_none();
        state.awaited = BATCH;
        let (mut state, _) =
            self.changed.wait_timeout_while(state, SLOW, is_idle).unwrap_or_else(PoisonError::into_inner);
        if state.chunks.is_empty() && state.end.is_none() {
            state.awaited = 1;
            state = self.changed.wait_while(state, is_idle).unwrap_or_else(PoisonError::into_inner);
        }
        state.awaited = 0;
        state
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The maker's end: a thread that ends without an end, by a panic, leaves an error as the end.
pub(super) struct Maker(pub(super) Arc<Link>);

impl Drop for Maker {
    fn drop(&mut self) {
        self.0.end(Err(LayerFault::Thread.into()));
    }
}

/// The reader's end.
pub(super) struct Reader(pub(super) Arc<Link>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.close();
    }
}
