//! How blocks are hashed: on how many threads, until when, and who hears of it.

use std::num::NonZero;

use plyfold_core::Progress;
use plyfold_core::blocking::Stop;
use plyfold_core::progress::Event;
use plyfold_core::worker::cores;

/// How blocks are hashed: on how many threads, until when, and who hears of it.
#[derive(Clone, Debug)]
pub struct Work {
    pub(crate) stop: Stop,
    pub(crate) threads: NonZero<usize>,
    progress: Progress,
}

impl Work {
    /// On as many threads as the machine runs at once, until `stop` says that the caller has given up.
    pub fn new(stop: &Stop) -> Self {
        Self { stop: stop.clone(), threads: all_threads(), progress: Progress::none() }
    }

    /// On so many threads. The outcome is the same for any number.
    #[must_use]
    pub fn threads(mut self, threads: NonZero<usize>) -> Self {
        self.threads = threads;
        self
    }

    /// With [`VerifyProgress`](Event::VerifyProgress) of the data, now and then.
    #[must_use]
    pub fn progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Says how much of so many bytes is done.
    pub(crate) fn done_of(&self, total: u64) -> Done<'_> {
        Done { progress: &self.progress, total, next: STEP }
    }
}

/// The bytes between two events.
const STEP: u64 = 64 << 20;

/// What is done of some data.
pub(crate) struct Done<'a> {
    progress: &'a Progress,
    total: u64,
    next: u64,
}

impl Done<'_> {
    pub(crate) fn at(&mut self, read: u64) {
        if read >= self.next {
            self.progress.emit(Event::VerifyProgress { read: read.min(self.total), total: self.total });
            self.next = read + STEP;
        }
    }
}

/// As many as the machine runs at once.
pub(crate) fn all_threads() -> NonZero<usize> {
    NonZero::new(cores()).unwrap_or(NonZero::<usize>::MIN)
}
