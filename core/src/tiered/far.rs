//! The far tier: what it has to protect before it is asked, and when it is left alone.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::cache::{CacheProvider, Lease};
use crate::{Digest, Error, ErrorKind, Result};

/// A tier that did not answer is not asked again before this time has passed.
const PAUSE: Duration = Duration::from_secs(30);

/// The far tier. Clones share its state.
#[derive(Clone)]
pub(super) struct Far {
    cache: Box<dyn CacheProvider>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    leases: Mutex<Vec<Weak<FarLease>>>,
    paused: Mutex<Option<Instant>>,
}

/// A lease of content, which is taken when the far tier is asked for something: an image that is here needs no request.
pub(super) struct FarLease {
    content: Vec<Digest>,
    taken: OnceCell<Lease>,
}

impl Far {
    pub(super) fn new(cache: Box<dyn CacheProvider>) -> Self {
        Self { cache, state: Arc::default() }
    }

    pub(super) fn cache(&self) -> &dyn CacheProvider {
        &*self.cache
    }

    /// The tier, with all leases of this cache taken in it; `None` while it is left alone.
    pub(super) async fn asked(&self) -> Result<Option<&dyn CacheProvider>> {
        if self.is_paused() {
            return Ok(None);
        }
        for lease in self.live_leases() {
            let taken = lease.taken.get_or_try_init(|| self.cache.lease(&lease.content)).await.map(drop);
            if self.answer(taken)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(self.cache()))
    }

    /// As [`asked`](Self::asked), for what is to be stored in it.
    pub(super) async fn writable(&self) -> Result<Option<&dyn CacheProvider>> {
        if self.cache.is_read_only() {
            return Ok(None);
        }
        self.asked().await
    }

    /// What it has answered; `None` where it could not, and is left alone from now on.
    pub(super) fn answer<T>(&self, answer: Result<T>) -> Result<Option<T>> {
        let error = match answer {
            Ok(value) => return Ok(Some(value)),
            Err(e) => e,
        };
        if !is_outage(error.kind()) {
            return Err(error);
        }
        // Tasks that asked at the same time have met the same outage.
        if !self.is_paused() {
            tracing::warn!("{self} is not used for {} seconds: {error}", PAUSE.as_secs());
        }
        *lock(&self.state.paused) = Some(Instant::now());
        Ok(None)
    }

    /// Whether it did not answer a moment ago.
    fn is_paused(&self) -> bool {
        let mut paused = lock(&self.state.paused);
        if paused.is_some_and(|since| since.elapsed() >= PAUSE) {
            *paused = None;
        }
        paused.is_some()
    }

    /// Something failed there that the near tier has done.
    pub(super) fn unpublished(&self, what: impl fmt::Display, error: Error) {
        if let Err(other) = self.answer::<()>(Err(error)) {
            tracing::warn!("{what} is not in {self}: {other}");
        }
    }

    /// A lease that is taken before the next request.
    pub(super) fn to_lease(&self, content: &[Digest]) -> Arc<FarLease> {
        let lease = Arc::new(FarLease { content: content.to_vec(), taken: OnceCell::new() });
        let mut leases = lock(&self.state.leases);
        leases.retain(|lease| lease.strong_count() > 0);
        leases.push(Arc::downgrade(&lease));
        lease
    }

    fn live_leases(&self) -> Vec<Arc<FarLease>> {
        lock(&self.state.leases).iter().filter_map(Weak::upgrade).collect()
    }
}

/// Whether the tier cannot be reached now, and nothing is wrong with what was asked.
fn is_outage(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::RateLimited { .. } | ErrorKind::Timeout | ErrorKind::Tls | ErrorKind::Unavailable
    )
}

/// What has panicked meanwhile has changed a list or a time, whole.
fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cache.fmt(f)
    }
}

impl fmt::Display for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.cache, f)
    }
}
