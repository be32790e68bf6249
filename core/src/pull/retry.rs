//! Bounded retries with back-off and jitter.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use crate::progress::{Event, Progress};
use crate::{Error, ErrorKind, Result, Size};

/// What happens after a failed attempt. Only errors whose
/// [`is_retryable`](Error::is_retryable) says so are tried again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Retry {
    /// Attempts in a row that may fail, the first one included. A transfer that moves at least
    /// [`Retry::PROGRESS`] bytes starts a new row.
    pub attempts: u32,
    /// The pause after the first failure; each further one doubles it.
    pub base: Duration,
    /// The longest pause, also when an endpoint asks for more.
    pub cap: Duration,
}

impl Retry {
    /// Bytes that count as progress between two failures. It bounds the attempts for a blob of any size.
    pub const PROGRESS: u64 = 1 << 20;
    /// Bytes that a transfer must move within [`PullOptions::stall`](super::PullOptions::stall): a trickle of less
    /// is as good as nothing.
    pub const STEP: u64 = 16 << 10;

    /// Runs `attempt` at `what` until it succeeds, or until [`pause`](Self::pause) ends the row.
    ///
    /// # Errors
    /// That of the last attempt.
    pub async fn run<T, F>(&self, what: &str, progress: &Progress, attempt: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut failures = 0;
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(e) => e,
            };
            failures += 1;
            self.pause(failures, error, what, progress).await?;
        }
    }

    /// Waits before the next attempt at `what`, or ends the row; `failures` is how many there were in it.
    ///
    /// # Errors
    /// `error` itself when it is not retryable or `failures` has reached the bound.
    pub async fn pause(&self, failures: u32, error: Error, what: &str, progress: &Progress) -> Result<()> {
        if !error.is_retryable() || failures >= self.attempts {
            return Err(if failures > 1 { error.with_context("attempt", failures) } else { error });
        }
        let asked = error.retry_after();
        progress.emit(Event::Retrying {
            what: what.to_owned(),
            attempt: failures,
            reason: error.to_string(),
        });
        let doubled = self.base.saturating_mul(1 << failures.saturating_sub(1).min(16));
        tokio::time::sleep(asked.unwrap_or_else(|| jitter(doubled)).min(self.cap)).await;
        Ok(())
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 5, base: Duration::from_millis(500), cap: Duration::from_secs(30) }
    }
}

/// Anything up to `pause`, so that a fleet does not come back in step ("full jitter").
fn jitter(pause: Duration) -> Duration {
    // The standard library's hasher keys are random; that is random enough to spread load.
    pause / 1024 * (RandomState::new().hash_one(0) % 1025) as u32
}

/// Waits for the parts of one transfer, and ends it when it does not move. Only waiting counts: what is slow on
/// this side is not the endpoint's fault.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    waited: Duration,
    moved: u64,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, waited: Duration::ZERO, moved: 0 }
    }

    /// Waits for the next part.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout) when fewer than [`Retry::STEP`] bytes have moved in all of the limit.
    pub(super) async fn wait<T>(&mut self, part: impl Future<Output = Result<T>>) -> Result<T> {
        let start = Instant::now();
        let outcome = tokio::time::timeout(self.limit.saturating_sub(self.waited), part).await;
        self.waited += start.elapsed();
        outcome.unwrap_or_else(|_| {
            let message = match self.moved {
                0 => format!("no progress for {:?}", self.limit),
                moved => format!("no more than {} in {:?}", Size(moved), self.limit),
            };
            Err(Error::new(ErrorKind::Timeout, message))
        })
    }

    /// Counts bytes that have come.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.moved += bytes as u64;
        if self.moved >= Retry::STEP {
            (self.moved, self.waited) = (0, Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_as_asked_but_never_beyond_the_cap() {
        let retry = Retry { attempts: 3, base: Duration::from_secs(1), cap: Duration::from_secs(20) };
        for (asked, waited) in [(3, 3), (1_000_000_000, 20)] {
            let start = Instant::now();
            let retry_after = Some(Duration::from_secs(asked));
            let error = Error::new(ErrorKind::RateLimited { retry_after }, "slow down");
            retry.pause(1, error, "blob", &Progress::none()).await.unwrap();
            assert_eq!(start.elapsed().as_secs(), waited);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_that_says_when_it_ends_is_believed() {
        let retry = Retry { attempts: 3, base: Duration::from_millis(1), cap: Duration::from_secs(20) };
        let start = Instant::now();
        let down = Error::new(ErrorKind::Unavailable, "down").with_retry_after(Duration::from_secs(7));
        retry.pause(1, down, "blob", &Progress::none()).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_anything_up_to_its_bound() {
        let pauses: Vec<_> = (0..200).map(|_| jitter(Duration::from_secs(1))).collect();
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(1)));
        assert!(pauses.iter().any(|pause| *pause < Duration::from_millis(400)), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause > Duration::from_millis(600)), "{pauses:?}");
    }

    async fn after(time: Duration) -> Result<()> {
        tokio::time::sleep(time).await;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_as_good_as_nothing_and_own_slowness_is_not_counted() {
        let second = Duration::from_secs(1);
        let mut patience = Patience::new(second * 30);
        for _ in 0..100 {
            // Sixteen KiB in twenty seconds are enough, and what happens between two parts does not count.
            patience.wait(after(second * 20)).await.unwrap();
            tokio::time::sleep(second * 60).await;
            patience.moved(16 << 10);
        }
        let start = Instant::now();
        let error = loop {
            match patience.wait(after(second)).await {
                Ok(()) => patience.moved(1),
                Err(e) => break e,
            }
        };
        assert_eq!((error.kind(), start.elapsed().as_secs()), (&ErrorKind::Timeout, 30));
    }

    #[tokio::test(start_paused = true)]
    async fn permanent_errors_and_the_last_attempt_end_the_row() {
        let retry = Retry::default();
        let denied = retry.pause(1, Error::new(ErrorKind::Denied, "no"), "blob", &Progress::none()).await;
        assert_eq!(*denied.unwrap_err().kind(), ErrorKind::Denied);
        let down = Error::new(ErrorKind::Unavailable, "down");
        let last = retry.pause(retry.attempts, down, "blob", &Progress::none()).await.unwrap_err();
        assert_eq!(last.context("attempt"), Some("5"));
    }
}
