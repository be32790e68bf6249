//! Memory that conversions of one process share.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{Error, ErrorKind, Result, Size};

/// How often a conversion that waits looks whether it was given up.
const LOOK: Duration = Duration::from_millis(50);
/// Trees ask for memory in steps of so many bytes: not for each file.
const STEP: u64 = 256 << 10;

/// Bytes of memory that the metadata trees of several conversions share. Clones are one budget.
///
/// Trees take what they need of it while there is some. When there is none left, one conversion at a time goes on
/// beyond it, within its own [`TreeLimits`](super::TreeLimits), and the others wait until memory comes back or that one
/// has ended. The one that goes on waits for no other conversion, so there is no deadlock. All conversions together take
/// what the budget has, and what the limits of one allow, however many they are.
///
/// The trees of most images take a few MiB, and none of them ever waits.
#[derive(Clone)]
pub struct TreeBudget(Arc<Budget>);

struct Budget {
    size: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes that trees hold.
    taken: u64,
    /// Whether a conversion goes on beyond the budget.
    is_exceeded: bool,
}

impl TreeBudget {
    /// Bytes of the budget of a [process](TreeBudget::process): 32 MiB, some 200,000 files.
    pub const PROCESS: u64 = 32 << 20;

    /// A budget of its own.
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(Budget { size: bytes, state: Mutex::default(), changed: Condvar::new() }))
    }

    /// The one that all conversions of the process share where nothing else is said: of [`TreeBudget::PROCESS`] bytes.
    pub fn process() -> Self {
        static PROCESS: LazyLock<TreeBudget> = LazyLock::new(|| TreeBudget::new(TreeBudget::PROCESS));
        PROCESS.clone()
    }

    /// The part of one conversion, which may wait, on a thread of its own: never on one that another conversion needs.
    /// Dropping all trees and clones of the part gives it back. The conversion waits no longer once `given_up` is set,
    /// and ends in [`Cancelled`](crate::ErrorKind::Cancelled).
    pub fn share_until(&self, given_up: Arc<AtomicBool>) -> TreeShare {
        self.part(given_up, None)
    }

    /// With `deferred` it does not wait at all: it ends in an error, and sets the flag.
    pub(crate) fn part(&self, given_up: Arc<AtomicBool>, deferred: Option<Arc<AtomicBool>>) -> TreeShare {
        TreeShare(Arc::new(Share {
            budget: self.clone(),
            exceeds: AtomicBool::new(false),
            given_up,
            deferred,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.0.changed.notify_all();
    }
}

impl Default for TreeBudget {
    fn default() -> Self {
        Self::process()
    }
}

impl fmt::Debug for TreeBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeBudget").field("size", &Size(self.0.size)).finish_non_exhaustive()
    }
}

/// The part that one conversion has of a [`TreeBudget`], for all its trees. Clones are one part.
#[derive(Clone)]
pub struct TreeShare(Arc<Share>);

struct Share {
    budget: TreeBudget,
    /// Whether this conversion is the one that goes on beyond the budget. Changed under the budget's lock.
    exceeds: AtomicBool,
    given_up: Arc<AtomicBool>,
    deferred: Option<Arc<AtomicBool>>,
}

impl TreeShare {
    /// Takes memory, waiting for it if need be; how much of it has to be given back.
    fn take(&self, more: u64) -> Result<u64> {
        let share = &*self.0;
        let budget = &*share.budget.0;
        let mut state = share.budget.state();
        loop {
            if share.exceeds.load(Ordering::Relaxed) {
                return Ok(0);
            }
            if state.taken.saturating_add(more) <= budget.size {
                state.taken += more;
                return Ok(more);
            }
            if !state.is_exceeded {
                state.is_exceeded = true;
                share.exceeds.store(true, Ordering::Relaxed);
                return Ok(0);
            }
            if let Some(deferred) = &share.deferred {
                deferred.store(true, Ordering::Relaxed);
                return Err(Error::new(ErrorKind::Cancelled, "the conversion waits for memory"));
            }
            if share.given_up.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::Cancelled, "the conversion was given up"));
            }
            let waited = budget.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if *self.exceeds.get_mut() {
            self.budget.change(|state| state.is_exceeded = false);
        }
    }
}

impl PartialEq for TreeShare {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TreeShare {}

impl fmt::Debug for TreeShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeShare").field("budget", &self.0.budget).finish_non_exhaustive()
    }
}

/// What one tree has of its conversion's part. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Grant {
    share: Option<TreeShare>,
    /// What the tree may take before it has to ask again.
    covered: u64,
    taken: u64,
}

impl Grant {
    /// Nothing yet; all there is without a share.
    pub(crate) fn new(share: Option<TreeShare>) -> Self {
        let covered = if share.is_some() { 0 } else { u64::MAX };
        Self { share, covered, taken: 0 }
    }

    /// Sees to it that the tree may take so many bytes in all.
    ///
    /// # Errors
    /// `Cancelled` for a conversion that was given up while it waited.
    pub(crate) fn cover(&mut self, bytes: u64) -> Result<()> {
        if bytes > self.covered
            && let Some(share) = &self.share
        {
            let more = (bytes - self.covered).next_multiple_of(STEP);
            self.taken += share.take(more)?;
            self.covered += more;
        }
        Ok(())
    }
}

impl Clone for Grant {
    /// The clone asks when it grows.
    fn clone(&self) -> Self {
        Self::new(self.share.clone())
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if let Some(share) = self.share.take()
            && self.taken > 0
        {
            share.0.budget.change(|state| state.taken -= self.taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn grant(budget: &TreeBudget) -> Grant {
        Grant::new(Some(budget.share_until(Arc::default())))
    }

    #[test]
    fn one_goes_on_and_the_others_wait_for_it() {
        let budget = TreeBudget::new(4 * STEP);
        let (mut first, mut second) = (grant(&budget), grant(&budget));
        first.cover(3 * STEP).unwrap();
        second.cover(STEP).unwrap();
        // Nothing is left: one goes on, as far as it likes.
        first.cover(100 * STEP).unwrap();
        let (tell, told) = mpsc::channel();
        let waiting = thread::spawn(move || {
            second.cover(2 * STEP).unwrap();
            tell.send(()).unwrap();
            second
        });
        assert!(told.recv_timeout(2 * LOOK).is_err(), "it did not wait");
        drop(first);
        told.recv().unwrap();
        assert_eq!(budget.state().taken, 2 * STEP);
        drop(waiting.join().unwrap());
        assert_eq!(budget.state().taken, 0);
        assert!(!budget.state().is_exceeded);
    }

    #[test]
    fn who_cannot_wait_is_told_so_and_who_was_given_up_waits_no_more() {
        let budget = TreeBudget::new(STEP);
        let mut first = grant(&budget);
        first.cover(2 * STEP).unwrap();
        let deferred = Arc::new(AtomicBool::new(false));
        let mut other = Grant::new(Some(budget.part(Arc::default(), Some(Arc::clone(&deferred)))));
        other.cover(STEP).unwrap();
        assert_eq!(*other.cover(2 * STEP).unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(deferred.load(Ordering::Relaxed));
        let given_up = Arc::new(AtomicBool::new(true));
        let mut other = Grant::new(Some(budget.part(given_up, None)));
        assert_eq!(*other.cover(2 * STEP).unwrap_err().kind(), ErrorKind::Cancelled);
    }

    /// An image takes in its layers while it grows: all trees of one conversion go on together.
    #[test]
    fn trees_of_one_conversion_never_wait_for_each_other() {
        let budget = TreeBudget::new(STEP);
        let share = budget.share_until(Arc::default());
        let mut image = Grant::new(Some(share.clone()));
        image.cover(5 * STEP).unwrap();
        let mut layer = Grant::new(Some(share));
        layer.cover(5 * STEP).unwrap();
        assert_eq!(budget.state().taken, 0);
    }

    #[test]
    fn without_a_share_nothing_is_counted() {
        Grant::new(None).cover(u64::MAX).unwrap();
    }
}
