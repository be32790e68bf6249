//! Progress events. Sending never blocks a download, and every operation ends with a last event.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

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
    /// A blob is about to be downloaded. [`BlobDone`](Self::BlobDone) or [`BlobStopped`](Self::BlobStopped) follows, or, of a layer
    /// that is compressed anew, [`Converted`](Self::Converted).
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
    /// A layer was compressed anew, or a manifest rewritten, as it was asked for.
    Converted {
        /// Which layer or manifest.
        original: Digest,
        /// What it is now.
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
    /// A copy begins with the blobs of one more manifest, or a load with those of all its images. Some may be there already.
    Planned {
        /// Bytes of configs and layers together, each digest once.
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
    /// More content has been verified, or hashed for a tree. May be dropped for a slow reader: `read` is a total, not a step.
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
    sender: Option<UnboundedSender<Event>>,
    /// How many events wait for the reader.
    queued: Arc<AtomicUsize>,
    /// Whether the operation has sent its last event.
    ended: Option<Arc<Mutex<bool>>>,
}

/// The receiving side of [`Progress::channel`].
#[derive(Debug)]
pub struct Events {
    receiver: UnboundedReceiver<Event>,
    queued: Arc<AtomicUsize>,
}

/// Events held for a slow reader before droppable ones are dropped. Others are few: a handful for each layer.
const CAPACITY: usize = 1024;

impl Progress {
    /// A sender and its receiver.
    pub fn channel() -> (Self, Events) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let progress = Self { sender: Some(sender), ..Self::default() };
        let queued = Arc::clone(&progress.queued);
        (progress, Events { receiver, queued })
    }

    /// Discards all events.
    pub fn none() -> Self {
        Self::default()
    }

    /// Sends an event. Never blocks; only [`Event::BlobProgress`] and [`Event::VerifyProgress`] are ever dropped.
    pub fn emit(&self, event: Event) {
        let Some(sender) = &self.sender else { return };
        // A slow reader may miss these: a later one says the same and more.
        let is_droppable = matches!(event, Event::BlobProgress { .. } | Event::VerifyProgress { .. });
        if is_droppable && self.queued.load(Ordering::Relaxed) >= CAPACITY {
            return;
        }
        // Under the lock: an event of another thread is sent before the last event or not at all.
        let mut ended = self.ended.as_ref().map(|ended| ended.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(ended) = ended.as_deref_mut()
            && std::mem::replace(ended, *ended || matches!(event, Event::Finished { .. }))
        {
            return;
        }
        self.queued.fetch_add(1, Ordering::Relaxed);
        // It fails when the reader is gone.
        let _ = sender.send(event);
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
        let progress = Self { ended: Some(ended), ..self.clone() };
        Operation { progress, success: false, ends_here: self.ended.is_none() }
    }

    /// Sends that a transfer of a blob begins, and later that it is done or stopped.
    pub(crate) fn start(&self, blob: &Descriptor, resumed_at: u64) -> Started {
        let (digest, size) = (blob.digest().clone(), blob.size());
        self.emit(Event::BlobStarted { digest: digest.clone(), size, resumed_at });
        Started { progress: self.clone(), digest, size, is_done: false, became: None }
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

/// A blob in transfer. Dropping it sends [`Event::BlobStopped`], and [`Event::BlobDone`] or [`Event::Converted`] at its end.
#[derive(Debug)]
pub(crate) struct Started {
    progress: Progress,
    digest: Digest,
    size: u64,
    is_done: bool,
    became: Option<Digest>,
}

impl Started {
    pub(crate) fn done(mut self) {
        self.is_done = true;
    }

    /// It was read, and another blob made of it.
    pub(crate) fn became(mut self, digest: &Digest) {
        self.became = Some(digest.clone());
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let digest = self.digest.clone();
        self.progress.emit(match self.became.take() {
            Some(made) => Event::Converted { original: digest, digest: made },
            None if self.is_done => Event::BlobDone { digest, size: self.size, cached: false },
            None => Event::BlobStopped { digest },
        });
    }
}

impl Events {
    /// The next event; `None` when every sender is gone and all events are read.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.receiver.recv().await?;
        self.queued.fetch_sub(1, Ordering::Relaxed);
        Some(event)
    }
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
