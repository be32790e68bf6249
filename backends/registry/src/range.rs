//! One request for a blob or for a range of it, and what its answer holds.

use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt, TryStreamExt};
use plyfold_core::{Blob, Descriptor, Error, ErrorKind, Mismatch, Result, TransferFault};
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, HeaderValue, RANGE, TRANSFER_ENCODING,
};
use reqwest::{Method, Request, Response, StatusCode};

use crate::client::Target;
use crate::error;
use crate::hosts::Watch;
use crate::policy::origin;
use crate::response::{Mirrored, other_digest, text};

pub(crate) fn request(target: &Target, method: Method, blob: &Descriptor) -> Request {
    let mut request = target.request(method, &format!("blobs/{}", blob.digest()));
    // A proxy that compresses would change the bytes that the digest is for.
    request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    request
}

/// A request for a part. Closed ranges alone work everywhere: some registries refuse `bytes=N-`.
pub(crate) fn ranged_request(
    target: &Target,
    method: Method,
    blob: &Descriptor,
    range: &Range<u64>,
) -> Result<Request> {
    let mut request = request(target, method, blob);
    let closed = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
    request.headers_mut().insert(RANGE, range_value(&closed)?);
    Ok(request)
}

/// The blob in an answer: the whole of it under 200, the range under a checked 206.
pub(crate) async fn opened(mut response: Response, blob: &Descriptor, range: Range<u64>) -> Result<Blob> {
    if !matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
        return Err(error::status(response, &name(blob)).await);
    }
    fits(&response, blob, &range)?;
    let endpoint = origin(response.url());
    let is_mirrored = response.extensions().get::<Mirrored>().is_some();
    let watch = response.extensions_mut().remove::<Watch>();
    // The whole comes from its first byte on.
    let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
    let start = if is_part { range.start } else { 0 };
    let content: BoxStream<'static, _> = match range.end == blob.size() {
        _ if is_part => content(response, range.end - start).boxed(),
        true if is_mirrored => proven(content(response, blob.size()), blob, endpoint.clone())?.boxed(),
        true => content(response, blob.size()).boxed(),
        false => first(content(response, blob.size()), range.end).boxed(),
    };
    Ok(Blob::ranged(blob, start..range.end, Watch::over(watch, content))?.with_endpoint(endpoint))
}

/// Whether the head of an answer of success is that of the blob, or of the range.
///
/// A `Content-Encoding` decides nothing: web servers label what is stored as gzip with it. The digest is that of the
/// bytes as they are sent.
pub(crate) fn fits(response: &Response, blob: &Descriptor, range: &Range<u64>) -> Result<()> {
    let endpoint = origin(response.url());
    if let Some(other) = other_digest(response, blob.digest()) {
        return Err(Error::corrupt(format!("the registry sent {other} in place of {}", blob.digest()))
            .with_endpoint(endpoint));
    }
    match response.status() {
        // One wrong answer out of several does not discard the bytes that were received.
        StatusCode::PARTIAL_CONTENT if !states_range(response, range, blob.size()) => {
            let stated = text(response.headers(), CONTENT_RANGE.as_str()).unwrap_or("none").to_owned();
            Err(Error::from(TransferFault::OtherRange).with_endpoint(endpoint).with_context("range", stated))
        }
        StatusCode::OK => match response.content_length().filter(|length| *length != blob.size()) {
            Some(length) => Err(match text(response.headers(), CONTENT_ENCODING.as_str()) {
                Some(coding) => wrong_size(blob, length).with_hint(format!(
                    "it was sent with Content-Encoding: {coding}; a proxy on the way may have compressed it"
                )),
                None => wrong_size(blob, length),
            }),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// A mirror's content. The last chunk is held back until the digest matches. A mismatch is treated as a broken
/// transfer, which goes on at another host.
fn proven(
    content: impl Stream<Item = Result<Bytes>> + Send + 'static,
    blob: &Descriptor,
    endpoint: String,
) -> Result<impl Stream<Item = Result<Bytes>> + Send + 'static> {
    let retryable = move |e: Error| match e.detail::<Mismatch>() {
        Some(_) => Error::from(TransferFault::OtherContent).with_endpoint(&endpoint),
        None => e,
    };
    Ok(held_back(Blob::new(blob, content)?.map_err(retryable)))
}

/// The same chunks, but the last one only after the end: of content that ends in an error, no reader gets all bytes.
pub(crate) fn held_back<E: Send + 'static>(
    content: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, E>> + Send + 'static {
    stream::try_unfold((content.fuse().boxed(), None), |(mut content, mut last)| async move {
        while let Some(chunk) = content.try_next().await? {
            if let Some(ready) = last.replace(chunk) {
                return Ok(Some((ready, (content, last))));
            }
        }
        Ok(last.map(|last| (last, (content, None))))
    })
}

/// Whether `Content-Range` (RFC 9110 14.4) is exactly what was asked for; the total may be unknown.
pub(crate) fn states_range(response: &Response, range: &Range<u64>, size: u64) -> bool {
    let stated = text(response.headers(), CONTENT_RANGE.as_str()).unwrap_or_default();
    let exact = format!("bytes {}-{}/", range.start, range.end.saturating_sub(1));
    stated.strip_prefix(&exact).is_some_and(|total| total == "*" || total == size.to_string())
}

/// The body, which should have `length` bytes.
fn content(response: Response, length: u64) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    // Neither a length nor chunks: the end of the connection is the only end of the body, and may come too early.
    let is_closed_by_end =
        response.content_length().is_none() && !response.headers().contains_key(TRANSFER_ENCODING);
    stream::try_unfold((response, 0), move |(mut response, read)| async move {
        let chunk = response.chunk().await.map_err(|e| error::transport(e, response.url()))?;
        match chunk {
            Some(chunk) => {
                let read = read + chunk.len() as u64;
                Ok(Some((chunk, (response, read))))
            }
            None if is_closed_by_end && read < length => {
                Err(Error::from(TransferFault::Cut).with_endpoint(origin(response.url())))
            }
            None => Ok(None),
        }
    })
}

/// The first `length` bytes of a stream.
fn first(
    content: impl Stream<Item = Result<Bytes>> + Send + 'static,
    length: u64,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    stream::try_unfold((content.boxed(), length), |(mut content, left)| async move {
        let next = if left == 0 { None } else { content.try_next().await? };
        Ok(next.map(|mut chunk| {
            chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            let left = left - chunk.len() as u64;
            (chunk, (content, left))
        }))
    })
}

pub(crate) fn name(blob: &Descriptor) -> String {
    format!("blob {}", blob.digest())
}

pub(crate) fn wrong_size(blob: &Descriptor, actual_size: u64) -> Error {
    Mismatch::of(blob, None, actual_size).into()
}

/// A range as the value of a header.
pub(crate) fn range_value(text: &str) -> Result<HeaderValue> {
    let internal = |e| Error::new(ErrorKind::Internal, "a range is a header").with_source(e);
    HeaderValue::from_str(text).map_err(internal)
}
