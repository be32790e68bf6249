//! Work on several threads whose results come in the order of the work.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use plyfold_core::{Error, ErrorKind, Result};

/// What gets the results, in the order of the work.
pub(crate) trait Taker<O> {
    fn take(&mut self, done: O) -> Result<()>;
}

/// Does the jobs that `feed` pushes on so many threads, each with a state of its own, and gives their results to `taker`, in
/// order, and returns the taker. At most `window` jobs for each thread are begun and not yet taken. The first error
/// ends all: jobs that are begun are finished, and no other is begun.
///
/// # Errors
/// Those of `feed`, `state`, `work` and `taker`; [`Io`](ErrorKind::Io) when a thread cannot be started.
pub(crate) fn in_order<J: Send, S, O: Send, T: Taker<O>>(
    threads: NonZero<usize>,
    window: u64,
    state: impl Fn() -> Result<S> + Sync,
    work: impl Fn(&mut S, J) -> Result<O> + Sync,
    taker: T,
    feed: impl FnOnce(&mut Queue<J, O, T>) -> Result<()>,
) -> Result<T> {
    thread::scope(|scope| {
        let (jobs, waiting) = mpsc::channel::<(u64, J)>();
        let (result, results) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..threads.get() {
            let (waiting, result, state, work) = (waiting.clone(), result.clone(), &state, &work);
            let run = move || {
                let mut own = None;
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((number, job)) = next else { return };
                    let done = panic::catch_unwind(AssertUnwindSafe(|| {
                        let own = match &mut own {
                            Some(own) => own,
                            none => none.insert(state()?),
                        };
                        work(own, job)
                    }));
                    if result.send((number, done.unwrap_or_else(|_| Err(panicked())))).is_err() {
                        return;
                    }
                }
            };
            let started = thread::Builder::new().name("compress".to_owned()).spawn_scoped(scope, run);
            started.map_err(|e| Error::io("starting a thread", e))?;
        }
        let window = threads.get() as u64 * window;
        let mut queue = Queue { jobs, results, window, begun: 0, taken: 0, done: BTreeMap::new(), taker };
        // Without a sender of its own it sees that all threads have ended.
        drop(result);
        feed(&mut queue)?;
        queue.drain()?;
        Ok(queue.taker)
    })
}

/// The work of some threads.
pub(crate) struct Queue<J, O, T> {
    jobs: Sender<(u64, J)>,
    results: Receiver<(u64, Result<O>)>,
    window: u64,
    begun: u64,
    taken: u64,
    /// Results that came before their place in the order.
    done: BTreeMap<u64, Result<O>>,
    pub(crate) taker: T,
}

impl<J, O, T: Taker<O>> Queue<J, O, T> {
    /// Waits until there is room for a job, and gives it to the threads.
    pub(crate) fn push(&mut self, job: J) -> Result<()> {
        while self.begun - self.taken >= self.window {
            self.take_next()?;
        }
        self.jobs.send((self.begun, job)).map_err(|_| panicked())?;
        self.begun += 1;
        Ok(())
    }

    /// Waits until all that was pushed is taken.
    pub(crate) fn drain(&mut self) -> Result<()> {
        while self.taken < self.begun {
            self.take_next()?;
        }
        Ok(())
    }

    fn take_next(&mut self) -> Result<()> {
        let next = loop {
            if let Some(next) = self.done.remove(&self.taken) {
                break next;
            }
            let (number, result) = self.results.recv().map_err(|_| panicked())?;
            self.done.insert(number, result);
        };
        self.taken += 1;
        self.taker.take(next?)
    }
}

fn panicked() -> Error {
    Error::new(ErrorKind::Internal, "a worker thread panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps what comes, up to so many.
    struct Kept(Vec<u64>, usize);

    impl Taker<u64> for Kept {
        fn take(&mut self, done: u64) -> Result<()> {
            if self.0.len() == self.1 {
                return Err(panicked());
            }
            self.0.push(done);
            Ok(())
        }
    }

    const ALL: usize = usize::MAX;

    fn run(
        threads: usize,
        jobs: u64,
        work: impl Fn(u64) -> Result<u64> + Sync,
        most: usize,
    ) -> Result<Vec<u64>> {
        let threads = NonZero::new(threads).unwrap();
        let work = |state: &mut u64, job: u64| {
            *state += 1;
            work(job)
        };
        let feed = |queue: &mut Queue<u64, u64, Kept>| {
            for job in 0..jobs {
                queue.push(job)?;
                if job == 50 {
                    queue.drain()?;
                    assert_eq!(queue.taker.0.len(), 51);
                }
            }
            Ok(())
        };
        in_order(threads, 2, || Ok(0), work, Kept(Vec::new(), most), feed).map(|kept| kept.0)
    }

    #[test]
    fn results_come_in_order() {
        for threads in [1, 3, 8] {
            for jobs in [0, 1, 2, 100] {
                let twice: Vec<u64> = (0..jobs).map(|job| job * 2).collect();
                assert_eq!(run(threads, jobs, |job| Ok(job * 2), ALL).unwrap(), twice);
            }
        }
    }

    #[test]
    fn an_error_of_any_part_ends_the_work() {
        assert!(run(3, 100, |job| if job == 40 { Err(panicked()) } else { Ok(job) }, ALL).is_err());
        assert!(run(2, 9, |job| if job == 5 { panic!("as tests want") } else { Ok(job) }, ALL).is_err());
        assert!(run(2, 9, Ok, 3).is_err());
        let threads = NonZero::new(2).unwrap();
        let work = |(): &mut (), job: u64| Ok(job);
        let (none, some) = (|| Err(panicked()), || Ok(()));
        let feed = |queue: &mut Queue<u64, u64, Kept>| queue.push(1);
        assert!(in_order(threads, 2, none, work, Kept(Vec::new(), ALL), feed).is_err());
        let feed = |queue: &mut Queue<u64, u64, Kept>| queue.push(1).and(Err(panicked()));
        assert!(in_order(threads, 2, some, work, Kept(Vec::new(), ALL), feed).is_err());
    }
}
