//! Blocking work that ends when its future is dropped.

use std::io::{self, Read};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{Either, select};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::worker::Workers;
use crate::{Error, ErrorKind, Result};

/// Runs blocking work on a thread of the runtime's pool. When the returned future is dropped, the [`Stop`] that the work
/// holds says so.
///
/// # Errors
/// Those of `work`.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&Stop) -> Result<T> + Send + 'static,
) -> Result<T> {
    let guard = StopOnDrop::default();
    let stop = guard.0.clone();
    let outcome = tokio::task::spawn_blocking(move || work(&stop)).await;
    outcome.map_err(|e| Error::new(ErrorKind::Internal, "a worker thread panicked").with_source(e))?
}

/// As [`blocking`], on a thread of its own: work that may wait for other work would keep a thread from it that it
/// needs.
///
/// # Errors
/// Those of `work`; [`Io`](crate::ErrorKind::Io) when the system has no thread left.
pub async fn alone<T: Send + 'static>(
    name: &str,
    work: impl FnOnce(&Stop) -> Result<T> + Send + 'static,
) -> Result<T> {
    let workers = Workers::new();
    // Dropped before the workers: the thread is asked to stop first, and then waited for.
    let guard = StopOnDrop::default();
    let stop = guard.0.clone();
    let outcome = workers.run(name, move || work(&stop))?.await;
    drop(guard);
    workers.done();
    outcome
}

/// Whether work on a thread should end early. Clones are one flag.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    /// Wakes what waits for a future.
    changed: Arc<Notify>,
}

impl Stop {
    /// An error once the future of the work was dropped.
    ///
    /// # Errors
    /// [`Cancelled`](crate::ErrorKind::Cancelled).
    pub fn check(&self) -> Result<()> {
        if self.flag.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled, "the work was cancelled"));
        }
        Ok(())
    }

    /// The flag itself: whether the future was dropped.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }

    /// Waits on this thread, which is none of the runtime's own, for a future of `runtime`, or for the work to be cancelled.
    pub(crate) fn wait<T>(&self, runtime: &Handle, future: impl Future<Output = Result<T>>) -> Result<T> {
        runtime.block_on(async {
            // Registered before the flag is read, so that no cancellation is missed.
            let mut stopped = pin!(self.changed.notified());
            stopped.as_mut().enable();
            self.check()?;
            match select(pin!(future), stopped).await {
                Either::Left((outcome, _)) => outcome,
                Either::Right(_) => self
                    .check()
                    .and_then(|()| Err(Error::new(ErrorKind::Internal, "a wait ended before its future"))),
            }
        })
    }

    fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// A reader that returns an error once the work is cancelled.
    pub fn reader<R: Read>(&self, reader: R) -> StoppableReader<R> {
        StoppableReader { stop: self.clone(), reader }
    }
}

/// Made by [`Stop::reader`].
#[derive(Debug)]
pub struct StoppableReader<R> {
    stop: Stop,
    reader: R,
}

impl<R: Read> Read for StoppableReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stop.check()?;
        self.reader.read(buf)
    }
}

/// What waits for work. Dropping it stops the work.
#[derive(Debug, Default)]
pub(crate) struct StopOnDrop(pub(crate) Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_that_nobody_waits_for_ends() {
        let (started, is_started) = oneshot::channel();
        let (ended, has_ended) = oneshot::channel();
        let work = blocking(move |stop| {
            let _ = started.send(());
            let mut sink = io::sink();
            let outcome = io::copy(&mut stop.reader(io::repeat(0)), &mut sink);
            let _ = ended.send(outcome.map_err(Error::from));
            Ok(())
        });
        tokio::select! {
            outcome = work => panic!("endless work ended by itself: {outcome:?}"),
            _ = is_started => {}
        }
        let error = has_ended.await.unwrap().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Cancelled);
    }
}
