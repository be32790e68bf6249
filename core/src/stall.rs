//! Time-outs that measure the server alone: what a backend waits for locally does not count.
//!
//! The engines end a transfer that makes no progress. A backend may have to wait before it sends a request,
//! such as a limit on requests. It waits for them by [`held_back`], and the time is taken out of every time-out around
//! it.
//!
//! ```
//! use std::time::Duration;
//!
//! use plyfold_core::stall;
//! use tokio::sync::Semaphore;
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
//! # runtime.block_on(async {
//! let limit = Semaphore::new(0);
//! let request = async {
//!     let _permit = stall::held_back(limit.acquire()).await;
//!     "the answer"
//! };
//! let later = async {
//!     tokio::time::sleep(Duration::from_secs(60)).await;
//!     limit.add_permits(1);
//! };
//! let (answer, ()) = tokio::join!(stall::timeout(Duration::from_secs(1), request), later);
//! assert_eq!(answer, Some("the answer"));
//! # });
//! # Ok::<(), std::io::Error>(())
//! ```

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::time::Instant;

tokio::task_local! {
    static CLOCK: Clock;
}

/// How often a time-out looks again while it is suspended.
const AGAIN: Duration = Duration::from_millis(100);

/// Waits for something on this side: a limit on requests, a queue of tasks. The time-outs of [`timeout`], [`sleep`] and
/// of the engines do not count it.
pub async fn held_back<F: Future>(waiting: F) -> F::Output {
    let _held = CLOCK.try_with(Clock::hold).ok();
    waiting.await
}

/// The output of a future, or `None` when it takes longer than `limit`. What it spends in [`held_back`] does not count.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    Clock::new().timeout(limit, future).await
}

/// Runs a future so that [`sleep`] within it does not count what the future spends in [`held_back`].
pub async fn scope<F: Future>(future: F) -> F::Output {
    Clock::new().scope(future).await
}

/// A future that may be spawned as a task: what it spends in [`held_back`] counts for the time-outs around the call of
/// this function.
pub fn inherit<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let clock = CLOCK.try_with(Clone::clone).unwrap_or_else(|_| Clock::new());
    async move { clock.scope(future).await }
}

/// Sleeps until this long has passed outside of [`held_back`], for the innermost [`scope`].
pub async fn sleep(duration: Duration) {
    match CLOCK.try_with(Clone::clone) {
        Ok(clock) => clock.sleep(duration).await,
        Err(_) => tokio::time::sleep(duration).await,
    }
}

/// How long the futures of one scope have been held back.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    time: Arc<Mutex<Time>>,
    /// That of the scope around this one.
    outer: Option<Box<Clock>>,
}

#[derive(Debug, Default)]
struct Time {
    /// Futures that are held back now, and since when there are some.
    held: usize,
    since: Option<Instant>,
    /// The time of past waits.
    total: Duration,
}

/// Ends a wait when it is dropped.
struct Held(Clock);

impl Clock {
    pub(crate) fn new() -> Self {
        let outer = CLOCK.try_with(|outer| Box::new(outer.clone())).ok();
        Self { time: Arc::default(), outer }
    }

    pub(crate) async fn scope<F: Future>(&self, future: F) -> F::Output {
        CLOCK.scope(self.clone(), future).await
    }

    pub(crate) async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        match select(pin!(self.scope(future)), pin!(self.sleep(limit))).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        }
    }

    /// The time in all in which something was held back.
    pub(crate) fn held(&self) -> Duration {
        let time = self.time();
        time.total + time.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    async fn sleep(&self, duration: Duration) {
        let (start, before) = (Instant::now(), self.held());
        loop {
            let counted = start.elapsed().saturating_sub(self.held().saturating_sub(before));
            let left = duration.saturating_sub(counted);
            let is_held = self.time().since.is_some();
            if left.is_zero() && !is_held {
                return;
            }
            tokio::time::sleep(if is_held { left.max(AGAIN) } else { left }).await;
        }
    }

    fn hold(&self) -> Held {
        for clock in self.with_outer() {
            let mut time = clock.time();
            time.held += 1;
            time.since.get_or_insert_with(Instant::now);
        }
        Held(self.clone())
    }

    fn with_outer(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |clock| clock.outer.as_deref())
    }

    fn time(&self) -> std::sync::MutexGuard<'_, Time> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for clock in self.0.with_outer() {
            let mut time = clock.time();
            time.held -= 1;
            if time.held == 0 {
                let over = time.since.take().map_or(Duration::ZERO, |since| since.elapsed());
                time.total += over;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn work(held: u32, counted: u32) {
        held_back(tokio::time::sleep(SECOND * held)).await;
        tokio::time::sleep(SECOND * counted).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_back_does_not_count() {
        assert_eq!(timeout(SECOND * 5, work(3600, 4)).await, Some(()));
        let start = Instant::now();
        assert_eq!(timeout(SECOND * 5, work(3600, 6)).await, None);
        assert_eq!(start.elapsed().as_secs(), 3605);
        let start = Instant::now();
        assert_eq!(timeout(SECOND * 5, std::future::pending::<()>()).await, None);
        assert_eq!(start.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn scopes_around_and_tasks_within_see_it_too() {
        let nested = timeout(SECOND * 5, timeout(SECOND * 5, work(3600, 4)));
        assert_eq!(nested.await, Some(Some(())));
        let spawned = async { tokio::spawn(inherit(work(3600, 4))).await };
        assert!(timeout(SECOND * 5, spawned).await.is_some_and(|joined| joined.is_ok()));
        let alone = async { tokio::spawn(work(3600, 4)).await };
        assert!(timeout(SECOND * 5, alone).await.is_none(), "a task of its own is another story");
    }

    #[tokio::test(start_paused = true)]
    async fn waits_side_by_side_count_once_and_one_that_is_dropped_ends() {
        let both = async { tokio::join!(work(60, 1), work(30, 1)) };
        assert!(timeout(SECOND * 2, both).await.is_some());
        let given_up = async {
            let waiting = held_back(std::future::pending::<()>());
            tokio::time::timeout(SECOND * 60, waiting).await.unwrap_err();
            tokio::time::sleep(SECOND * 4).await;
        };
        let start = Instant::now();
        assert!(timeout(SECOND * 3, given_up).await.is_none());
        assert_eq!(start.elapsed().as_secs(), 63);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_within_a_scope_is_suspended() {
        let start = Instant::now();
        scope(async { tokio::join!(sleep(SECOND * 5), work(60, 0)) }).await;
        assert_eq!(start.elapsed().as_secs(), 65);
        let start = Instant::now();
        sleep(SECOND * 5).await;
        assert_eq!(start.elapsed().as_secs(), 5);
    }
}
