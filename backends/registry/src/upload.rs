//! Blobs on their way into a registry (distribution specification, "Pushing blobs"): in one PUT, or in chunks that
//! survive a broken connection.

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use futures_util::{Stream, StreamExt, stream};
use plyfold_core::progress::Progress;
use plyfold_core::pull::{Retry, Row};
use plyfold_core::{Blob, Error, ErrorKind, Reference, Result, digest, stall};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE};
use reqwest::{Body, Method, Request, Response, StatusCode, Url};

use crate::auth::Access;
use crate::client::{Client, Target};
use crate::error;
use crate::range::{held_back, range_value};
use crate::response::text;

/// The largest chunk, which is held in memory, in bytes.
const LARGEST: u64 = 64 << 20;
/// Bytes of a chunk that are passed to the connection at a time, so that progress is measured.
const PIECE: usize = 64 << 10;
/// What happens after a chunk has failed.
const RETRY: Retry = Retry {
    attempts: 5,
    base: Duration::from_millis(200),
    cap: Duration::from_secs(10),
    total: Duration::from_secs(60),
};

/// An upload that a registry has begun.
struct Upload {
    /// Where it goes on.
    url: Url,
    /// The least that every chunk but the last must have, in bytes.
    least: u64,
}

impl Client {
    /// Stores a blob; nothing but a HEAD is sent when the registry has it.
    pub(crate) async fn write_blob(&self, reference: &Reference, blob: Blob) -> Result<()> {
        let descriptor = blob.descriptor().clone();
        digest::supported(descriptor.digest())?;
        let (target, _) = self.target(reference, Access::Push)?;
        if self.find_blob(&target, &descriptor).await? {
            return Ok(());
        }
        let upload = self.begin(&target).await?;
        match chunk_size(self.site.upload_chunk, upload.least, descriptor.size()) {
            Some(size) => self.chunks(&target, upload, UploadBody::new(blob), size).await,
            None => self.put(&target, upload.url, UploadBody::new(blob)).await,
        }
    }

    async fn begin(&self, target: &Target) -> Result<Upload> {
        let response = self.send(target, post(target)).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(error::status(response, "upload").await);
        }
        let least = text(response.headers(), "oci-chunk-min-length").and_then(|text| text.parse().ok());
        Ok(Upload { url: self.location(&response)?, least: least.unwrap_or(0) })
    }

    /// Sends all of a blob in one PUT.
    async fn put(&self, target: &Target, mut url: Url, content: UploadBody) -> Result<()> {
        let descriptor = content.blob.descriptor().clone();
        url.query_pairs_mut().append_pair("digest", descriptor.digest().as_ref());
        let source = Arc::new(UploadProgress::default());
        let request = octets(Request::new(Method::PUT, url), descriptor.size());
        let body = content.proven(Arc::clone(&source));
        let response = self.moving(target, request, body, source).await?;
        expect_success(response, "upload").await.map_err(forgotten)
    }

    /// Sends a blob by one PATCH for each chunk. What the registry has not received is sent again.
    async fn chunks(
        &self,
        target: &Target,
        mut upload: Upload,
        mut content: UploadBody,
        size: u64,
    ) -> Result<()> {
        let mut start = 0;
        loop {
            // The blob is verified at its end, and the PUT follows: a wrong blob is never completed.
            let chunk = content.chunk(size).await?;
            if chunk.is_empty() {
                break;
            }
            match self.chunk(target, &mut upload, start, chunk.clone()).await {
                Ok(()) => {}
                // The registry may not support chunks: send the blob in one PUT.
                Err(e) if start == 0 && is_about_chunks(e.kind()) => {
                    let upload = self.begin(target).await?;
                    content.held.push_front(chunk);
                    return self.put(target, upload.url, content).await;
                }
                Err(e) => return Err(forgotten(e)),
            }
            start += chunk.len() as u64;
        }
        let mut url = upload.url;
        url.query_pairs_mut().append_pair("digest", content.blob.descriptor().digest().as_ref());
        let mut request = Request::new(Method::PUT, url);
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        expect_success(self.send(target, request).await?, "upload").await.map_err(forgotten)
    }

    /// Sends one chunk, which begins at `start`, until the registry has all of it.
    async fn chunk(&self, target: &Target, upload: &mut Upload, start: u64, chunk: Bytes) -> Result<()> {
        let (mut sent, mut row, mut renewed) = (0, Row::default(), false);
        while sent < chunk.len() {
            let part = chunk.slice(sent..);
            let patch = self.patch(target, upload, start + sent as u64, part);
            let error = match row.attempt(patch).await {
                Ok(received) => match within(received, start, chunk.len()).filter(|now| *now > sent) {
                    Some(now) => {
                        sent = now;
                        continue;
                    }
                    None => lost(received, start),
                },
                Err(e) => e,
            };
            // Bytes are sent once, and their token may have run out: the next request fetches a new one.
            if *error.kind() == ErrorKind::Auth && !renewed {
                renewed = true;
            } else {
                RETRY.pause(&mut row, error, "upload", &Progress::none()).await?;
            }
            let received = self.received(target, upload).await?;
            sent = within(received, start, chunk.len()).ok_or_else(|| lost(received, start))?;
        }
        Ok(())
    }

    /// Sends bytes that begin at `start`; with how many the registry has now in all.
    async fn patch(&self, target: &Target, upload: &mut Upload, start: u64, bytes: Bytes) -> Result<u64> {
        let end = start + bytes.len() as u64;
        let mut request = octets(Request::new(Method::PATCH, upload.url.clone()), bytes.len() as u64);
        request.headers_mut().insert(CONTENT_RANGE, range_value(&format!("{start}-{}", end - 1))?);
        let source = Arc::new(UploadProgress::default());
        let response = self.moving(target, request, pieces(bytes, Arc::clone(&source)), source).await?;
        match response.status() {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::CREATED => {}
            // The registry has another number of bytes than expected: ask it how many.
            StatusCode::RANGE_NOT_SATISFIABLE => {
                return Err(Error::new(ErrorKind::Unavailable, "the registry has received another range"));
            }
            _ => return Err(error::status(response, "upload").await),
        }
        upload.url = self.location(&response)?;
        Ok(received(&response).unwrap_or(end))
    }

    /// How many bytes of an upload the registry has.
    async fn received(&self, target: &Target, upload: &mut Upload) -> Result<u64> {
        let mut row = Row::default();
        loop {
            let asked = self.send(target, Request::new(Method::GET, upload.url.clone()));
            let asked = row.attempt(asked).await;
            let error = match asked {
                Ok(response) if response.status().is_success() => {
                    if let Ok(url) = self.location(&response) {
                        upload.url = url;
                    }
                    return Ok(received(&response).unwrap_or(0));
                }
                Ok(response) => error::status(response, "upload").await,
                Err(e) => e,
            };
            RETRY.pause(&mut row, error, "upload", &Progress::none()).await?;
        }
    }

    /// Sends a request whose body may take any time while it makes progress.
    async fn moving(
        &self,
        target: &Target,
        mut request: Request,
        body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        source: Arc<UploadProgress>,
    ) -> Result<Response> {
        *request.body_mut() = Some(Body::wrap_stream(body));
        let limit = self.site.time_outs.upload_stall();
        let sending = pin!(self.send(target, request));
        let outcome = match stall::scope(select(sending, pin!(source.stands_still(limit)))).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(_) => {
                Err(Error::new(ErrorKind::Timeout, format!("the upload made no progress for {limit:?}")))
            }
        };
        // If the source failed, report its error and not the one that it caused at the registry.
        match source.take_error() {
            Some(error) => Err(error),
            None => outcome,
        }
    }
}

/// Bytes of one chunk of a blob of `size`, when it goes in chunks at all.
fn chunk_size(mebibytes: u32, least: u64, size: u64) -> Option<u64> {
    let wanted = (u64::from(mebibytes) << 20).min(LARGEST);
    let chunk = wanted.max(least);
    (wanted > 0 && chunk <= LARGEST && chunk < size).then_some(chunk)
}

/// A request that begins an upload.
pub(crate) fn post(target: &Target) -> Request {
    let mut request = target.request(Method::POST, "blobs/uploads/");
    // Some registries refuse a POST that does not say that it is empty.
    request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    request
}

/// An error unless the registry has done what it was asked.
pub(crate) async fn expect_success(response: Response, what: &str) -> Result<()> {
    match response.status() {
        // 201 by the specification; 200, 202 and 204 in the field.
        status if status.is_success() => Ok(()),
        _ => Err(error::status(response, what).await),
    }
}

fn octets(mut request: Request, length: u64) -> Request {
    request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    request
}

/// The number of bytes in an answer's `Range: 0-LAST`. One that has nothing says `0-0`, as one that has one byte:
/// no chunk of ours is that small.
fn received(response: &Response) -> Option<u64> {
    let last = text(response.headers(), RANGE.as_str())?.trim_start_matches("bytes=").strip_prefix("0-")?;
    last.parse().ok().map(|last: u64| if last == 0 { 0 } else { last + 1 })
}

/// How much of a chunk a registry has that has `received` bytes in all.
fn within(received: u64, start: u64, length: usize) -> Option<usize> {
    let of_chunk = usize::try_from(received.checked_sub(start)?).ok()?;
    (of_chunk <= length).then_some(of_chunk)
}

fn lost(received: u64, start: u64) -> Error {
    let message = format!("the registry has {received} bytes of an upload that was at {start}");
    Error::new(ErrorKind::Unavailable, message)
}

/// What a registry no longer knows of an upload has to start again, with all of the blob.
fn forgotten(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => {
            Error::new(ErrorKind::Unavailable, "the registry no longer has the upload").with_source(error)
        }
        _ => error,
    }
}

/// Whether a refusal may mean that the registry takes no chunks.
fn is_about_chunks(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Unsupported)
}

/// A blob, of which some bytes have been read already.
struct UploadBody {
    held: VecDeque<Bytes>,
    blob: Blob,
}

impl UploadBody {
    fn new(blob: Blob) -> Self {
        Self { held: VecDeque::new(), blob }
    }

    /// The next bytes, at most `size` of them; none at the verified end.
    async fn chunk(&mut self, size: u64) -> Result<Bytes> {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let mut chunk = BytesMut::new();
        while chunk.len() < size {
            let next = match self.held.pop_front() {
                None => self.blob.chunk().await?,
                held => held,
            };
            let Some(mut bytes) = next else { break };
            let rest = bytes.split_off(bytes.len().min(size - chunk.len()));
            chunk.extend_from_slice(&bytes);
            if !rest.is_empty() {
                self.held.push_front(rest);
            }
        }
        Ok(chunk.freeze())
    }

    /// The bytes as they come, the last ones held back until the end has proven them all: a registry that does not
    /// check digests never gets all bytes of a wrong blob.
    fn proven(self, source: Arc<UploadProgress>) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let chunks = stream::iter(self.held.into_iter().map(Ok)).chain(self.blob);
        held_back(chunks.map(move |chunk| {
            source.moved();
            chunk.map_err(|e| source.fail(e))
        }))
    }
}

/// What is known about the bytes of an upload while they are on their way.
#[derive(Debug, Default)]
struct UploadProgress {
    chunks: AtomicU64,
    error: Mutex<Option<Error>>,
}

impl UploadProgress {
    /// Returns when no chunk has moved for this long.
    async fn stands_still(&self, limit: Duration) {
        loop {
            let before = self.chunks.load(Ordering::Relaxed);
            stall::sleep(limit).await;
            if self.chunks.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    fn moved(&self) {
        self.chunks.fetch_add(1, Ordering::Relaxed);
    }

    fn take_error(&self) -> Option<Error> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn fail(&self, error: Error) -> io::Error {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        io::Error::other("the source of the upload failed")
    }
}

/// Bytes in pieces.
fn pieces(
    bytes: Bytes,
    source: Arc<UploadProgress>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let starts = (0..bytes.len()).step_by(PIECE);
    stream::iter(starts).map(move |start| {
        source.moved();
        Ok(bytes.slice(start..bytes.len().min(start + PIECE)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_bounded() {
        let mib = 1 << 20;
        for (wanted, least, size, expected) in [
            (0, 0, 9 * mib, None),
            (2, 0, 9 * mib, Some(2 * mib)),
            (2, 3 * mib, 9 * mib, Some(3 * mib)),
            (2, 100 * mib, 900 * mib, None),
            (9, 0, 9 * mib, None),
            (100, 0, 900 * mib, Some(LARGEST)),
            (u32::MAX, 0, u64::MAX, Some(LARGEST)),
        ] {
            assert_eq!(chunk_size(wanted, least, size), expected, "{wanted} MiB, {least}, {size}");
        }
    }
}
