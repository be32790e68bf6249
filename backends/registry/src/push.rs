//! Writing: blobs in one PUT, mounts, manifests, deletes (distribution specification, "Pushing").

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::{Stream, stream};
use plyfold_core::{Blob, Descriptor, Error, ErrorKind, RawManifest, Reference, Result, digest, reference};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Body, Method, Request, Response, StatusCode, Url};

use crate::backend::{manifest_path, name_of, stated_digest};
use crate::client::{Access, Target};
use crate::{Registry, errors};

impl Registry {
    /// Stores a blob by POST and one PUT; nothing is sent when the registry has it.
    pub(crate) async fn write_blob(&self, reference: &Reference, blob: Blob) -> Result<()> {
        let descriptor = blob.descriptor().clone();
        digest::supported(descriptor.digest())?;
        let (target, _) = self.client.target(reference, Access::Push)?;
        if self.has_blob(&target, &descriptor).await? {
            return Ok(());
        }
        let response = self.client.send(&target, post(&target)).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(errors::status(response, "upload").await);
        }
        let mut url = self.client.location(&response)?;
        drop(response);
        url.query_pairs_mut().append_pair("digest", descriptor.digest().as_ref());
        self.upload(&target, url, blob).await
    }

    async fn upload(&self, target: &Target, url: Url, blob: Blob) -> Result<()> {
        let size = blob.descriptor().size();
        let source = Arc::new(Source::default());
        let mut request = Request::new(Method::PUT, url);
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(size));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        *request.body_mut() = Some(Body::wrap_stream(proven(blob, Arc::clone(&source))));
        let stall = self.client.patience.upload_stall();
        let sending = pin!(self.client.send(target, request));
        let outcome = match select(sending, pin!(source.stands_still(stall))).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(_) => {
                Err(Error::new(ErrorKind::Timeout, format!("the upload made no progress for {stall:?}")))
            }
        };
        // When the source broke, what the registry or the connection says about it is of no interest.
        if let Some(error) = source.take_error() {
            return Err(error);
        }
        expect_created(outcome?, "upload").await
    }

    /// Mounts a blob of another repository; a registry that starts an upload instead will not.
    pub(crate) async fn mount(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        from: &Reference,
    ) -> Result<bool> {
        digest::supported(blob.digest())?;
        let (source, from) = self.client.target(from, Access::Pull)?;
        let (target, _) = self.client.target(reference, Access::Mount(from.repository()))?;
        if source.base != target.base {
            return Ok(false);
        }
        let mut request = post(&target);
        request
            .url_mut()
            .query_pairs_mut()
            .append_pair("mount", blob.digest().as_ref())
            .append_pair("from", from.repository());
        let response = self.client.send(&target, request).await?;
        match response.status() {
            StatusCode::CREATED => Ok(true),
            StatusCode::ACCEPTED => Ok(false),
            _ => Err(errors::status(response, "mount").await),
        }
    }

    /// Stores a manifest byte for byte, under the reference's tag, or else by digest.
    pub(crate) async fn write_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        let media_type = manifest.descriptor().media_type();
        if let Some(wanted) = reference::digest_of(reference)? {
            RawManifest::verified(manifest.bytes().clone(), Some(media_type), &wanted)?;
        }
        let (target, reference) = self.client.target(reference, Access::Push)?;
        let path = match reference.tag() {
            Some(tag) => format!("manifests/{tag}"),
            None => manifest_path(&reference),
        };
        let mut request = target.request(Method::PUT, &path);
        let content_type = HeaderValue::from_str(media_type.as_ref())
            .map_err(|e| Error::corrupt("the manifest's media type is not one").with_source(e))?;
        request.headers_mut().insert(CONTENT_TYPE, content_type);
        *request.body_mut() = Some(manifest.bytes().clone().into());
        let response = self.client.send(&target, request).await?;
        let stated = stated_digest(&response);
        expect_created(response, &name_of(&reference)).await?;
        match stated.filter(|stated| stated.algorithm() == manifest.digest().algorithm()) {
            Some(stated) if stated != *manifest.digest() => {
                Err(Error::corrupt(format!("the registry stored {stated} in place of {}", manifest.digest())))
            }
            _ => Ok(()),
        }
    }

    /// Removes a tag, or with a digest the manifest and all its tags.
    pub(crate) async fn remove(&self, reference: &Reference) -> Result<()> {
        let (target, reference) = self.client.target(reference, Access::Delete)?;
        let request = target.request(Method::DELETE, &manifest_path(&reference));
        let response = self.client.send(&target, request).await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(errors::status(response, &name_of(&reference)).await)
    }
}

fn post(target: &Target) -> Request {
    let mut request = target.request(Method::POST, "blobs/uploads/");
    // Some registries refuse a POST that does not say that it is empty.
    request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    request
}

async fn expect_created(response: Response, what: &str) -> Result<()> {
    match response.status() {
        // 201 by the specification; 200, 202 and 204 in the field.
        status if status.is_success() => Ok(()),
        _ => Err(errors::status(response, what).await),
    }
}

/// What is known about the blob of an upload while it is on its way.
#[derive(Debug, Default)]
struct Source {
    chunks: AtomicU64,
    error: Mutex<Option<Error>>,
}

impl Source {
    /// Returns when no chunk has moved for this long.
    async fn stands_still(&self, stall: Duration) {
        loop {
            let before = self.chunks.load(Ordering::Relaxed);
            tokio::time::sleep(stall).await;
            if self.chunks.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    fn take_error(&self) -> Option<Error> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn fail(&self, error: Error) -> io::Error {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        io::Error::other("the source of the upload broke")
    }
}

/// A blob's bytes, the last chunk held back until the end has proven them all: a registry that does not check
/// digests never gets a whole blob that is wrong.
fn proven(blob: Blob, source: Arc<Source>) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold((Some(blob), None::<Bytes>), move |(blob, mut held)| {
        let source = Arc::clone(&source);
        async move {
            let Some(mut blob) = blob else { return Ok(None) };
            while let Some(chunk) = blob.chunk().await.map_err(|e| source.fail(e))? {
                source.chunks.fetch_add(1, Ordering::Relaxed);
                if let Some(ready) = held.replace(chunk) {
                    return Ok(Some((ready, (Some(blob), held))));
                }
            }
            Ok(held.map(|last| (last, (None, None))))
        }
    })
}
