//! The bucket: objects under a prefix, and the one way to change them.
//!
//! Each write of an object that changes is conditional on the version that was read ([`Bucket::swap`]), and each body has a
//! token that no other write has. So a request whose answer is lost, or that is delivered twice, differs from another
//! writer's: the object has this body or another one.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use object_store::path::Path;
use object_store::{
    Error as StoreError, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    UpdateVersion,
};
use plyfold_core::{Error, Result};

use crate::error::failed;

/// An object of at most so many bytes says that what was there is gone. Listings tell it from others by its size. It is not
/// removed: no service of `object_store` removes an object on a condition, and an object that another writer has put
/// there meanwhile would go with it.
pub(crate) const GONE_BYTES: usize = 16;

/// Objects under a prefix. Clones share connections.
#[derive(Clone)]
pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    uri: Arc<str>,
}

/// An object as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) bytes: Bytes,
    pub(crate) version: UpdateVersion,
    /// When it was written, by the service's clock.
    pub(crate) modified: SystemTime,
}

/// What an object has to be for a [swap](Bucket::swap).
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    Absent,
    Version(UpdateVersion),
}

/// The outcome of a [swap](Bucket::swap).
#[derive(Clone, Debug)]
pub(crate) enum Swapped {
    Done(UpdateVersion),
    /// Another writer was first.
    Lost,
}

impl Bucket {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, prefix: &Path, uri: &str) -> Self {
        Self { store, prefix: prefix.as_ref().to_owned(), uri: uri.into() }
    }

    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The path of an object under the prefix.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for what can be no path.
    pub(crate) fn path(&self, below: &str) -> Result<Path> {
        let path = if self.prefix.is_empty() { below.to_owned() } else { format!("{}/{below}", self.prefix) };
        Path::parse(&path).map_err(|e| self.failed(e.into(), "naming an object"))
    }

    /// The rest of a path under a folder of the prefix.
    pub(crate) fn below<'a>(&self, folder: &str, path: &'a Path) -> Option<&'a str> {
        let rest = match self.prefix.as_str() {
            "" => Some(path.as_ref()),
            prefix => path.as_ref().strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')),
        };
        rest?.strip_prefix(folder)?.strip_prefix('/')
    }

    pub(crate) fn failed(&self, error: StoreError, action: &str) -> Error {
        failed(error, action, self)
    }

    /// An object of at most `limit` bytes; `None` when it is absent.
    ///
    /// # Errors
    /// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for one that is longer, and those of the service.
    pub(crate) async fn read(&self, path: &Path, limit: u64) -> Result<Option<Read>> {
        let action = "reading an object";
        let at = |e: Error| e.with_context("object", path);
        let found = match self.store.get_opts(path, GetOptions::default()).await {
            Err(StoreError::NotFound { .. }) => return Ok(None),
            found => found.map_err(|e| at(self.failed(e, action)))?,
        };
        if found.meta.size > limit {
            let message = format!(
                "an object of {} bytes stands where one of at most {limit} is expected",
                found.meta.size
            );
            return Err(at(Error::corrupt(message).with_endpoint(self)));
        }
        let meta = found.meta.clone();
        let bytes = match found.bytes().await {
            Err(StoreError::NotFound { .. }) => return Ok(None),
            bytes => bytes.map_err(|e| at(self.failed(e, action)))?,
        };
        let version = UpdateVersion { e_tag: meta.e_tag, version: meta.version };
        Ok(Some(Read { bytes, version, modified: meta.last_modified.into() }))
    }

    /// Puts `body` in the place of what is expected there, in one step, or nothing. `body` has a token that no other write
    /// has.
    ///
    /// # Errors
    /// Those of the service. The outcome may be unknown then.
    pub(crate) async fn swap(&self, path: &Path, expected: &Expected, body: Bytes) -> Result<Swapped> {
        let mode = match expected {
            Expected::Absent => PutMode::Create,
            Expected::Version(version) => PutMode::Update(version.clone()),
        };
        let put = self.store.put_opts(path, body.clone().into(), PutOptions::from(mode)).await;
        let error = match put {
            Ok(put) => return Ok(Swapped::Done(put.into())),
            Err(e) => e,
        };
        let is_conflict = matches!(
            error,
            StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } | StoreError::NotFound { .. }
        );
        // It may have been made by a request whose answer was lost, and that was sent again.
        match self.read(path, body.len() as u64).await {
            Ok(Some(found)) if found.bytes == body => Ok(Swapped::Done(found.version)),
            _ if is_conflict => Ok(Swapped::Lost),
            _ => Err(self.failed(error, "writing an object").with_context("object", path)),
        }
    }

    /// Removes an object whose name is never used again. One that is absent is a success.
    ///
    /// # Errors
    /// Those of the service.
    pub(crate) async fn delete(&self, path: &Path) -> Result<()> {
        match self.store.delete(path).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.failed(e, "removing an object").with_context("object", path)),
        }
    }

    /// The objects of a folder, in the order of their paths, behind `after` if that is given. Page by page: a few are in
    /// memory.
    pub(crate) fn list(
        &self,
        folder: &str,
        after: Option<&Path>,
    ) -> Result<BoxStream<'static, Result<ObjectMeta>>> {
        let prefix = self.path(folder)?;
        let found = match after {
            Some(after) => self.store.list_with_offset(Some(&prefix), after),
            None => self.store.list(Some(&prefix)),
        };
        let at = self.clone();
        Ok(found.map_err(move |e| at.failed(e, "listing objects")).boxed())
    }
}

/// A text that no other write has.
pub(crate) fn token() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// The body of an object that says that what was there is gone.
pub(crate) fn gone() -> Bytes {
    let mut token = token();
    token.truncate(GONE_BYTES);
    token.into()
}

/// Whether an object of this size says that what was there is gone.
pub(crate) fn is_gone(size: u64) -> bool {
    size <= GONE_BYTES as u64
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.uri)
    }
}
