//! What a service answers, as the kinds of errors that core has.

use std::error::Error as _;
use std::fmt;

use object_store::Error as StoreError;
use plyfold_core::{Error, ErrorKind};

/// What a service says of credentials that were valid before.
const EXPIRED: [&str; 3] = ["ExpiredToken", "TokenRefreshRequired", "RequestExpired"];
/// What a service says of requests with another time than its own.
const CLOCK: [&str; 1] = ["RequestTimeTooSkewed"];
/// What a service says of an object in a bucket that is not there.
const NO_BUCKET: [&str; 3] = ["NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"];

/// The error of a request: what it was for, where, and why it failed.
pub(crate) fn failed(error: StoreError, action: &str, endpoint: impl fmt::Display) -> Error {
    let (kind, hint) = match &error {
        e if says(e, &EXPIRED) => {
            (ErrorKind::Auth, Some("the credentials have expired: get new ones, and begin again"))
        }
        e if says(e, &CLOCK) => {
            (ErrorKind::Auth, Some("the clock of this machine differs from the service's: set it right"))
        }
        e if is_bucket_missing(e) => (
            ErrorKind::NotFound,
            Some("the bucket does not exist, or was removed: make it, or name another one"),
        ),
        StoreError::NotFound { .. } => (ErrorKind::NotFound, None),
        e if has(e, 401) => (
            ErrorKind::Auth,
            Some("the service refused the credentials of the environment or of the options"),
        ),
        e if has(e, 403) => (
            ErrorKind::Denied,
            Some("the credentials need the right to list, read, write and delete under the prefix"),
        ),
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => (ErrorKind::Unsupported, None),
        StoreError::InvalidPath { .. } | StoreError::UnknownConfigurationKey { .. } => {
            (ErrorKind::Config, None)
        }
        StoreError::JoinError { .. } => (ErrorKind::Internal, None),
        other if is_local(other) => (ErrorKind::Io, None),
        _ => (
            ErrorKind::Unavailable,
            Some(
                "the service does not answer as it should: look at the network, the endpoint and the service's state",
            ),
        ),
    };
    let failed = Error::new(kind, action).with_endpoint(endpoint).with_source(error);
    match hint {
        Some(hint) => failed.with_hint(hint),
        None => failed,
    }
}

/// Whether the answer has this status. The errors of listings and of uploads have it in their text alone.
fn has(error: &StoreError, status: u16) -> bool {
    match error {
        StoreError::PermissionDenied { .. } => status == 403,
        StoreError::Unauthenticated { .. } => status == 401,
        StoreError::Generic { .. } => error.to_string().contains(&format!("status code: {status} ")),
        _ => false,
    }
}

/// Whether there is no bucket. `object_store` says the same of an object that is absent.
pub(crate) fn is_bucket_missing(error: &StoreError) -> bool {
    says(error, &NO_BUCKET)
}

/// Whether the answer of the service has one of these codes in its document. No field of an error has them.
fn says(error: &StoreError, codes: &[&str]) -> bool {
    let text = error.to_string();
    codes.iter().any(|code| text.contains(&format!("<Code>{code}</Code>")))
}

/// Whether this machine refused the operation, and no service.
fn is_local(error: &StoreError) -> bool {
    let StoreError::Generic { store, .. } = error else { return false };
    *store == crate::files::NAME && error.source().is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
}
