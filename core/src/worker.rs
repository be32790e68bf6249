//! Threads beside the runtime's, and how to wait for their end.

use std::convert::Infallible;
use std::num::NonZero;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::{Error, ErrorKind, Result};

mod idle;

/// How many threads this process could run at once when it was asked first: asking the system means reading several files.
pub fn cores() -> usize {
    static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, NonZero::get));
    *CORES
}

/// Threads that work for one call, each as long as a download: in a runtime's pool they would occupy the threads that
/// their input needs.
///
/// Dropping it cancels the call. The threads have to see that by themselves, by an input that ends; and
/// because they hold files that are half made, the program should wait for them before it ends. So one thread of the
/// runtime's pool waits, and a runtime that is shut down ends after it. Without a runtime the dropping thread itself
/// waits. Each waits [`Workers::PATIENCE`] at most: a disk that hangs does not keep the program running.
#[derive(Debug)]
pub struct Workers {
    /// Cloned into every thread; all are gone when the last thread has ended.
    alive: Option<Sender<Infallible>>,
    /// In a mutex because futures that are sent between threads refer to it.
    ended: Mutex<Option<Ended>>,
}

impl Workers {
    /// The longest wait for threads whose work was cancelled.
    pub const PATIENCE: Duration = Duration::from_secs(10);

    /// No threads yet.
    pub fn new() -> Self {
        let (alive, ended) = mpsc::channel();
        Self { alive: Some(alive), ended: Mutex::new(Some(Ended(ended))) }
    }

    /// Starts work on a thread that has done other work, or on a new one.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when the system has none left.
    pub fn start(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let alive = self.alive.clone();
        idle::start(name, move || {
            // What the work holds goes before the sign that it has ended.
            work();
            drop(alive);
        })
    }

    /// As [`start`](Self::start), with the outcome of the work. What is made after that was dropped is dropped, too.
    ///
    /// # Errors
    /// As [`start`](Self::start); those of the work come with its outcome.
    pub fn run<T, W>(&self, name: &str, work: W) -> Result<impl Future<Output = Result<T>> + use<T, W>>
    where
        T: Send + 'static,
        W: FnOnce() -> Result<T> + Send + 'static,
    {
        let (done, outcome) = oneshot::channel();
        self.start(name, move || drop(done.send(work())))?;
        let panicked = |e| Error::new(ErrorKind::Internal, "a worker thread panicked").with_source(e);
        Ok(async move { outcome.await.map_err(panicked)? })
    }

    /// Waits until the threads have ended, [`Workers::PATIENCE`] at most.
    pub async fn ended(mut self) {
        let Some(ended) = self.running() else { return };
        // A runtime that is being shut down drops the work instead: then that is the wait.
        let _ = tokio::task::spawn_blocking(move || drop(ended)).await;
    }

    /// Marks the work as done: the threads need not be waited for.
    pub fn done(mut self) {
        if let Some(Ended(channel)) = self.running().as_mut() {
            // One whose senders are gone is waited for no time at all.
            *channel = mpsc::channel().1;
        }
    }

    /// Ends when the threads end; `None` when they have ended.
    fn running(&mut self) -> Option<Ended> {
        self.alive = None;
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner).take()?;
        matches!(ended.0.try_recv(), Err(TryRecvError::Empty)).then_some(ended)
    }
}

impl Default for Workers {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let Some(ended) = self.running() else { return };
        if let Ok(runtime) = Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(ended)));
        }
    }
}

/// Dropping it is the wait.
#[derive(Debug)]
struct Ended(Receiver<Infallible>);

impl Drop for Ended {
    fn drop(&mut self) {
        // Nothing is ever sent: it returns when the last thread has ended.
        let _ = self.0.recv_timeout(Workers::PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A thread that goes on for a while after it was given up.
    fn busy() -> (Workers, Arc<AtomicBool>) {
        let (workers, has_ended) = (Workers::new(), Arc::new(AtomicBool::new(false)));
        let flag = Arc::clone(&has_ended);
        let work = move || {
            thread::sleep(Duration::from_millis(100));
            flag.store(true, Ordering::SeqCst);
        };
        workers.start("busy", work).unwrap();
        (workers, has_ended)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn a_runtime_ends_after_threads_that_were_given_up_and_async_code_does_not_wait() {
        let runtime = runtime();
        let has_ended = runtime.block_on(async {
            let (workers, has_ended) = busy();
            drop(workers);
            assert!(!has_ended.load(Ordering::SeqCst), "dropping it blocks");
            has_ended
        });
        drop(runtime);
        assert!(has_ended.load(Ordering::SeqCst));
    }

    #[test]
    fn the_end_can_be_waited_for_and_without_a_runtime_it_is() {
        let has_ended = runtime().block_on(async {
            let (workers, has_ended) = busy();
            workers.ended().await;
            has_ended
        });
        assert!(has_ended.load(Ordering::SeqCst));
        let (workers, has_ended) = busy();
        drop(workers);
        assert!(has_ended.load(Ordering::SeqCst));
    }

    #[test]
    fn finished_work_is_not_waited_for() {
        let (workers, has_ended) = busy();
        workers.done();
        assert!(!has_ended.load(Ordering::SeqCst));
        runtime().block_on(Workers::new().ended());
    }
}
