//! Waiting for the locks of other processes.
//!
//! A lock is a file that its owner holds by flock(2); the kernel sends no event when an owner ends. So one thread of
//! this process polls all the files that this process waits for, as long as there are any. No thread of a runtime's
//! pool does: a pool full of waiting threads would have none for the work that they wait for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::files;

/// Time between two looks at a file.
const PAUSE: Duration = Duration::from_millis(20);

static WAITING: Mutex<Waiting> = Mutex::new(Waiting { files: Vec::new(), is_watched: false });

struct Waiting {
    files: Vec<(PathBuf, oneshot::Sender<()>)>,
    /// Whether there is a thread that looks at them.
    is_watched: bool,
}

/// Waits [`PAUSE`] at least, and until the file at `path` has no owner. Another process may own it again by then.
pub(crate) async fn released(path: &Path) {
    let (told, is_released) = oneshot::channel();
    if watch(path, told).is_ok() {
        // The thread polls until it has sent the event.
        let _ = is_released.await;
    } else {
        tokio::time::sleep(PAUSE).await;
    }
}

fn watch(path: &Path, told: oneshot::Sender<()>) -> io::Result<()> {
    let mut waiting = waiting();
    if !waiting.is_watched {
        thread::Builder::new().name("plyfold-watch".to_owned()).spawn(look)?;
        waiting.is_watched = true;
    }
    waiting.files.push((path.to_owned(), told));
    Ok(())
}

fn look() {
    loop {
        thread::sleep(PAUSE);
        let mut files = std::mem::take(&mut waiting().files);
        files.retain(|(path, told)| !told.is_closed() && is_owned(path));
        // Dropping the sender reports that the file is free.
        let mut waiting = waiting();
        waiting.files.append(&mut files);
        if waiting.files.is_empty() {
            waiting.is_watched = false;
            return;
        }
    }
}

/// Whether a file has an owner. A file that cannot be opened counts as free: the next lock attempt reports the error.
fn is_owned(path: &Path) -> bool {
    let Ok(Some(file)) = files::open(path) else { return false };
    matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
}

fn waiting() -> MutexGuard<'static, Waiting> {
    // Every change of the list is one call, so a poisoned lock is consistent.
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}
