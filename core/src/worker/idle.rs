//! Threads that have done their work, and wait a while for more: many small layers would start several threads each.

use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::{Error, Result};

/// How many threads wait at most.
const KEPT: usize = 16;
/// How long a thread waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// Work, and how its thread is called meanwhile.
type Work = (CString, Box<dyn FnOnce() + Send>);

/// The threads that wait, by their numbers.
static IDLE: Mutex<Vec<(thread::ThreadId, Sender<Work>)>> = Mutex::new(Vec::new());

/// Starts work on a thread that waits, or on a new one.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) when the system has no thread left.
pub(super) fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let mut work: Work = (CString::new(name).unwrap_or_default(), Box::new(work));
    while let Some((_, thread)) = { idle().pop() } {
        let Err(mpsc::SendError(unsent)) = thread.send(work) else { return Ok(()) };
        work = unsent;
    }
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || serve(work));
    started.map(drop).map_err(|e| Error::io("starting a thread", e))
}

/// Does the work, and what else comes.
fn serve(first: Work) {
    let (sender, works) = mpsc::channel();
    let mut next = Some(first);
    while let Some((name, work)) = next {
        // A thread whose name cannot be changed works as well.
        let _ = rustix::thread::set_name(&name);
        // The message of a panic is printed; who waits for the outcome sees that there is none.
        let _ = catch_unwind(AssertUnwindSafe(work));
        next = wait(&sender, &works);
    }
}

/// The next work of this thread; `None` when it is to end.
fn wait(sender: &Sender<Work>, works: &Receiver<Work>) -> Option<Work> {
    let own = thread::current().id();
    {
        let mut idle = idle();
        if idle.len() >= KEPT {
            return None;
        }
        idle.push((own, sender.clone()));
    }
    let _ = rustix::thread::set_name(c"plyfold-idle");
    works.recv_timeout(PATIENCE).ok().or_else(|| {
        let mut idle = idle();
        let before = idle.len();
        idle.retain(|(thread, _)| *thread != own);
        let is_taken = idle.len() == before;
        drop(idle);
        // Who has taken this thread from the list is about to send.
        if is_taken { works.recv().ok() } else { None }
    })
}

fn idle() -> MutexGuard<'static, Vec<(thread::ThreadId, Sender<Work>)>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::mpsc::channel;

    use super::*;

    /// The thread that some work ran on.
    fn ran_on(work: impl FnOnce() + Send + 'static) -> thread::ThreadId {
        let (sender, ran) = channel();
        let told = move || {
            sender.send(thread::current().id()).unwrap();
            work();
        };
        start("test", told).unwrap();
        ran.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    #[test]
    fn a_thread_does_other_work_afterwards_also_behind_a_panic() {
        let threads: HashSet<_> = (0..100)
            .map(|number| {
                // It waits for work only once it has told us.
                thread::sleep(Duration::from_millis(1));
                ran_on(move || assert!(number % 10 > 0, "as is tried here"))
            })
            .collect();
        assert!(threads.len() < 100);
    }

    #[test]
    fn work_at_the_same_time_has_threads_of_its_own() {
        let (sender, wanted) = channel::<()>();
        let first = ran_on(move || assert!(wanted.recv().is_err()));
        let second = ran_on(|| ());
        assert_ne!(first, second);
        drop(sender);
    }
}
