//! A right that is held by an object: renewed while its holder lives, and ended with it.
//!
//! Each renewal puts another version of the object. Who waits for the right measures with its own clock for how long the
//! version stays the same, and takes over after [`expiry`](crate::Config::lease_seconds). Both puts are conditional, so one of the
//! two wins; a holder that has lost learns it with its next put, and whatever it would publish is such a put.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::UpdateVersion;
use object_store::path::Path;
use plyfold_core::{Error, ErrorKind, Result};
use tokio::sync::Mutex;

use crate::background;
use crate::bucket::{Bucket, Expected, Swapped};

/// Renewals within the time after which a right expires.
const RENEWALS: u32 = 4;

/// Renewals that are remembered for their outcome is unknown: those of a time in which a right expires several times.
const MOST_UNSURE: usize = 16;

/// Makes a body that no other write has.
type Body = Box<dyn Fn() -> Bytes + Send + Sync>;

/// A right. Dropping it puts the last body, in the background.
pub(crate) struct Hold(Option<Arc<Held>>);

struct Held {
    bucket: Bucket,
    path: Path,
    state: Mutex<HeldState>,
    renewed: Body,
    ended: Body,
}

struct HeldState {
    /// `None` when it has ended, or another has taken over.
    version: Option<UpdateVersion>,
    /// The bodies of renewals since that version of which it is not known whether they were made: the object may have one of them.
    unsure: Vec<Bytes>,
}

impl Hold {
    /// Puts the first body where the object is as expected, and renews it from then on; `None` when another was first. A
    /// caller that is dropped meanwhile leaves no right without a holder: the put is waited for, and its right is ended.
    ///
    /// # Errors
    /// Those of the service.
    pub(crate) async fn take(
        (bucket, path, expected): (&Bucket, &Path, &Expected),
        expiry: Duration,
        renewed: impl Fn() -> Bytes + Send + Sync + 'static,
        ended: impl Fn() -> Bytes + Send + Sync + 'static,
    ) -> Result<Option<Self>> {
        let (bucket, path, expected) = (bucket.clone(), path.clone(), expected.clone());
        let taken = background::handle()?.spawn(async move {
            match bucket.swap(&path, &expected, renewed()).await? {
                Swapped::Done(version) => {
                    Self::new((&bucket, path, version), expiry, renewed, ended).map(Some)
                }
                Swapped::Lost => Ok(None),
            }
        });
        let failed =
            |e| Error::new(ErrorKind::Internal, "a task that takes a right has ended").with_source(e);
        taken.await.map_err(failed)?
    }

    /// Renews an object of this version from now on.
    fn new(
        (bucket, path, version): (&Bucket, Path, UpdateVersion),
        expiry: Duration,
        renewed: impl Fn() -> Bytes + Send + Sync + 'static,
        ended: impl Fn() -> Bytes + Send + Sync + 'static,
    ) -> Result<Self> {
        let held = Arc::new(Held {
            bucket: bucket.clone(),
            path,
            state: Mutex::new(HeldState { version: Some(version), unsure: Vec::new() }),
            renewed: Box::new(renewed),
            ended: Box::new(ended),
        });
        let weak = Arc::downgrade(&held);
        background::handle()?.spawn(async move {
            loop {
                tokio::time::sleep(expiry / RENEWALS).await;
                let Some(held) = weak.upgrade() else { return };
                if !held.renew().await {
                    return;
                }
            }
        });
        Ok(Self(Some(held)))
    }

    /// Ends it with this body; whether it was still held.
    ///
    /// # Errors
    /// Those of the service.
    pub(crate) async fn end_with(mut self, body: Bytes) -> Result<bool> {
        match self.0.take() {
            Some(held) => held.end(body).await,
            None => Ok(false),
        }
    }

    /// Ends it, and waits for that.
    pub(crate) async fn end(mut self) {
        if let Some(held) = self.0.take() {
            held.end_or_say().await;
        }
    }
}

impl Held {
    /// Whether it is to be renewed further.
    async fn renew(&self) -> bool {
        let mut state = self.state.lock().await;
        let body = (self.renewed)();
        match self.put(&mut state, body.clone()).await {
            Ok(Some(next)) => *state = HeldState { version: Some(next), unsure: Vec::new() },
            Ok(None) => {
                if state.version.take().is_some() {
                    tracing::warn!("{}: another has taken over {}", self.bucket, self.path);
                }
                return false;
            }
            // The service may answer the next one; otherwise it expires.
            Err(e) => {
                tracing::debug!("{} is not renewed: {e}", self.path);
                if state.unsure.len() == MOST_UNSURE {
                    state.unsure.remove(0);
                }
                state.unsure.push(body);
            }
        }
        true
    }

    /// Puts a body in the place of the newest one of this holder; `None` when another has taken over.
    async fn put(&self, state: &mut HeldState, body: Bytes) -> Result<Option<UpdateVersion>> {
        let Some(current) = state.version.clone() else { return Ok(None) };
        let path = &self.path;
        if let Swapped::Done(version) =
            self.bucket.swap(path, &Expected::Version(current), body.clone()).await?
        {
            return Ok(Some(version));
        }
        // A renewal that seemed to have failed was made after all.
        let Some(longest) = state.unsure.iter().map(Bytes::len).max() else { return Ok(None) };
        let found = match self.bucket.read(path, longest as u64).await {
            Ok(Some(found)) if state.unsure.contains(&found.bytes) => found,
            Err(e) if *e.kind() != ErrorKind::Corrupt => return Err(e),
            _ => return Ok(None),
        };
        Ok(match self.bucket.swap(path, &Expected::Version(found.version), body).await? {
            Swapped::Done(version) => Some(version),
            Swapped::Lost => None,
        })
    }

    async fn end(&self, body: Bytes) -> Result<bool> {
        let mut state = self.state.lock().await;
        let put = self.put(&mut state, body).await;
        state.version = None;
        Ok(put?.is_some())
    }

    async fn end_or_say(&self) {
        if let Err(e) = self.end((self.ended)()).await {
            tracing::debug!("{} stays until it expires: {e}", self.path);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            background::remove(async move { held.end_or_say().await });
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(held) => write!(f, "Hold({})", held.path),
            None => f.write_str("Hold(ended)"),
        }
    }
}
