//! What comes of an input.

use plyfold_core::{Error, ErrorKind};

/// Whether an input was refused; else what is wrong.
pub(super) type Outcome = Result<bool, String>;

/// A refusal, unless it says that the fault is ours.
pub(super) fn refused(error: &Error) -> Outcome {
    match error.kind() {
        ErrorKind::Internal | ErrorKind::Io => Err(format!("{error:?}")),
        _ => Ok(true),
    }
}

/// `Ok` of a refusal, or what `sound` makes of the rest.
pub(super) fn of<T>(read: plyfold_core::Result<T>, sound: impl FnOnce(T) -> Outcome) -> Outcome {
    match read {
        Ok(read) => sound(read),
        Err(error) => refused(&error),
    }
}
