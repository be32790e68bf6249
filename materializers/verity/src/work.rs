//! How blocks are hashed: on how many threads, and until when.

use std::num::NonZero;
use std::thread;

use plyfold_core::blocking::Stop;

/// How blocks are hashed: on how many threads, and until when.
#[derive(Clone, Debug)]
pub struct Work {
    pub(crate) stop: Stop,
    pub(crate) threads: NonZero<usize>,
}

impl Work {
    /// On as many threads as the machine runs at once, until `stop` says that the caller has given up.
    pub fn new(stop: &Stop) -> Self {
        Self { stop: stop.clone(), threads: all_threads() }
    }

    /// On so many threads. The outcome is the same for any number.
    #[must_use]
    pub fn threads(mut self, threads: NonZero<usize>) -> Self {
        self.threads = threads;
        self
    }
}

/// As many as the machine runs at once.
pub(crate) fn all_threads() -> NonZero<usize> {
    thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN)
}
