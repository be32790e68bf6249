//! The bucket: objects under a prefix, and the one way to change them.
//!
//! Each write of an object that changes is conditional on the version that was read ([`Bucket::swap`]), and each body has a
//! token that no other write has. So a request whose answer is lost, or that is delivered twice, differs from another
//! writer's: the object has this body or another one.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    Error as StoreError, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    UpdateVersion,
};
use plyfold_core::{Error, Result};

use crate::error::{failed, is_bucket_missing};
use crate::tries::Tries;

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

/// What stands where a put was to be made.
enum Found {
    /// The body of this put.
    Body(UpdateVersion),
    /// What the put expects.
    Expected,
    /// What another writer has put.
    Other,
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
        let mut tries = Tries::new();
        loop {
            match self.read_once(path, limit).await {
                Err(e) if tries.again(&e).await => {}
                read => return read,
            }
        }
    }

    async fn read_once(&self, path: &Path, limit: u64) -> Result<Option<Read>> {
        let action = "reading an object";
        let at = |e: Error| e.with_context("object", path);
        let found = match self.store.get_opts(path, GetOptions::default()).await {
            Err(e) if is_absent(&e) => return Ok(None),
            found => found.map_err(|e| at(self.failed(e, action)))?,
        };
        if found.meta.size > limit {
            let message = format!(
                "an object of {} bytes stands where one of at most {limit} is expected",
                found.meta.size
            );
            return Err(at(self.damaged(message)));
        }
        let meta = found.meta.clone();
        let bytes = match found.bytes().await {
            Err(e) if is_absent(&e) => return Ok(None),
            bytes => bytes.map_err(|e| at(self.failed(e, action)))?,
        };
        let version = UpdateVersion { e_tag: meta.e_tag, version: meta.version };
        Ok(Some(Read { bytes, version, modified: meta.last_modified.into() }))
    }

    /// The version and the size of an object, whatever it is; `None` when it is absent.
    ///
    /// # Errors
    /// Those of the service.
    pub(crate) async fn look(&self, path: &Path) -> Result<Option<(UpdateVersion, u64)>> {
        let mut tries = Tries::new();
        loop {
            let error = match self.store.head(path).await {
                Ok(found) => {
                    let version = UpdateVersion { e_tag: found.e_tag, version: found.version };
                    return Ok(Some((version, found.size)));
                }
                Err(e) if is_absent(&e) => return Ok(None),
                Err(e) => self.failed(e, "looking for an object").with_context("object", path),
            };
            if !tries.again(&error).await {
                return Err(error);
            }
        }
    }

    /// The error of an object that is not what this crate writes there.
    pub(crate) fn damaged(&self, message: impl Into<String>) -> Error {
        let error = Error::corrupt(message).with_endpoint(self);
        error.with_hint(
            "it was altered in the bucket, or another program writes under this prefix: give each its own",
        )
    }

    /// Puts `body` in the place of what is expected there, in one step, or nothing. `body` has a token that no other write
    /// has.
    ///
    /// A put whose outcome is unknown is made again while nothing has changed. That is safe: both have the same body and the
    /// same condition, so one of them is made at most, whichever arrives first, and however late the other one arrives.
    ///
    /// # Errors
    /// Those of the service. The outcome may be unknown then.
    pub(crate) async fn swap(&self, path: &Path, expected: &Expected, body: Bytes) -> Result<Swapped> {
        let mut tries = Tries::new();
        loop {
            let mode = match expected {
                Expected::Absent => PutMode::Create,
                Expected::Version(version) => PutMode::Update(version.clone()),
            };
            let put = self.store.put_opts(path, body.clone().into(), PutOptions::from(mode)).await;
            let error = match put {
                Ok(put) => return Ok(Swapped::Done(put.into())),
                Err(e) => e,
            };
            let is_conflict = match &error {
                StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } => true,
                // Of an object that was to be replaced. One that is to be made lacks a bucket.
                StoreError::NotFound { .. } => matches!(expected, Expected::Version(_)) && is_absent(&error),
                _ => false,
            };
            // It may have been made by a request whose answer was lost, and that was sent again.
            let found = self.compare(path, expected, &body).await;
            let error = self.failed(error, "writing an object").with_context("object", path);
            match found {
                Ok(Found::Body(version)) => return Ok(Swapped::Done(version)),
                _ if is_conflict => return Ok(Swapped::Lost),
                Ok(Found::Expected) if tries.again(&error).await => {}
                _ => return Err(error),
            }
        }
    }

    /// What stands where a put was to be made, of which it is not known whether it was.
    async fn compare(&self, path: &Path, expected: &Expected, body: &Bytes) -> Result<Found, StoreError> {
        let found = match self.store.get_opts(path, GetOptions::default()).await {
            Err(e) if is_absent(&e) => {
                let is_expected = matches!(expected, Expected::Absent);
                return Ok(if is_expected { Found::Expected } else { Found::Other });
            }
            found => found?,
        };
        let meta = found.meta.clone();
        let version = UpdateVersion { e_tag: meta.e_tag, version: meta.version };
        if meta.size == body.len() as u64 && found.bytes().await? == *body {
            return Ok(Found::Body(version));
        }
        let is_expected = matches!(expected, Expected::Version(expected) if *expected == version);
        Ok(if is_expected { Found::Expected } else { Found::Other })
    }

    /// Removes an object whose name is never used again. One that is absent is a success.
    ///
    /// # Errors
    /// Those of the service.
    pub(crate) async fn delete(&self, path: &Path) -> Result<()> {
        let mut tries = Tries::new();
        loop {
            let error = match self.store.delete(path).await {
                Ok(()) => return Ok(()),
                Err(e) if is_absent(&e) => return Ok(()),
                Err(e) => self.failed(e, "removing an object").with_context("object", path),
            };
            if !tries.again(&error).await {
                return Err(error);
            }
        }
    }

    /// The objects of a folder, in the order of their paths, behind `after` if that is given. Page by page: a few are in
    /// memory. A page that fails is asked for again.
    pub(crate) fn list(
        &self,
        folder: &str,
        after: Option<&Path>,
    ) -> Result<BoxStream<'static, Result<ObjectMeta>>> {
        let prefix = self.path(folder)?;
        let begun = Listing { at: self.clone(), prefix, after: after.cloned(), tries: Tries::new() };
        let found = stream::try_unfold((begun, None), |(mut listing, mut pages)| async move {
            loop {
                let mut page = pages.take().unwrap_or_else(|| listing.pages());
                let error = match page.next().await {
                    None => return Ok(None),
                    Some(Ok(object)) => {
                        listing.after = Some(object.location.clone());
                        listing.tries = Tries::new();
                        return Ok(Some((object, (listing, Some(page)))));
                    }
                    Some(Err(e)) => listing.at.failed(e, "listing objects"),
                };
                if !listing.tries.again(&error).await {
                    return Err(error);
                }
            }
        });
        Ok(found.boxed())
    }
}

/// A listing, and how far it is.
struct Listing {
    at: Bucket,
    prefix: Path,
    after: Option<Path>,
    tries: Tries,
}

impl Listing {
    fn pages(&self) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        match &self.after {
            Some(after) => self.at.store.list_with_offset(Some(&self.prefix), after),
            None => self.at.store.list(Some(&self.prefix)),
        }
    }
}

/// Whether there is a bucket, and no such object in it.
pub(crate) fn is_absent(error: &StoreError) -> bool {
    matches!(error, StoreError::NotFound { .. }) && !is_bucket_missing(error)
}

/// A text that no other write has.
pub(crate) fn token() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Whether a text is such a one. What has another name where these are expected is of another program.
pub(crate) fn is_token(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
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
