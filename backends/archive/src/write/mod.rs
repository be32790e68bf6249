//! Storing images in an archive.
//!
//! Blobs and documents are appended to a file beside the archive, of which no reader knows. With the names the members of the
//! archive that is there are copied behind them, and both lists with the new names; the file is synced then, and takes the
//! place of the archive. So there is the old archive or the new one, whenever the process ends. The next writer uses the blobs
//! that one has left which was ended before.

use std::path::Path;
use std::sync::Arc;

use plyfold_core::blocking::blocking;
use plyfold_core::{Blob, Descriptor, Digest, ErrorKind, Result};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::Config;
use crate::members::Member;
use part::{Part, STEP, not_begun};
pub(crate) use place::check;
pub(crate) use publish::Change;
use pushed::Pushed;

mod content;
mod delta;
mod gap;
mod left;
mod lists;
mod part;
mod parts;
mod place;
mod publish;
mod pushed;

/// What one handle of an archive and its clones write.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    part: Arc<Mutex<Option<Part>>>,
    pushed: Pushed,
}

/// The right to write, while the file beside the archive is there.
type Guard = OwnedMutexGuard<Option<Part>>;

impl Writer {
    /// What is stored and not yet in the archive.
    pub(crate) fn pushed(&self, digest: &Digest) -> Option<Member> {
        self.pushed.get(digest)
    }

    /// Waits for other writers of this handle, and for those of other handles and processes when nothing is written yet.
    pub(crate) async fn begin(&self, path: &Path) -> Result<Guard> {
        let mut guard = Arc::clone(&self.part).lock_owned().await;
        if guard.is_some() {
            return Ok(guard);
        }
        let (path, pushed) = (path.to_owned(), self.pushed.clone());
        blocking(move |stop| {
            *guard = Some(Part::begin(&path, pushed, stop)?);
            Ok(guard)
        })
        .await
    }

    /// Whether a writer that was ended has left the blob, when something is written: it is stored then.
    pub(crate) async fn has_left(&self, blob: &Descriptor) -> bool {
        let mut part = self.part.lock().await;
        take_left(&mut part, blob)
    }

    /// Appends a blob, or goes on with one. With an error, or dropped, it is not there, and what has arrived is kept for the next
    /// attempt unless it is wrong. A thread that writes owns the right to write, also for a caller that is gone.
    pub(crate) async fn append(&self, mut guard: Guard, blob: Blob) -> Result<()> {
        let (descriptor, from) = (blob.descriptor().clone(), blob.offset());
        let part = guard.as_mut().ok_or_else(not_begun)?;
        let blob = if from > 0 {
            let blob = blob.continuing(part.partial(&descriptor))?;
            part.resume(&descriptor)?;
            blob
        } else {
            part.append(&descriptor)?;
            blob
        };
        let (mut blob, mut bytes) = (blob.unverified(), Vec::new());
        loop {
            let next = blob.chunk().await;
            if let Ok(Some(chunk)) = &next {
                bytes.extend_from_slice(chunk);
                if bytes.len() < STEP {
                    continue;
                }
            }
            let wanted = descriptor.clone();
            (guard, bytes) = blocking(move |_| {
                guard.as_mut().ok_or_else(not_begun)?.extend(&bytes, &wanted)?;
                bytes.clear();
                Ok((guard, bytes))
            })
            .await?;
            match next {
                Ok(Some(_)) => {}
                Ok(None) => {
                    return blocking(move |_| guard.as_mut().ok_or_else(not_begun)?.end(&descriptor)).await;
                }
                Err(e) => {
                    if let Some(part) = guard.as_mut().filter(|_| *e.kind() == ErrorKind::Corrupt) {
                        part.forget();
                    }
                    return Err(e);
                }
            }
        }
    }

    /// Makes what is stored the archive, with the names of `change`. `published` is called then: what is in the archive is looked
    /// for there from now on.
    pub(crate) async fn publish(
        &self,
        mut guard: Guard,
        change: Change,
        config: &Config,
        published: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        let (config, pushed) = (config.clone(), self.pushed.clone());
        blocking(move |stop| {
            let part = guard.as_mut().ok_or_else(not_begun)?;
            let outcome = publish::publish(part, &change, &config, stop);
            // The file is the archive then, also when its folder cannot be synced, and is never written to again.
            if outcome.is_ok() || part.is_published {
                published();
                pushed.clear();
                *guard = None;
            }
            outcome
        })
        .await
    }
}

/// How many bytes a push that was cut has left of a blob.
pub(crate) fn partial(part: Option<&Part>, blob: &Descriptor) -> u64 {
    part.map_or(0, |part| part.partial(blob))
}

/// Whether a writer that was ended has left a blob: it is stored then.
pub(crate) fn take_left(part: &mut Option<Part>, blob: &Descriptor) -> bool {
    part.as_mut().is_some_and(|part| part.take_left(blob))
}
