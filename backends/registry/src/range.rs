//! One request for a blob or for a range of it, and what its answer holds.

use std::future::ready;
use std::ops::Range;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use plyfold_core::digest::Hasher;
use plyfold_core::{Blob, Descriptor, Error, ErrorKind, Mismatch, Result, TransferFault};
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, HeaderValue, RANGE, TRANSFER_ENCODING,
};
use reqwest::{Method, Request, Response, StatusCode};

use crate::client::Target;
use crate::error;
use crate::hosts::Watch;
use crate::limits::Permit;
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
    if !response.status().is_success() {
        return Err(error::status(response, &name(blob)).await);
    }
    fits(&response, blob, &range)?;
    let endpoint = origin(response.url());
    let is_mirrored = response.extensions().get::<Mirrored>().is_some();
    let watch = response.extensions_mut().remove::<Watch>();
    match response.status() {
        StatusCode::OK => {}
        StatusCode::PARTIAL_CONTENT => {
            let part = Watch::over(watch, content(response, range.end - range.start));
            return Ok(Blob::ranged(blob, range.clone(), part)?.with_endpoint(endpoint));
        }
        _ => return Err(error::status(response, &name(blob)).await),
    }
    if range.end == blob.size() && is_mirrored {
        let proven = proven(content(response, blob.size()), blob, &endpoint)?;
        return Ok(Blob::new(blob, Watch::over(watch, proven))?.with_endpoint(endpoint));
    }
    let content = Watch::over(watch, content(response, blob.size()));
    if range.end == blob.size() {
        // From the first byte on: the whole, which its end will verify.
        return Ok(Blob::new(blob, content)?.with_endpoint(endpoint));
    }
    let part = first(content, range.end);
    Ok(Blob::ranged(blob, 0..range.end, part)?.with_endpoint(endpoint))
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
    endpoint: &str,
) -> Result<impl Stream<Item = Result<Bytes>> + Send + 'static> {
    let wrong = Error::from(TransferFault::OtherContent).with_endpoint(endpoint);
    let (hasher, wanted) = (Hasher::like(blob.digest())?, blob.digest().clone());
    let state = (content.boxed(), None::<Bytes>, Some((hasher, wanted, wrong)));
    Ok(stream::try_unfold(state, |(mut content, mut held, proof)| async move {
        let Some((mut hasher, wanted, wrong)) = proof else { return Ok(None) };
        while let Some(chunk) = content.try_next().await? {
            hasher.update(&chunk);
            if let Some(ready) = held.replace(chunk) {
                return Ok(Some((ready, (content, held, Some((hasher, wanted, wrong))))));
            }
        }
        if hasher.finish() != wanted {
            return Err(wrong);
        }
        Ok(held.map(|last| (last, (content, None, None))))
    }))
}

/// Whether `Content-Range` (RFC 9110 14.4) is exactly what was asked for; the total may be unknown.
pub(crate) fn states_range(response: &Response, range: &Range<u64>, size: u64) -> bool {
    let stated = text(response.headers(), CONTENT_RANGE.as_str()).unwrap_or_default();
    let exact = format!("bytes {}-{}/", range.start, range.end.saturating_sub(1));
    stated.strip_prefix(&exact).is_some_and(|total| total == "*" || total == size.to_string())
}

/// The body, which should have `length` bytes.
fn content(mut response: Response, length: u64) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    let url = response.url().clone();
    // Neither a length nor chunks: the end of the connection is the only end of the body, and may come too early.
    let is_closed_by_end =
        response.content_length().is_none() && !response.headers().contains_key(TRANSFER_ENCODING);
    let cut = Error::from(TransferFault::Cut).with_endpoint(origin(&url));
    let permit = response.extensions_mut().remove::<Permit>();
    let body = response.bytes_stream().map_err(move |e| error::transport(e, &url));
    let marked = body.map(Some).chain(stream::iter([None]));
    marked.scan((0, Some(cut)), move |(read, cut), item| {
        let _held = &permit;
        let item = match item {
            Some(Ok(chunk)) => {
                *read += chunk.len() as u64;
                Some(Ok(chunk))
            }
            Some(Err(e)) => Some(Err(e)),
            None if is_closed_by_end && *read < length => cut.take().map(Err),
            None => None,
        };
        ready(item)
    })
}

/// The first `length` bytes of a stream.
fn first(
    content: impl Stream<Item = Result<Bytes>> + Send + 'static,
    length: u64,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    let state = (content.boxed(), length);
    stream::try_unfold(state, |(mut content, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let Some(mut chunk) = content.try_next().await? else { return Ok(None) };
        chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len()));
        let left = left - chunk.len() as u64;
        Ok(Some((chunk, (content, left))))
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
