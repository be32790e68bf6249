//! Maps the client's errors to kinds, the same kinds as every backend's.

use std::error::Error as StdError;
use std::io;

use oci_client::errors::{DigestError, OciDistributionError as ClientError, OciErrorCode as Code};
use plyfold_core::{Advice, Error, ErrorKind, Mismatch, digest};

const BROKEN: &str = "the registry cannot be reached, or broke the transfer off";
/// Characters of a registry's text that go into a message.
const TEXT: usize = 400;

/// What the client says went wrong; `registry` is the host that was asked.
pub(crate) fn from_client(error: ClientError, registry: &str) -> Error {
    let refused = || Advice::GiveCredentials { registry: registry.to_owned() };
    match error {
        ClientError::RegistryError { envelope, .. } => {
            let Some(first) = envelope.errors.into_iter().next() else { return status(400) };
            let text = serde_json::to_string(&first.code).unwrap_or_default();
            answered(of_code(&first.code), &format!("{}: {}", text.trim_matches('"'), first.message))
        }
        // The text is that of a storage too, and may repeat a signature.
        ClientError::ServerError { code, .. } => status(code),
        ClientError::UnauthorizedError { .. } => status(401).with_advice(refused()),
        ClientError::ImageManifestNotFoundError(_) => status(404),
        ClientError::DigestError(DigestError::VerificationError { expected, actual }) => {
            mismatch(&expected, &actual)
        }
        // What a stream gave is an error of plyfold, wrapped.
        ClientError::IoError(error) => Error::io("moving content", error),
        ClientError::RequestError(error) => match error.status() {
            Some(code) => status(code.as_u16()),
            None => transport(error),
        },
        ClientError::UnsupportedMediaTypeError(_) | ClientError::UnsupportedSchemaVersionError(_) => {
            Error::unsupported("the document is of a kind that the client does not know").with_source(error)
        }
        ClientError::GenericError(_) | ClientError::PushNoDataError | ClientError::PushLayerNoDataError => {
            Error::new(ErrorKind::Internal, "the client failed").with_source(error)
        }
        other => Error::corrupt("the registry's answer breaks the protocol").with_source(other),
    }
}

/// The error of a body that was truncated.
pub(crate) fn of_body(error: io::Error) -> Error {
    let cause = error.into_inner().map(<dyn StdError + Send + Sync>::downcast::<reqwest::Error>);
    match cause {
        Some(Ok(cause)) => transport(*cause),
        Some(Err(other)) => Error::new(ErrorKind::Unavailable, BROKEN).with_source(other),
        None => Error::new(ErrorKind::Unavailable, BROKEN),
    }
}

/// Whether the client has seen the end of a body that is not what was asked for: the [`Blob`](plyfold_core::Blob)
/// says so better.
pub(crate) fn is_verification(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn StdError + Send + Sync>::is::<DigestError>)
}

fn transport(error: reqwest::Error) -> Error {
    // The URL may hold a signature.
    let error = error.without_url();
    // While a connection is made, data that is no TLS is the one thing of this kind.
    let is_tls = error.is_connect() && causes(&error).any(|cause| cause.kind() == io::ErrorKind::InvalidData);
    let (kind, message) = match (error.is_timeout(), is_tls) {
        (true, _) => (ErrorKind::Timeout, "the registry made no progress"),
        (_, true) => (ErrorKind::Tls, "no TLS session was established"),
        _ => (ErrorKind::Unavailable, BROKEN),
    };
    Error::new(kind, message).with_source(error)
}

/// The errors of the system below an error.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a io::Error> {
    let chain = std::iter::successors(Some(error), |&error| error.source());
    chain.filter_map(|cause| cause.downcast_ref::<io::Error>())
}

fn mismatch(expected: &str, actual: &str) -> Error {
    let message = || {
        Error::corrupt(format!("digest mismatch: expected {}, got {}", excerpt(expected), excerpt(actual)))
    };
    let Ok(expected) = digest::parse(expected) else { return message() };
    let actual = digest::parse(actual).ok();
    Error::from(Mismatch { expected, actual, expected_size: None, actual_size: 0 })
}

fn status(code: u16) -> Error {
    let kind = match code {
        401 => ErrorKind::Auth,
        402 | 403 => ErrorKind::Denied,
        404 | 410 => ErrorKind::NotFound,
        408 => ErrorKind::Timeout,
        413 | 414 | 431 => ErrorKind::Limit,
        429 => ErrorKind::RateLimited { retry_after: None },
        500 | 502..=504 | 506.. => ErrorKind::Unavailable,
        _ => ErrorKind::Unsupported,
    };
    answered(kind, &code.to_string())
}

fn of_code(code: &Code) -> ErrorKind {
    match code {
        Code::BlobUnknown
        | Code::ManifestBlobUnknown
        | Code::ManifestUnknown
        | Code::NameUnknown
        | Code::NotFound => ErrorKind::NotFound,
        Code::Denied => ErrorKind::Denied,
        Code::Toomanyrequests => ErrorKind::RateLimited { retry_after: None },
        Code::Unauthorized => ErrorKind::Auth,
        Code::BlobUploadInvalid
        | Code::DigestInvalid
        | Code::ManifestInvalid
        | Code::ManifestUnverified
        | Code::NameInvalid
        | Code::SizeInvalid
        | Code::TagInvalid => ErrorKind::Corrupt,
        Code::BlobUploadUnknown | Code::Other(_) | Code::Unsupported => ErrorKind::Unsupported,
    }
}

fn answered(kind: ErrorKind, text: &str) -> Error {
    let message = match kind {
        ErrorKind::NotFound => format!("no such content ({})", excerpt(text)),
        _ => format!("the registry answered {}", excerpt(text)),
    };
    Error::new(kind, message)
}

fn excerpt(text: &str) -> String {
    text.chars().take(TEXT).collect()
}
