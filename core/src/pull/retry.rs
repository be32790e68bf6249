//! Bounded retries with back-off and jitter.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use crate::progress::{Event, Progress};
use crate::stall::Clock;
use crate::{Error, ErrorKind, Result, Size};

/// What happens after a failed attempt. Only errors whose
/// [`is_retryable`](Error::is_retryable) says so are tried again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Retry {
    /// Attempts in a row that may fail, the first one included; [`Error::attempts`] may say fewer. A transfer that
    /// moves at least [`Retry::PROGRESS`] bytes starts a new row.
    pub attempts: u32,
    /// The pause after the first failure; each further one doubles it.
    pub base: Duration,
    /// The longest pause, also when an endpoint asks for more.
    pub cap: Duration,
    /// How long after the first failure of a row another attempt may begin. Pauses that the endpoint asks for do not
    /// count, but one that is longer than this ends the row.
    pub total: Duration,
}

/// Whether a request for a part of a blob may have failed with this for being one, so that the whole is worth a request.
pub(crate) fn may_be_of_part(error: &Error) -> bool {
    use ErrorKind::{Cancelled, Internal, Io, Limit, NotFound};
    !matches!(error.kind(), Cancelled | Internal | Io | Limit | NotFound)
}

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row {
    failures: u32,
    /// When the first attempt failed, later by each pause that the endpoint has asked for.
    began: Option<Instant>,
}

impl Row {
    /// Makes one attempt. What it is [held back](crate::stall::held_back) by does not count for the row.
    pub async fn attempt<F: Future>(&mut self, attempt: F) -> F::Output {
        let clock = Clock::new();
        let output = clock.scope(attempt).await;
        if let Some(began) = &mut self.began {
            *began += clock.held();
        }
        output
    }

    /// How many attempts have failed so far.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

impl Retry {
    /// Bytes that count as progress between two failures. It bounds the attempts for a blob of any size.
    pub const PROGRESS: u64 = 1 << 20;
    /// Bytes that a transfer must move within [`PullOptions::stall`](super::PullOptions::stall): less
    /// counts as no progress.
    pub const STEP: u64 = 16 << 10;

    /// Runs `attempt` at `what` until it succeeds, or until [`pause`](Self::pause) ends the row.
    ///
    /// # Errors
    /// That of the last attempt.
    pub async fn run<T, F>(&self, what: &str, progress: &Progress, attempt: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut row = Row::default();
        loop {
            let error = match row.attempt(attempt()).await {
                Ok(value) => return Ok(value),
                Err(e) => e,
            };
            self.pause(&mut row, error, what, progress).await?;
        }
    }

    /// Adds a failed attempt at `what` to its row, and waits before the next one.
    ///
    /// An endpoint that says when it wants to be asked again (`Retry-After`) is obeyed up to [`cap`](Self::cap), but a
    /// pause is never shorter than the back-off: an endpoint that says "now" again and again is not asked five times in
    /// a millisecond.
    ///
    /// # Errors
    /// `error` itself when it is not retryable, or when the row has as many failures or lasts as long as it may.
    pub async fn pause(&self, row: &mut Row, error: Error, what: &str, progress: &Progress) -> Result<()> {
        row.failures += 1;
        let failures = row.failures;
        let asked = error.retry_after().unwrap_or_default().min(self.cap);
        let pause = asked.max(self.back_off(failures)).min(self.cap);
        let attempts = error.attempts().unwrap_or(u32::MAX).min(self.attempts);
        let began = row.began.get_or_insert_with(Instant::now);
        let is_late = asked > self.total || began.elapsed() + pause.saturating_sub(asked) >= self.total;
        *began += asked;
        if !error.is_retryable() || failures >= attempts || is_late {
            return Err(if failures > 1 { error.with_context("attempt", failures) } else { error });
        }
        progress.emit(Event::Retrying {
            what: what.to_owned(),
            attempt: failures,
            reason: error.message().to_owned(),
        });
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn back_off(&self, failures: u32) -> Duration {
        jitter(self.base.saturating_mul(1 << failures.saturating_sub(1).min(16)))
    }
}

impl Default for Retry {
    /// Five attempts, the last one no later than a minute after the first failure; pauses of up to 0.5, 1, 2 and 4 s.
    fn default() -> Self {
        Self {
            attempts: 5,
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            total: Duration::from_secs(60),
        }
    }
}

/// Anything up to `pause`, so that many clients do not retry at the same time ("full jitter").
fn jitter(pause: Duration) -> Duration {
    // The standard library's hasher keys are random; that is random enough to spread load.
    pause / 1024 * (RandomState::new().hash_one(0) % 1025) as u32
}

/// Waits for the parts of one transfer, and ends it when it makes no progress. Only waiting for the endpoint counts:
/// neither what is slow on this side, nor what the backend is [held back](crate::stall::held_back) by.
#[derive(Debug)]
pub(super) struct StallTimer {
    limit: Duration,
    clock: Clock,
    waited: Duration,
    moved: u64,
}

impl StallTimer {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, clock: Clock::new(), waited: Duration::ZERO, moved: 0 }
    }

    /// Waits for the next part.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout) when fewer than [`Retry::STEP`] bytes have moved in all of the limit.
    pub(super) async fn wait<T>(&mut self, part: impl Future<Output = Result<T>>) -> Result<T> {
        let (start, held) = (Instant::now(), self.clock.held());
        let outcome = self.clock.timeout(self.limit.saturating_sub(self.waited), part).await;
        self.waited += start.elapsed().saturating_sub(self.clock.held().saturating_sub(held));
        outcome.unwrap_or_else(|| {
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
        let retry = Retry { base: Duration::from_secs(1), cap: Duration::from_secs(20), ..Retry::default() };
        for (asked, waited) in [(3, 3), (1_000_000_000, 20)] {
            let start = Instant::now();
            let retry_after = Some(Duration::from_secs(asked));
            let error = Error::new(ErrorKind::RateLimited { retry_after }, "slow down");
            retry.pause(&mut Row::default(), error, "blob", &Progress::none()).await.unwrap();
            assert_eq!(start.elapsed().as_secs(), waited);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_that_says_when_it_ends_is_believed() {
        let retry = Retry { base: Duration::from_millis(1), ..Retry::default() };
        let start = Instant::now();
        let down = Error::new(ErrorKind::Unavailable, "down").with_retry_after(Duration::from_secs(7));
        retry.pause(&mut Row::default(), down, "blob", &Progress::none()).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 7);
    }

    /// A row lasts as long as the endpoint takes: an hour of local waiting does not shorten its minute.
    #[tokio::test(start_paused = true)]
    async fn what_holds_an_attempt_back_does_not_count_for_its_row() {
        let tries = std::cell::Cell::new(0);
        let attempt = || async {
            crate::stall::held_back(tokio::time::sleep(Duration::from_secs(3600))).await;
            tries.set(tries.get() + 1);
            Err::<(), _>(Error::new(ErrorKind::Unavailable, "down"))
        };
        Retry::default().run("blob", &Progress::none(), attempt).await.unwrap_err();
        assert_eq!(tries.get(), Retry::default().attempts);
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
        let mut stall = StallTimer::new(second * 30);
        for _ in 0..100 {
            // Sixteen KiB in twenty seconds are enough, and what happens between two parts does not count.
            stall.wait(after(second * 20)).await.unwrap();
            tokio::time::sleep(second * 60).await;
            stall.moved(16 << 10);
        }
        let start = Instant::now();
        let error = loop {
            match stall.wait(after(second)).await {
                Ok(()) => stall.moved(1),
                Err(e) => break e,
            }
        };
        assert_eq!((error.kind(), start.elapsed().as_secs()), (&ErrorKind::Timeout, 30));
    }

    #[tokio::test(start_paused = true)]
    async fn permanent_errors_and_the_last_attempt_end_the_row() {
        let retry = Retry::default();
        let denied = retry
            .pause(&mut Row::default(), Error::new(ErrorKind::Denied, "no"), "blob", &Progress::none())
            .await;
        assert_eq!(*denied.unwrap_err().kind(), ErrorKind::Denied);
        let down = || Error::new(ErrorKind::Unavailable, "down");
        assert_eq!(attempts(retry, down).await, 5);
        // A host that does not exist is not asked five times.
        assert_eq!(attempts(retry, || down().with_attempts(2)).await, 2);
        assert_eq!(attempts(retry, || down().with_attempts(9)).await, 5);
    }

    /// How many attempts there are when all fail at once.
    async fn attempts(retry: Retry, error: impl Fn() -> Error) -> u32 {
        let (mut row, progress) = (Row::default(), Progress::none());
        loop {
            if let Err(e) = retry.pause(&mut row, error(), "blob", &progress).await {
                assert_eq!(e.context("attempt"), Some(&*row.failures().to_string()));
                return row.failures();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_now_again_and_again_is_not_hammered() {
        let start = Instant::now();
        let now = || {
            let retry_after = Some(Duration::ZERO);
            Error::new(ErrorKind::RateLimited { retry_after }, "slow down")
        };
        assert_eq!(attempts(Retry::default(), now).await, 5);
        assert!(start.elapsed() > Duration::from_millis(100), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_a_longer_pause_than_a_row_may_last_is_not_waited_for() {
        let (start, retry) = (Instant::now(), Retry { total: Duration::from_secs(4), ..Retry::default() });
        let later = Error::new(ErrorKind::Unavailable, "down").with_retry_after(Duration::from_secs(3600));
        retry.pause(&mut Row::default(), later, "blob", &Progress::none()).await.unwrap_err();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_of_stalled_attempts_is_bounded_as_a_whole() {
        let retry = Retry { total: Duration::from_secs(60), ..Retry::default() };
        let (start, progress) = (Instant::now(), Progress::none());
        let stalled = || async {
            tokio::time::sleep(Duration::from_secs(25)).await;
            Err::<(), _>(Error::new(ErrorKind::Timeout, "no progress"))
        };
        let error = retry.run("blob", &progress, stalled).await.unwrap_err();
        assert_eq!((error.kind(), error.context("attempt")), (&ErrorKind::Timeout, Some("4")));
        assert!(start.elapsed() < Duration::from_secs(110), "{:?}", start.elapsed());
    }
}
