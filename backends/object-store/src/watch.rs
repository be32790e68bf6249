//! Waiting for what another holds: how long its object has stayed the same, and when to look again.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::UpdateVersion;
use tokio::sync::OwnedMutexGuard;

use crate::clock::Moment;

/// The first pause between two looks at an object.
const FIRST: Duration = Duration::from_millis(5);
/// Looks within the time after which a right expires.
const LOOKS: u32 = 16;

/// What was seen of an object that another holds, and since when.
#[derive(Debug)]
pub(crate) struct Watch {
    expiry: Duration,
    pause: Duration,
    seen: Option<(UpdateVersion, Moment)>,
}

impl Watch {
    /// Of a right that expires when its object stays the same for this long.
    pub(crate) fn new(expiry: Duration) -> Self {
        Self { expiry, pause: FIRST, seen: None }
    }

    /// Whether this version has been there for the whole time, as measured here since it was seen first.
    pub(crate) fn has_expired(&mut self, version: &UpdateVersion) -> bool {
        match &self.seen {
            Some((seen, since)) if seen == version => since.elapsed() >= self.expiry,
            _ => {
                self.seen = Some((version.clone(), Moment::now()));
                false
            }
        }
    }

    /// Waits before the next look, longer each time, and not as long as others do.
    pub(crate) async fn pause(&mut self) {
        let spread = RandomState::new().hash_one(0_u8) % 512;
        let part = u32::try_from(spread).unwrap_or_default() + 512;
        tokio::time::sleep(self.pause * part / 1024).await;
        self.pause = (self.pause * 2).min((self.expiry / LOOKS).max(FIRST));
    }
}

/// The callers of this process that want the same, one after the other: one of them asks the service.
#[derive(Default)]
pub(crate) struct Queues(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

/// The first place in a queue.
#[derive(Debug)]
pub(crate) struct Turn {
    queues: Arc<Queues>,
    of: String,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Queues {
    /// Waits until no other caller has this turn.
    pub(crate) async fn turn(self: &Arc<Self>, of: &str) -> Turn {
        let queue = {
            let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            queues.entry(of.to_owned()).or_default().clone()
        };
        // The entry goes with the last one, also when the wait is given up.
        let mut turn = Turn { queues: self.clone(), of: of.to_owned(), guard: None };
        turn.guard = Some(queue.lock_owned().await);
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queues = self.queues.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.guard = None;
        if queues.get(&self.of).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            queues.remove(&self.of);
        }
    }
}

impl fmt::Debug for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queues")
    }
}
