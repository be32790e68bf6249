//! What opened backends share.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Digest, Error, ErrorKind, Result, digest};

/// What the backends that a program opens share, such as connections, tokens and limits of a host. Clones share it.
/// `Debug` shows nothing of it.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Vec<Entry>>>);

/// Type and hash of the key, because keys may contain secrets; and the value.
type Entry = (TypeId, Digest, Arc<dyn Any + Send + Sync>);

impl Shared {
    /// Values that are kept while nothing uses them; of more, those that were asked for the longest ago go first.
    pub const KEPT: usize = 256;

    /// The value of this type for a key, made if there is none. `make` must not call this itself.
    ///
    /// ```
    /// use plyfold_core::Shared;
    ///
    /// let shared = Shared::default();
    /// let first = shared.get_or_make("registry.example", || Ok(vec![1]))?;
    /// let second = shared.get_or_make("registry.example", || Ok(vec![2]))?;
    /// assert_eq!((&*first, &*second), (&vec![1], &vec![1]));
    /// # Ok::<(), plyfold_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of `make`; nothing is kept then.
    pub fn get_or_make<T: Any + Send + Sync>(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<Arc<T>> {
        let (kind, key) = (TypeId::of::<T>(), digest::sha256(key.as_bytes()));
        // No change leaves it half-made, so a poisoned lock is consistent.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let value = match kept.iter().position(|entry| (entry.0, &entry.1) == (kind, &key)) {
            Some(at) => kept.remove(at).2,
            None => Arc::new(make()?),
        };
        kept.push((kind, key, Arc::clone(&value)));
        while kept.len() > Self::KEPT
            && let Some(unused) = kept.iter().position(|entry| Arc::strong_count(&entry.2) == 1)
        {
            kept.remove(unused);
        }
        value.downcast().map_err(|_| Error::new(ErrorKind::Internal, "a shared value has another type"))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_nothing_uses_are_bounded_and_those_in_use_stay() {
        let shared = Shared::default();
        let make = |n: usize| shared.get_or_make(&n.to_string(), || Ok(n.to_string())).unwrap();
        let first = make(0);
        for n in 1..3 * Shared::KEPT {
            make(n);
            // Asked for again and again.
            make(1);
        }
        assert_eq!(shared.0.lock().unwrap().len(), Shared::KEPT);
        assert!(Arc::ptr_eq(&first, &make(0)), "it is in use");
        let is_kept = |n: usize| {
            let was_made = std::cell::Cell::new(false);
            let make = || {
                was_made.set(true);
                Ok(n.to_string())
            };
            shared.get_or_make(&n.to_string(), make).unwrap();
            !was_made.get()
        };
        assert_eq!([1, 2, 3 * Shared::KEPT - 1].map(is_kept), [true, false, true]);
        shared.get_or_make("0", || Ok(0)).unwrap();
        let failed = shared.get_or_make::<u8>("0", || Err(Error::config("no")));
        assert_eq!(*failed.unwrap_err().kind(), ErrorKind::Config);
    }
}
