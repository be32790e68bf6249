//! The order of tasks of one process, and the names of what they wait for.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use plyfold_core::{Error, ErrorKind};
use tokio::sync::OwnedMutexGuard;

/// The lock that leases share for a moment and that a collection holds alone.
pub(super) const LOCK: &str = "store";
/// The lock for changing names.
pub(super) const NAMES: &str = "index";
/// Held by a collection that runs or waits: new leases wait then, so that a collection never waits for ever.
pub(super) const COLLECTOR: &str = "collector";

/// What tasks of this process wait for: a single flight, the right to write a blob or an artifact and to change names,
/// each in the order in which they came. Only the first of them contends with other processes, and the next one is woken
/// when it is done.
#[derive(Debug, Default)]
pub(super) struct Queues {
    queues: Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// Held by a collection exclusively, and shared while a lease is taken.
    pub(super) gate: Arc<tokio::sync::RwLock<()>>,
}

/// The first place in a queue, until the last clone is dropped.
pub(super) type Queued = Arc<OwnedMutexGuard<()>>;

impl Queues {
    /// Those of a directory: all its handles in this process share them.
    pub(super) fn of(path: &Path) -> Arc<Self> {
        static ALL: Mutex<BTreeMap<PathBuf, Weak<Queues>>> = Mutex::new(BTreeMap::new());
        // A path that cannot be made absolute has a queue of its own: its handles wait as those of other processes do.
        let Ok(path) = std::path::absolute(path) else { return Arc::default() };
        shared(&ALL, path)
    }

    pub(super) async fn queue(&self, name: &str) -> OwnedMutexGuard<()> {
        shared(&self.queues, name.to_owned()).lock_owned().await
    }
}

/// What all have that ask for a key while any of them has it.
fn shared<K: Ord, V: Default>(all: &Mutex<BTreeMap<K, Weak<V>>>, key: K) -> Arc<V> {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|_, value| value.strong_count() > 0);
    let value = all.get(&key).and_then(Weak::upgrade).unwrap_or_default();
    all.insert(key, Arc::downgrade(&value));
    value
}

/// Whether this user may not write there.
pub(super) fn is_read_only(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    let read_only = [io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied];
    *error.kind() == ErrorKind::Io && source.is_some_and(|source| read_only.contains(&source.kind()))
}
