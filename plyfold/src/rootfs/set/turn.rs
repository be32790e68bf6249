//! Sets that appear in one folder at the same time: one after the other.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use plyfold_core::{Error, ErrorKind, Result};

use crate::atomic_file::left;
use crate::blocking::Stop;

/// The right to look at the names in an output folder and to change them, while it lives. It ends with its process.
#[derive(Debug, Default)]
pub(super) struct Turn {
    lock: Option<File>,
    /// Why the folder cannot be locked.
    pub(super) without: Option<io::Error>,
}

impl Turn {
    /// Waits until no other process or thread has the right. Where there is no folder, or no locks, nothing is locked.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout) after five minutes; [`Cancelled`](ErrorKind::Cancelled).
    pub(super) fn take(&mut self, folder: &Path, stop: &Stop) -> Result<()> {
        /// A set that is written already takes seconds to appear. A lock that is held longer has another purpose.
        const LIMIT: Duration = Duration::from_secs(300);
        let start = Instant::now();
        while self.lock.is_none() && folder.is_dir() {
            stop.check()?;
            match lock(folder) {
                Ok(Some(lock)) => self.lock = Some(lock),
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    self.without = Some(e);
                    return Ok(());
                }
                _ if start.elapsed() >= LIMIT => {
                    let message = format!("another process has locked the output directory for {LIMIT:?}");
                    return Err(Error::new(ErrorKind::Timeout, message)
                        .with_context("path", folder.display())
                        .with_hint("end that process, or choose another directory"));
                }
                _ => thread::sleep(Duration::from_millis(10)),
            }
        }
        Ok(())
    }
}

/// Locks a folder itself; `None` while another holds the lock, or when another folder has just taken its place.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    let folder = fs::canonicalize(folder)?;
    let file = File::open(&folder)?;
    Ok(left::lock(&file, &folder)?.then_some(file))
}
