//! Maps HTTP statuses and broken connections to error kinds, the same kinds for every backend.

use std::error::Error as StdError;
use std::io;
use std::time::{Duration, SystemTime};

use dns_lookup::{LookupError, LookupErrorKind};
use plyfold_core::{Advice, Error, ErrorKind};
use reqwest::header::{HeaderMap, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

use crate::policy::{is_loopback, origin};
use crate::resolver::LinkLocal;
use crate::response::{Failures, Redirected, Sent, head_of_body, text};

/// Bytes of an error's body that are read; the rest is not read.
const BODY: usize = 64 << 10;
/// Characters of the registry's error text that go into a message.
const MAX_MESSAGE_CHARS: usize = 400;

/// The error that an answer other than success stands for; `what` was asked for, such as `manifest 1.2`.
pub(crate) async fn status(response: Response, what: &str) -> Error {
    let (status, endpoint) = (response.status(), origin(response.url()));
    let is_plain = response.url().scheme() == "http";
    let failures = response.extensions().get::<Failures>().cloned();
    let sent = response.extensions().get::<Sent>().cloned().unwrap_or(Sent(None));
    let retry_after = retry_after(response.headers(), SystemTime::now());
    // A fresh token that is good but not enough (RFC 6750 3.1): Docker Hub's way to say 403.
    let lacks_scope = text(response.headers(), WWW_AUTHENTICATE.as_str())
        .is_some_and(|challenge| challenge.contains("insufficient_scope"));
    let body = head_of_body(response, BODY).await;
    let report =
        serde_json::from_slice::<Report>(&body).ok().and_then(|report| report.errors?.into_iter().next());
    let code = report.as_ref().and_then(|entry| entry.code.as_deref()).unwrap_or_default();
    let kind = match kind(status, code, retry_after) {
        ErrorKind::Auth if lacks_scope => ErrorKind::Denied,
        kind => kind,
    };
    let mut message = match &kind {
        ErrorKind::NotFound => format!("no such {what}"),
        _ => format!("{what}: the registry answered {status}"),
    };
    if let Some(entry) = &report {
        let text = sent.redacted(entry.message.as_deref().unwrap_or_default());
        let code = sent.redacted(code);
        message = format!("{message} ({code:.MAX_MESSAGE_CHARS$}: {text:.MAX_MESSAGE_CHARS$})");
    }
    // An answer to HEAD has no body, and no other reason for this status.
    let spoke_http_to_tls = is_plain && body.is_empty()
        || body.windows(12).any(|window| window.eq_ignore_ascii_case(b"HTTPS server"));
    let mut error = Error::new(kind, message).with_endpoint(&endpoint);
    if let Some(Failures(mirrors)) = failures {
        error = error.with_context("mirrors", mirrors);
    }
    if let Some(delay) = retry_after {
        error = error.with_retry_after(delay);
    }
    if spoke_http_to_tls && status == StatusCode::BAD_REQUEST {
        let words = "the host seems to speak TLS: {}, and {} for its CA";
        return error.with_advice(Advice::options(words, [("https", "HOST:PORT"), ("ca", "FILE")]));
    }
    with_help(error)
}

/// An error document (distribution specification, "Error Codes"). Codes that are not in the specification are common.
#[derive(Deserialize)]
struct Report {
    errors: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    code: Option<String>,
    message: Option<String>,
}

fn kind(status: StatusCode, code: &str, retry_after: Option<Duration>) -> ErrorKind {
    match status.as_u16() {
        401 => ErrorKind::Auth,
        402 | 403 => ErrorKind::Denied,
        404 | 410 => ErrorKind::NotFound,
        408 => ErrorKind::Timeout,
        413 | 414 | 431 => ErrorKind::Limit,
        429 => ErrorKind::RateLimited { retry_after },
        501 | 505 => ErrorKind::Unsupported,
        500.. => ErrorKind::Unavailable,
        _ if code.ends_with("_INVALID") => ErrorKind::Corrupt,
        _ if code == "MANIFEST_BLOB_UNKNOWN" => ErrorKind::NotFound,
        _ => ErrorKind::Unsupported,
    }
}

/// Whether a status may be that of a registry that lacks what was asked for: this method, or this API.
pub(crate) fn is_lack(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 404 | 405 | 406 | 501)
}

/// Whether a HEAD was redirected to a place that does not answer it. Storages sign their URLs for one method, and that
/// is GET: they refuse any other with 403, or 400 or 401. What the registry itself refuses is refused.
pub(crate) fn is_signed_for_get(response: &Response) -> bool {
    let is_redirected = response.extensions().get::<Redirected>().is_some();
    let status = response.status();
    is_redirected && status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS
}

/// An error with what may help against its kind.
fn with_help(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Auth => error.with_advice(Advice::CheckCredentials),
        ErrorKind::Denied => error.with_hint(
            "log in as a user who has the permission; a missing repository can give the same answer",
        ),
        ErrorKind::NotFound => {
            error.with_hint("check the spelling; some registries hide private repositories this way")
        }
        ErrorKind::RateLimited { .. } => {
            error.with_hint("wait, or log in: registries limit anonymous clients most")
        }
        ErrorKind::Unavailable => error.with_hint("the registry failed; try again later"),
        _ => error,
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110 10.2.3); `None` when it is absent or neither.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    // A date in the past means no delay.
    Some(date.duration_since(now).unwrap_or_default())
}

/// The error of a request that got no answer, or of a body that was truncated.
pub(crate) fn transport(error: reqwest::Error, url: &Url) -> Error {
    let host = url.host_str().unwrap_or_default().to_owned();
    let endpoint = origin(url);
    // The URL may hold a signature; the endpoint is enough.
    let error = error.without_url();
    let causes = Causes::of(&error);
    let made = if causes.is_link_local {
        Error::unsupported(format!("refused to connect to {endpoint}: it has a link-local address"))
    } else if error.is_builder() {
        // Such as the 64 KiB of `http`. It is the same the next time.
        let length = url.as_str().len();
        Error::limit(format!("the registry has sent us to a URL that no request can hold, of {length} bytes"))
    } else if causes.is_head_too_large {
        Error::limit(format!("the header fields of an answer of {host} are too large"))
    } else if let Some(tls) = causes.tls {
        with_tls_help(Error::new(ErrorKind::Tls, format!("the TLS session with {host} failed: {tls}")), tls)
    } else if error.is_timeout() || causes.io.is_some_and(|kind| kind == io::ErrorKind::TimedOut) {
        let step = if error.is_connect() { "connecting to" } else { "waiting for" };
        Error::new(ErrorKind::Timeout, format!("{step} {host} took too long"))
    } else if error.is_connect() {
        let failed = Error::new(ErrorKind::Unavailable, format!("cannot connect to {host}: {}", causes.last))
            .with_hint(connect_hint(&causes));
        match causes.attempts(url) {
            Some(attempts) => failed.with_attempts(attempts),
            None => failed,
        }
    } else {
        Error::new(ErrorKind::Unavailable, format!("the connection to {host} broke: {}", causes.last))
    };
    made.with_endpoint(endpoint).with_source(error)
}

/// Whether the connection was closed before any of the request was sent, without a reason.
pub(crate) fn is_unbegun(error: &reqwest::Error) -> bool {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let mut reasons = causes.skip_while(|cause| !cause.is::<hyper::Error>());
    let canceled =
        reasons.next().and_then(|cause| cause.downcast_ref()).is_some_and(hyper::Error::is_canceled);
    // The reason is hyper's own error or an I/O error below it.
    canceled && !reasons.any(|cause| cause.is::<hyper::Error>() || cause.is::<io::Error>())
}

/// The error of a server that asked for a certificate of the client, and then closed the connection without a TLS
/// alert.
pub(crate) fn refused_client(error: reqwest::Error, url: &Url) -> Error {
    let host = url.host_str().unwrap_or_default();
    Error::new(ErrorKind::Tls, format!("{host} asked for a client certificate and closed the connection"))
        .with_advice(client_certificate())
        .with_endpoint(origin(url))
        .with_source(error.without_url())
}

fn client_certificate() -> Advice {
    let words = "the registry may want a client certificate: {} {}";
    Advice::options(words, [("client-cert", "FILE"), ("client-key", "FILE")])
}

/// The innermost error of a chain.
#[derive(Default)]
struct Causes<'a> {
    tls: Option<&'a rustls::Error>,
    io: Option<io::ErrorKind>,
    lookup: Option<&'a LookupError>,
    is_link_local: bool,
    is_head_too_large: bool,
    last: String,
}

impl<'a> Causes<'a> {
    fn of(error: &'a (dyn StdError + 'static)) -> Self {
        let mut causes = Self::default();
        let mut next = Some(error);
        while let Some(error) = next {
            causes.last = error.to_string();
            causes.lookup = causes.lookup.or(error.downcast_ref());
            causes.is_link_local |= error.is::<LinkLocal>();
            causes.is_head_too_large |=
                error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse_too_large);
            causes.tls = causes.tls.or(error.downcast_ref());
            let io = error.downcast_ref::<io::Error>();
            causes.io = io.map(io::Error::kind).or(causes.io);
            // An I/O error's `source` skips the error that it wraps.
            next = match io.and_then(io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        causes
    }

    /// How many attempts can help where no connection is made, if they are limited: a name that does not
    /// exist may be a fault of one name server, and a port of this machine on which nothing listens stays so.
    fn attempts(&self, url: &Url) -> Option<u32> {
        if let Some(lookup) = self.lookup {
            // A name server that does not answer may answer later.
            return (!matches!(lookup.kind(), LookupErrorKind::Again)).then_some(2);
        }
        (self.io == Some(io::ErrorKind::ConnectionRefused) && is_loopback(url)).then_some(1)
    }
}

fn connect_hint(causes: &Causes<'_>) -> &'static str {
    if causes.lookup.is_some() {
        return "the name does not resolve: check its spelling and this machine's network";
    }
    match causes.io {
        Some(io::ErrorKind::ConnectionRefused) => "nothing listens there: check host and port",
        _ => "check the network, and HTTPS_PROXY if there is a proxy",
    }
}

/// The error of a TLS session that failed for this reason, with what may help.
fn with_tls_help(error: Error, reason: &rustls::Error) -> Error {
    use rustls::CertificateError as Bad;
    match reason {
        rustls::Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            error.with_hint("the registry's certificate has expired; check this machine's clock")
        }
        rustls::Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            error.with_hint("the certificate is for other names: use the name that it was made for")
        }
        rustls::Error::InvalidCertificate(Bad::Other(other))
            if matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity)) =>
        {
            error.with_hint(
                "a server's certificate is not a CA's: when it signs itself it has to say basicConstraints=CA:FALSE",
            )
        }
        rustls::Error::InvalidCertificate(_) => {
            let words =
                "{} trusts the CA that signed the certificate; a CA of hosts.toml is for its own host alone";
            error.with_advice(Advice::options(words, [("ca", "FILE")]))
        }
        rustls::Error::AlertReceived(_) => error.with_advice(client_certificate()),
        rustls::Error::InvalidMessage(_) => {
            let words = "the host may not speak TLS at all: {} if you trust the network to it";
            error.with_advice(Advice::options(words, [("plain-http", "HOST")]))
        }
        _ => error.with_hint("plyfold speaks TLS 1.2 and 1.3"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_has_three_shapes() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let parse = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            retry_after(&headers, now)
        };
        assert_eq!(parse("3"), Some(Duration::from_secs(3)));
        assert_eq!(parse("1000000000"), Some(Duration::from_secs(1_000_000_000)));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:40 GMT"), Some(Duration::from_secs(3)));
        assert_eq!(parse("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        for junk in ["Wed, ..", "-1", "3.5", "soon", "99999999999999999999999"] {
            assert_eq!(parse(junk), None, "{junk}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Seconds and dates of any size, from any clock.
        #[test]
        fn any_retry_after_is_a_pause_or_nothing(
            text in "-?[0-9]{0,30}(\\.[0-9]*)?(e[0-9]{1,3})?|NaN|inf|[ -~]{0,40}|(Mon|Sun), [0-9]{2} (Jan|Dec) [0-9]{4,6} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT",
            clock in 0..(1_u64 << 40),
        ) {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(&text).unwrap())]);
            let pause = retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(clock));
            // What is made of it is bounded, and shown.
            let pause = pause.map(|pause| pause.min(Duration::from_secs(30)));
            proptest::prop_assert!(pause.is_none_or(|pause| Instant::now().checked_add(pause).is_some()));
        }
    }

    #[test]
    fn statuses_have_kinds() {
        let of = |status: u16, code| kind(StatusCode::from_u16(status).unwrap(), code, None);
        for (status, code, expected) in [
            (302, "", ErrorKind::Unsupported),
            (400, "DIGEST_INVALID", ErrorKind::Corrupt),
            (400, "MANIFEST_BLOB_UNKNOWN", ErrorKind::NotFound),
            (400, "", ErrorKind::Unsupported),
            (401, "DENIED", ErrorKind::Auth),
            (403, "", ErrorKind::Denied),
            (404, "NAME_INVALID", ErrorKind::NotFound),
            (405, "UNSUPPORTED", ErrorKind::Unsupported),
            (408, "", ErrorKind::Timeout),
            (413, "SIZE_INVALID", ErrorKind::Limit),
            (429, "TOOMANYREQUESTS", ErrorKind::RateLimited { retry_after: None }),
            (500, "", ErrorKind::Unavailable),
            (501, "", ErrorKind::Unsupported),
            (502, "", ErrorKind::Unavailable),
            (503, "BLOB_INVALID", ErrorKind::Unavailable),
        ] {
            assert_eq!(of(status, code), expected, "{status} {code}");
        }
    }
}
