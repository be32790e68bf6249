//! A runtime beside the caller's: renewals, removals and requests of blocking threads go on there, whatever the caller's
//! threads do.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::mpsc::sync_channel;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plyfold_core::{Error, ErrorKind, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;

/// Threads of the runtime: they wait for the network, and compute nothing.
const THREADS: usize = 2;

/// The longest wait for removals of this process that have begun.
const PATIENCE: Duration = Duration::from_secs(10);

static RUNTIME: LazyLock<Result<Runtime, std::io::ErrorKind>> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(THREADS).thread_name("plyfold-bucket").enable_all();
    builder.build().map_err(|e| e.kind())
});

/// Removals that are under way, by their numbers.
static REMOVALS: LazyLock<Removals> = LazyLock::new(Removals::default);

#[derive(Default)]
struct Removals {
    running: Mutex<(u64, BTreeSet<u64>)>,
    ended: Notify,
}

impl Removals {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeSet<u64>)> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The runtime, which is started by the first call in a process and runs as long as it.
///
/// # Errors
/// [`Io`](ErrorKind::Io) when the system has no thread for it.
pub(crate) fn handle() -> Result<Handle> {
    match &*RUNTIME {
        Ok(runtime) => Ok(runtime.handle().clone()),
        Err(kind) => Err(Error::io("starting a thread for requests", (*kind).into())),
    }
}

/// Ends when it is dropped, also by a panic of the task.
struct Removal(u64);

impl Drop for Removal {
    fn drop(&mut self) {
        REMOVALS.lock().1.remove(&self.0);
        REMOVALS.ended.notify_waiters();
    }
}

/// Runs the end of something that was dropped: [`settled`] waits for it.
pub(crate) fn remove(work: impl Future<Output = ()> + Send + 'static) {
    let Ok(handle) = handle() else { return };
    let removal = {
        let mut running = REMOVALS.lock();
        running.0 += 1;
        let number = running.0;
        running.1.insert(number);
        Removal(number)
    };
    handle.spawn(async move {
        work.await;
        drop(removal);
    });
}

/// Waits until what this process has dropped before is ended in the bucket, too: a collection would otherwise meet leases
/// that have no holder.
pub(crate) async fn settled() {
    let newest = REMOVALS.lock().0;
    let ended = async {
        loop {
            let mut changed = std::pin::pin!(REMOVALS.ended.notified());
            changed.as_mut().enable();
            if REMOVALS.lock().1.first().is_none_or(|oldest| *oldest > newest) {
                return;
            }
            changed.await;
        }
    };
    // What takes longer is waited for by its expiry.
    let _ = tokio::time::timeout(PATIENCE, ended).await;
}

/// Waits on this thread for requests. The thread may be one of the caller's runtime.
///
/// # Errors
/// Those of `work`.
pub(crate) fn wait<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let (done, outcome) = sync_channel(1);
    handle()?.spawn(async move { drop(done.send(work.await)) });
    outcome.recv().map_err(|_| Error::new(ErrorKind::Internal, "a request has ended without an outcome"))?
}
