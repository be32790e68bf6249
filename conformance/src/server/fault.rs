//! What can go wrong, and for which requests.

use std::time::Duration;

use bytes::Bytes;
use plyfold_core::Digest;

use super::http::{End, Framing, Request, Response};

/// Which requests a script applies to: every condition set must hold.
///
/// ```
/// use plyfold_conformance::server::On;
///
/// // The second and third GET of any blob.
/// let requests = On::blobs().method("GET").skip(1).times(2);
/// ```
#[derive(Clone, Debug)]
pub struct On {
    method: Option<String>,
    contains: Option<String>,
    ranged: Option<bool>,
    skip: usize,
    times: usize,
}

impl On {
    /// Every request.
    pub fn any() -> Self {
        Self { method: None, contains: None, ranged: None, skip: 0, times: usize::MAX }
    }

    /// Requests whose target (path and query, as sent) contains `text`.
    pub fn target(text: impl Into<String>) -> Self {
        Self { contains: Some(text.into()), ..Self::any() }
    }

    /// Reads of one blob.
    pub fn blob(digest: &Digest) -> Self {
        Self::target(format!("/blobs/{digest}"))
    }

    /// Reads of any blob.
    pub fn blobs() -> Self {
        Self::target("/blobs/sha")
    }

    /// Requests for any manifest or index.
    pub fn manifests() -> Self {
        Self::target("/manifests/")
    }

    /// Requests for a manifest by this tag or digest.
    pub fn manifest(reference: impl std::fmt::Display) -> Self {
        Self::target(format!("/manifests/{reference}"))
    }

    /// Requests to the token endpoint.
    pub fn token() -> Self {
        Self::target("/token")
    }

    /// Requests with this method only.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only requests with a `Range` header, or only those without.
    #[must_use]
    pub fn ranged(mut self, ranged: bool) -> Self {
        self.ranged = Some(ranged);
        self
    }

    /// Leaves the first `count` matching requests alone.
    #[must_use]
    pub fn skip(mut self, count: usize) -> Self {
        self.skip = count;
        self
    }

    /// Applies to `count` matching requests, then no more.
    #[must_use]
    pub fn times(mut self, count: usize) -> Self {
        self.times = count;
        self
    }

    fn matches(&self, request: &Request) -> bool {
        self.method.as_ref().is_none_or(|method| *method == request.method)
            && self.contains.as_ref().is_none_or(|text| request.target.contains(text))
            && self.ranged.is_none_or(|ranged| ranged == request.header("range").is_some())
    }

    /// Counts this request down; whether the script applies to it.
    fn take(&mut self, request: &Request) -> bool {
        if self.times == 0 || !self.matches(request) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times -= 1;
        true
    }
}

/// One deviation from the honest answer. Several in one script apply in order.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Another body; the length is announced honestly.
    Body(Bytes),
    /// The body in chunked transfer encoding.
    Chunked,
    /// The connection closes without an answer.
    Close,
    /// The answer comes late.
    Delay(Duration),
    /// The body goes on with zero bytes for ever, chunked.
    Endless,
    /// One byte of the body, at this offset, is flipped.
    Flip(usize),
    /// The body is gzip-encoded and says so in `Content-Encoding`.
    GzipEncoded,
    /// A header is set, or with `None` removed.
    Header(&'static str, Option<String>),
    /// HTTP/1.0 without a length: the body ends with the connection.
    Http10,
    /// The `Range` header is ignored: 200 and everything.
    IgnoreRange,
    /// The bandwidth: this many bytes, then this pause, again and again.
    Pace(usize, Duration),
    /// Only this many bytes of the request's body arrive.
    Received(usize),
    /// A redirect with this status to this location.
    Redirect(u16, String),
    /// The connection is reset (RST) after this many bytes of the body.
    ResetAt(u64),
    /// Nothing more comes after this many bytes of the body; the connection stays open.
    StallAt(u64),
    /// This status, with an error document.
    Status(u16),
    /// More bytes than there are, chunked.
    Surplus(usize),
    /// Every token that was handed out has run out by now.
    TokenExpiry,
    /// The connection closes after this many bytes of the body.
    TruncateAt(u64),
    /// A `Content-Range` that starts this many bytes later than the body does.
    WrongRange(u64),
    /// A `Content-Range` with this total.
    WrongTotal(u64),
}

impl Fault {
    /// What changes before the request is answered.
    fn prepare(&self, request: &mut Request) {
        match self {
            Self::IgnoreRange => request.headers.retain(|(name, _)| name != "range"),
            Self::Received(bytes) => request.body.truncate(*bytes),
            _ => {}
        }
    }

    /// What changes in the answer; `None` closes the connection.
    fn apply(&self, mut response: Response) -> Option<Response> {
        match self {
            Self::Body(body) => response.body = body.clone(),
            Self::Chunked => response.framing = Framing::Chunked,
            Self::Close => return None,
            Self::Delay(delay) => response.delay = *delay,
            Self::Endless => (response.framing, response.end) = (Framing::Chunked, End::Endless),
            Self::Flip(at) => {
                let mut body = response.body.to_vec();
                if let Some(byte) = body.get_mut(*at) {
                    *byte ^= 0xff;
                }
                response.body = body.into();
            }
            Self::GzipEncoded => {
                response.body = crate::samples::gzip(&[&response.body]).into();
                response = response.with("Content-Encoding", "gzip");
            }
            Self::Header(name, Some(value)) => response = response.with(name, value),
            Self::Header(name, None) => response.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name)),
            Self::Http10 => response.framing = Framing::Close,
            // Done before the honest answer was made.
            Self::IgnoreRange | Self::Received(_) | Self::TokenExpiry => {}
            Self::Pace(bytes, pause) => response.pace = Some((*bytes, *pause)),
            Self::Redirect(status, to) => response = Response::new(*status, "").with("Location", to),
            Self::ResetAt(at) => response.end = End::ResetAt(*at),
            Self::StallAt(at) => response.end = End::StallAt(*at),
            Self::Status(status) => response = Response::error(*status, "SCRIPTED"),
            Self::Surplus(count) => {
                response.body = [&response.body[..], &vec![b'+'; *count][..]].concat().into();
                response.framing = Framing::Chunked;
            }
            Self::TruncateAt(at) => response.end = End::TruncateAt(*at),
            Self::WrongRange(shift) => {
                response = content_range(response, |from, to, total| {
                    format!("bytes {}-{}/{total}", from + shift, to + shift)
                });
            }
            Self::WrongTotal(wrong) => {
                response = content_range(response, |from, to, _| format!("bytes {from}-{to}/{wrong}"));
            }
        }
        Some(response)
    }
}

fn content_range(response: Response, change: impl Fn(u64, u64, u64) -> String) -> Response {
    let honest = response.headers.iter().find(|(name, _)| name == "Content-Range");
    let parts = honest.and_then(|(_, value)| {
        let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
        let (from, to) = range.split_once('-')?;
        Some((from.parse().ok()?, to.parse().ok()?, total.parse().ok()?))
    });
    match parts {
        Some((from, to, total)) => response.with("Content-Range", change(from, to, total)),
        None => response,
    }
}

/// The scripts of a server, in the order they were added.
#[derive(Debug, Default)]
pub(super) struct Scripts(Vec<(On, Vec<Fault>)>);

impl Scripts {
    pub(super) fn add(&mut self, on: On, faults: Vec<Fault>) {
        self.0.push((on, faults));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The faults for this request: those of the first script that applies.
    pub(super) fn take(&mut self, request: &mut Request) -> Vec<Fault> {
        let faults = self.0.iter_mut().find_map(|(on, faults)| on.take(request).then(|| faults.clone()));
        let faults = faults.unwrap_or_default();
        for fault in &faults {
            fault.prepare(request);
        }
        faults
    }
}

/// The answer with all faults; `None` closes the connection.
pub(super) fn distorted(faults: &[Fault], response: Response) -> Option<Response> {
    faults.iter().try_fold(response, |response, fault| fault.apply(response))
}
