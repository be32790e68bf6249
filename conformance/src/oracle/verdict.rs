//! A check and its outcome.

use std::fmt;

use super::need::Need;

/// The outcome of a check.
pub type Verdict = Result<(), Failure>;

/// Why a check failed; any error becomes one by `?`.
pub struct Failure(pub(super) String);

impl Failure {
    /// A failure in the words of `message`.
    pub fn new(message: impl fmt::Display) -> Self {
        Self(message.to_string())
    }
}

// As in `anyhow`: no `Error` itself, so that every `Error` can be converted.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}\ncaused by: {cause}");
            source = cause.source();
        }
        Self(message)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A test by an oracle: its name, what it needs, and what it does. It fails by returning a [`Failure`] or by a
/// panic, so assertions can be used.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// The test's name.
    pub name: &'static str,
    /// What has to be there for it to run.
    pub needs: &'static [Need],
    /// The test.
    pub run: fn() -> Verdict,
}
