//! Bounded retries with back-off and jitter.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::progress::{Event, Progress};
use crate::{Error, ErrorKind, Result};

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

    /// Waits before the next attempt, or ends the row.
    ///
    /// # Errors
    /// `error` itself when it is not retryable or `failures` has reached the bound.
    pub(super) async fn pause(
        &self,
        failures: u32,
        error: Error,
        what: &str,
        progress: &Progress,
    ) -> Result<()> {
        if !error.is_retryable() || failures >= self.attempts {
            return Err(if failures > 1 { error.with_context("attempt", failures) } else { error });
        }
        let asked = match error.kind() {
            ErrorKind::RateLimited { retry_after } => *retry_after,
            _ => None,
        };
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

/// Between half of `pause` and all of it, so that a fleet does not come back in step.
fn jitter(pause: Duration) -> Duration {
    // The standard library's hasher keys are random; that is random enough to spread load.
    let eighths = (RandomState::new().hash_one(0) % 9) as u32;
    pause / 2 + pause / 16 * eighths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_as_asked_but_never_beyond_the_cap() {
        let retry = Retry { attempts: 3, base: Duration::from_secs(1), cap: Duration::from_secs(20) };
        for (asked, waited) in [(3, 3), (1_000_000_000, 20)] {
            let start = tokio::time::Instant::now();
            let retry_after = Some(Duration::from_secs(asked));
            let error = Error::new(ErrorKind::RateLimited { retry_after }, "slow down");
            retry.pause(1, error, "blob", &Progress::none()).await.unwrap();
            assert_eq!(start.elapsed().as_secs(), waited);
        }
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
