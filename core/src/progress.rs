//! Progress events. Sending never blocks a download, and every operation ends with a last event.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::{Descriptor, Digest, Result};

/// A progress event of a pull or a conversion. As JSON it has its name in `event`, as in `"event": "blob-done"`.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// A blob is there, verified and durable.
    BlobDone {
        /// Which blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// Whether it was there before.
        cached: bool,
    },
    /// An attempt to read a blob has been answered: its bytes come now.
    BlobOpened {
        /// Which blob.
        digest: Digest,
        /// The endpoint that answered: the backend, or the host that it was redirected to.
        endpoint: String,
        /// Which attempt this is, from 1.
        attempt: u32,
    },
    /// More bytes of a blob have arrived. May be dropped for a slow reader: `received` is a total, not a step.
    BlobProgress {
        /// Which blob.
        digest: Digest,
        /// Bytes so far, from 0.
        received: u64,
    },
    /// A blob is about to be downloaded. [`BlobDone`](Self::BlobDone) or [`BlobStopped`](Self::BlobStopped) follows.
    BlobStarted {
        /// Which blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// Bytes that an earlier attempt left.
        resumed_at: u64,
    },
    /// A blob that was [started](Self::BlobStarted) was not completed: there was an error, or the transfer was
    /// cancelled.
    BlobStopped {
        /// Which blob.
        digest: Digest,
    },
    /// The last event: nothing follows.
    Finished {
        /// Whether the operation succeeded.
        success: bool,
    },
    /// The files of a format of the whole image are there.
    FormatDone {
        /// Which format, with its version and options.
        format: String,
        /// Whether all of them were there before.
        cached: bool,
    },
    /// A layer has become a block-device file.
    LayerDone {
        /// The layer's blob.
        digest: Digest,
        /// The digest of its uncompressed tar.
        diff_id: Digest,
        /// Whether the file was there before.
        cached: bool,
    },
    /// A copy begins with the blobs of one more manifest, some of which may be there already.
    Planned {
        /// Bytes of its config and layers together, each digest once.
        size: u64,
    },
    /// The image has been found.
    Resolved {
        /// The image's name.
        image: String,
        /// The digest of its manifest.
        digest: Digest,
        /// Bytes of its config and layers together.
        size: u64,
    },
    /// An attempt failed and another will follow.
    Retrying {
        /// Which blob or manifest, as text.
        what: String,
        /// How many attempts have failed, from 1.
        attempt: u32,
        /// Why the last one did.
        reason: String,
    },
    /// More content has been verified. May be dropped for a slow reader: `read` is a total, not a step.
    VerifyProgress {
        /// Bytes so far, from 0.
        read: u64,
        /// Bytes altogether.
        total: u64,
    },
    /// Another task or process fetches the same image or blob, or makes the same artifact:
    /// this pull waits, and takes over if that one fails.
    Waiting {
        /// Which image, blob or layer, as text.
        what: String,
    },
    /// Something the user should know; the operation goes on.
    Warning {
        /// One line.
        message: String,
    },
}

impl Event {
    /// Events that a slow reader may miss: a later one says the same and more.
    fn is_droppable(&self) -> bool {
        matches!(self, Self::BlobProgress { .. } | Self::VerifyProgress { .. })
    }
}

/// Where events go. Sending never waits and never fails; cloning is cheap.
///
/// ```
/// use plyfold_core::progress::{Event, Progress};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let (progress, mut events) = Progress::channel();
/// progress.emit(Event::Finished { success: true });
/// drop(progress);
/// assert_eq!(events.next().await, Some(Event::Finished { success: true }));
/// assert_eq!(events.next().await, None);
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Progress {
    sender: Option<Arc<Sender>>,
    /// Whether the operation has sent its last event.
    ended: Option<Arc<AtomicBool>>,
}

/// The receiving side of [`Progress::channel`].
#[derive(Debug)]
pub struct Events(Arc<Shared>);

#[derive(Debug)]
struct Sender(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Event>,
    closed: bool,
    abandoned: bool,
}

/// Events held for a slow reader before droppable ones are dropped. Others are few: a handful for each layer.
const CAPACITY: usize = 1024;

impl Progress {
    /// A sender and its receiver.
    pub fn channel() -> (Self, Events) {
        let shared = Arc::new(Shared::default());
        (Self { sender: Some(Arc::new(Sender(shared.clone()))), ended: None }, Events(shared))
    }

    /// Discards all events.
    pub fn none() -> Self {
        Self::default()
    }

    /// Sends an event. Never blocks; only [`Event::BlobProgress`] and [`Event::VerifyProgress`] are ever dropped.
    pub fn emit(&self, event: Event) {
        let Some(sender) = &self.sender else { return };
        let mut state = lock(&sender.0.state);
        if state.abandoned || (event.is_droppable() && state.queue.len() >= CAPACITY) {
            return;
        }
        // Under the lock: an event of another thread is sent before the last event or not at all.
        if let Some(ended) = &self.ended {
            let is_end = matches!(event, Event::Finished { .. });
            if ended.fetch_or(is_end, Ordering::Relaxed) {
                return;
            }
        }
        state.queue.push_back(event);
        drop(state);
        sender.0.changed.notify_one();
    }

    /// Begins an operation, whose last event is [`Event::Finished`] in every case. One that is a part of another, by
    /// whose [progress](Operation::progress) it begins, has no last event of its own.
    ///
    /// ```
    /// use plyfold_core::progress::{Event, Progress};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let (progress, mut events) = Progress::channel();
    /// let operation = progress.operation();
    /// let told = operation.progress().clone();
    /// drop(operation);
    /// told.emit(Event::Warning { message: "too late".to_owned() });
    /// drop((progress, told));
    /// assert_eq!(events.next().await, Some(Event::Finished { success: false }));
    /// assert_eq!(events.next().await, None);
    /// # });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn operation(&self) -> Operation {
        let ended = self.ended.clone().unwrap_or_default();
        let progress = Self { sender: self.sender.clone(), ended: Some(ended) };
        Operation { progress, success: false, ends_here: self.ended.is_none() }
    }

    /// Sends that a transfer of a blob begins, and later that it is done or stopped.
    pub(crate) fn start(&self, blob: &Descriptor, resumed_at: u64) -> Started {
        let (digest, size) = (blob.digest().clone(), blob.size());
        self.emit(Event::BlobStarted { digest: digest.clone(), size, resumed_at });
        Started { progress: self.clone(), digest, size, is_done: false }
    }
}

/// A piece of work with a last event. Dropping it sends that it has failed.
#[derive(Debug)]
pub struct Operation {
    progress: Progress,
    success: bool,
    ends_here: bool,
}

impl Operation {
    /// Where the events of this operation go. What comes after its end is dropped.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Ends the operation as `outcome` says.
    ///
    /// # Errors
    /// Those of `outcome`.
    pub fn end<T>(mut self, outcome: Result<T>) -> Result<T> {
        self.success = outcome.is_ok();
        outcome
    }

    /// Leaves the last event to another operation, which begins now.
    pub fn hand_over(mut self) {
        self.ends_here = false;
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if self.ends_here {
            self.progress.emit(Event::Finished { success: self.success });
        }
    }
}

/// A blob in transfer. Dropping it sends [`Event::BlobStopped`].
#[derive(Debug)]
pub(crate) struct Started {
    progress: Progress,
    digest: Digest,
    size: u64,
    is_done: bool,
}

impl Started {
    pub(crate) fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let digest = self.digest.clone();
        self.progress.emit(if self.is_done {
            Event::BlobDone { digest, size: self.size, cached: false }
        } else {
            Event::BlobStopped { digest }
        });
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        lock(&self.0.state).closed = true;
        self.0.changed.notify_one();
    }
}

impl Events {
    /// The next event; `None` when every sender is gone and all events are read.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            {
                let mut state = lock(&self.0.state);
                if let Some(event) = state.queue.pop_front() {
                    return Some(event);
                }
                if state.closed {
                    return None;
                }
            }
            self.0.changed.notified().await;
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.abandoned = true;
        state.queue.clear();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Every change of the queue is one call, so a poisoned lock is consistent.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_never_reads_blocks_nothing_and_still_gets_the_end() {
        let (progress, mut events) = Progress::channel();
        let digest = crate::digest::sha256(b"");
        for received in 0..100_000 {
            progress.emit(Event::BlobProgress { digest: digest.clone(), received });
        }
        progress.emit(Event::Finished { success: true });
        drop(progress);
        let (mut count, mut last) = (0, None);
        while let Some(event) = events.next().await {
            (count, last) = (count + 1, Some(event));
        }
        assert_eq!(last, Some(Event::Finished { success: true }));
        assert_eq!(count, CAPACITY + 1);
    }

    #[tokio::test]
    async fn a_part_of_an_operation_does_not_end_it() {
        let (progress, mut events) = Progress::channel();
        let whole = progress.operation();
        drop(whole.progress().operation());
        whole.progress().operation().end(Ok(())).unwrap();
        whole.progress().emit(Event::Warning { message: "on".to_owned() });
        let late = whole.progress().operation();
        whole.end(Ok(())).unwrap();
        late.progress().emit(Event::Warning { message: "too late".to_owned() });
        drop((progress, late));
        assert_eq!(events.next().await, Some(Event::Warning { message: "on".to_owned() }));
        assert_eq!(events.next().await, Some(Event::Finished { success: true }));
        assert_eq!(events.next().await, None);
    }
}
