//! The right to write one blob or one artifact: the record itself is the lock, and publishing is its last put.

use futures_util::future::BoxFuture;
use object_store::path::Path;
use plyfold_core::Result;

use crate::background;
use crate::bucket::{Bucket, Expected, gone, token};
use crate::hold::Hold;
use crate::record::{self, Found, Record, Slot, State};
use crate::shared::Shared;
use crate::watch::{Turn, Watch};

/// Whether what is there is what is wanted.
pub(crate) type IsSound<'a> = &'a (dyn Fn(&Found) -> BoxFuture<'static, Result<bool>> + Send + Sync);

/// What came of the wish to write.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// It is there.
    Present(Box<Found>),
    /// The caller may write it.
    Granted(Claim),
}

/// The right to write, until it is [published](Self::publish) or dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    bucket: Bucket,
    path: Path,
    /// The name of the object with the content.
    pub(crate) id: String,
    hold: Hold,
    _turn: Turn,
}

impl Claim {
    /// Waits until it is there or the caller may write it. `is_sound` says whether what is there is what is wanted;
    /// otherwise it is replaced.
    ///
    /// # Errors
    /// Those of the service.
    pub(crate) async fn take(shared: &Shared, path: &Path, is_sound: IsSound<'_>) -> Result<Claimed> {
        let turn = shared.queues.turn(path.as_ref()).await;
        let mut watch = Watch::new(shared.expiry);
        loop {
            let (expected, before) = match shared.used_slot(path).await? {
                Slot::Damaged(version) => (Expected::Version(version), None),
                Slot::Empty(expected) => (expected, None),
                Slot::Held(found) if found.record.state == State::Writing => {
                    if !watch.has_expired(&found.version) {
                        watch.pause().await;
                        continue;
                    }
                    tracing::debug!("{}: the writer of {path} is gone", shared.bucket);
                    (Expected::Version(found.version), found.record.data)
                }
                Slot::Held(found) if is_sound(&found).await? => return Ok(Claimed::Present(found)),
                Slot::Held(found) => (Expected::Version(found.version), found.record.data),
            };
            let id = token();
            let written = id.clone();
            let written = move || Record::writing(&written).to_bytes().unwrap_or_else(|_| gone());
            let taken = Hold::take((&shared.bucket, path, &expected), shared.expiry, written, gone);
            if let Some(hold) = taken.await? {
                if let Some(before) = before {
                    remove_data(&shared.bucket, path, &before);
                }
                let (bucket, path) = (shared.bucket.clone(), path.clone());
                return Ok(Claimed::Granted(Self { bucket, path, id, hold, _turn: turn }));
            }
        }
    }

    /// Where the content goes.
    pub(crate) fn data(&self) -> Result<Path> {
        record::data(&self.bucket, &self.path, &self.id)
    }

    /// Makes it visible; `false` when another has taken over meanwhile, and nothing was made visible by this.
    ///
    /// # Errors
    /// Those of the service. The outcome may be unknown then: the content stays until a collection.
    pub(crate) async fn publish(self, record: &Record) -> Result<bool> {
        let Self { bucket, path, id, hold, _turn } = self;
        if hold.end_with(record.to_bytes()?).await? {
            return Ok(true);
        }
        // The record was changed by another. It may have been published before, by a put whose answer was lost.
        match Slot::read(&bucket, &path).await? {
            Slot::Held(found) if found.record.has_content() && found.record.data.as_deref() == Some(&*id) => {
                Ok(true)
            }
            Slot::Damaged(_) => Ok(false),
            Slot::Empty(_) | Slot::Held(_) => {
                remove_data(&bucket, &path, &id);
                Ok(false)
            }
        }
    }

    /// Gives it up, and waits for that.
    pub(crate) async fn give_up(self) {
        let Self { hold, .. } = self;
        hold.end().await;
    }
}

/// Removes content that no record will name again, in the background. What this does not remove, a collection does.
pub(crate) fn remove_data(bucket: &Bucket, path: &Path, id: &str) {
    let Ok(data) = record::data(bucket, path, id) else { return };
    let bucket = bucket.clone();
    background::remove(async move {
        if let Err(e) = bucket.delete(&data).await {
            tracing::debug!("{data} stays until a collection: {e}");
        }
    });
}
