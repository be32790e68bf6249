//! What clones of a cache share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use plyfold_core::{Error, Result};

use crate::bucket::{Bucket, Expected, Swapped};
use crate::record::{Found, Slot, State};
use crate::watch::Queues;

/// A bucket, and how it is used.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) bucket: Bucket,
    pub(crate) queues: Arc<Queues>,
    /// After this long a right that is not renewed is another's.
    pub(crate) expiry: Duration,
    pub(crate) scratch: Option<PathBuf>,
    /// Why nothing can be written.
    pub(crate) refusal: Option<Arc<str>>,
    /// A collection and a verification look at content without using it.
    pub(crate) looks: bool,
}

impl Shared {
    /// A change of names that is pending for so long, and whose object stays the same, is given up: its writer makes a few
    /// requests, or renews it.
    pub(crate) fn patience(&self) -> Duration {
        self.expiry / 3
    }

    /// Refuses a change where nothing can be written.
    ///
    /// # Errors
    /// [`Unsupported`](plyfold_core::ErrorKind::Unsupported), with the reason.
    pub(crate) fn check_writable(&self) -> Result<()> {
        match &self.refusal {
            Some(why) => Err(Error::unsupported(&**why).with_endpoint(&self.bucket)),
            None => Ok(()),
        }
    }

    /// What stands in the place of a record. Content that is condemned is used from now on: its record is changed, so that
    /// the collection that condemned it cannot remove it.
    ///
    /// # Errors
    /// Those of the service.
    pub(crate) async fn used_slot(&self, path: &Path) -> Result<Slot> {
        loop {
            let slot = Slot::read(&self.bucket, path).await?;
            let found = match slot {
                Slot::Held(found) if found.record.state == State::Condemned => found,
                slot => return Ok(slot),
            };
            if self.looks || self.refusal.is_some() {
                return Ok(Slot::Held(found));
            }
            let record = found.record.in_state(State::Live);
            let expected = Expected::Version(found.version.clone());
            if let Swapped::Done(version) = self.bucket.swap(path, &expected, record.to_bytes()?).await? {
                return Ok(Slot::Held(Box::new(Found { record, version, ..*found })));
            }
        }
    }

    /// Puts an object in the place of a version; whether that was still there.
    ///
    /// # Errors
    /// Those of the service.
    pub(crate) async fn replace(
        &self,
        path: &Path,
        version: &object_store::UpdateVersion,
        body: Bytes,
    ) -> Result<bool> {
        let swapped = self.bucket.swap(path, &Expected::Version(version.clone()), body).await?;
        Ok(matches!(swapped, Swapped::Done(_)))
    }
}
