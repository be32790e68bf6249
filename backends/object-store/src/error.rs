//! What a service answers, as the kinds of errors that core has.

use std::error::Error as _;
use std::fmt;

use object_store::Error as StoreError;
use plyfold_core::{Error, ErrorKind};

/// The error of a request: what it was for, where, and why it failed.
pub(crate) fn failed(error: StoreError, action: &str, endpoint: impl fmt::Display) -> Error {
    let (kind, hint) = match &error {
        StoreError::NotFound { .. } => (ErrorKind::NotFound, None),
        StoreError::Unauthenticated { .. } => (
            ErrorKind::Auth,
            Some("the service refused the credentials of the environment or of the options"),
        ),
        StoreError::PermissionDenied { .. } => (
            ErrorKind::Denied,
            Some("the credentials need the right to list, read, write and delete under the prefix"),
        ),
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => (ErrorKind::Unsupported, None),
        StoreError::InvalidPath { .. } | StoreError::UnknownConfigurationKey { .. } => {
            (ErrorKind::Config, None)
        }
        StoreError::JoinError { .. } => (ErrorKind::Internal, None),
        other => (if is_local(other) { ErrorKind::Io } else { ErrorKind::Unavailable }, None),
    };
    let failed = Error::new(kind, action).with_endpoint(endpoint).with_source(error);
    match hint {
        Some(hint) => failed.with_hint(hint),
        None => failed,
    }
}

/// Whether this machine refused the operation, and no service.
fn is_local(error: &StoreError) -> bool {
    let StoreError::Generic { store, .. } = error else { return false };
    *store == crate::files::NAME && error.source().is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
}
