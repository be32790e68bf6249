//! Work on several threads whose results come in the order of the work.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use plyfold_core::{Error, ErrorKind, Result};

/// Does `jobs` on so many threads, each with a state of its own, and gives their results to `take`, in order. At most
/// twice as many jobs as threads are begun and not yet taken. The first error ends all: jobs that are begun are finished,
/// and no other is begun.
///
/// # Errors
/// Those of `jobs`, `state`, `work` and `take`; [`Io`](ErrorKind::Io) when a thread cannot be started.
pub(crate) fn in_order<J: Send, S, O: Send>(
    threads: NonZero<usize>,
    mut jobs: impl Iterator<Item = Result<J>>,
    state: impl Fn() -> Result<S> + Sync,
    work: impl Fn(&mut S, J) -> Result<O> + Sync,
    mut take: impl FnMut(O) -> Result<()>,
) -> Result<()> {
    thread::scope(|scope| {
        let (job, waiting) = mpsc::channel::<(u64, J)>();
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
        drop(result);
        let window = threads.get() as u64 * 2;
        let (mut begun, mut taken, mut has_more) = (0, 0, true);
        let mut done = BTreeMap::new();
        loop {
            while has_more && begun - taken < window {
                let Some(next) = jobs.next() else {
                    has_more = false;
                    break;
                };
                job.send((begun, next?)).map_err(|_| panicked())?;
                begun += 1;
            }
            if begun == taken {
                return Ok(());
            }
            let next = loop {
                if let Some(next) = done.remove(&taken) {
                    break next;
                }
                let (number, result) = results.recv().map_err(|_| panicked())?;
                done.insert(number, result);
            };
            taken += 1;
            take(next?)?;
        }
    })
}

fn panicked() -> Error {
    Error::new(ErrorKind::Internal, "a worker thread panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(threads: usize, jobs: u64, fails: Option<u64>) -> Result<Vec<u64>> {
        let threads = NonZero::new(threads).unwrap();
        let mut taken = Vec::new();
        let work = |state: &mut u64, job: u64| {
            *state += 1;
            if fails == Some(job) { Err(panicked()) } else { Ok(job * 2) }
        };
        in_order(
            threads,
            (0..jobs).map(Ok),
            || Ok(0),
            work,
            |done| {
                taken.push(done);
                Ok(())
            },
        )?;
        Ok(taken)
    }

    #[test]
    fn results_come_in_order() {
        for threads in [1, 3, 8] {
            for jobs in [0, 1, 2, 100] {
                assert_eq!(
                    run(threads, jobs, None).unwrap(),
                    (0..jobs).map(|job| job * 2).collect::<Vec<_>>()
                );
            }
        }
    }

    #[test]
    fn an_error_of_any_part_ends_the_work() {
        assert!(run(3, 100, Some(40)).is_err());
        let threads = NonZero::new(2).unwrap();
        let failing = |job: u64| if job == 7 { Err(panicked()) } else { Ok(job) };
        let work = |(): &mut (), job: u64| Ok(job);
        let end = |_| Ok(());
        assert!(in_order(threads, (0..9).map(failing), || Ok(()), work, end).is_err());
        assert!(in_order(threads, (0..9).map(Ok), || Err(panicked()), work, end).is_err());
        assert!(in_order(threads, (0..9).map(Ok), || Ok(()), work, |_| Err(panicked())).is_err());
        let panics = |(): &mut (), job: u64| if job == 5 { panic!("as tests want") } else { Ok(job) };
        assert!(in_order(threads, (0..9).map(Ok), || Ok(()), panics, end).is_err());
    }
}
