//! The one error type: what failed, on which image and endpoint, why, and a hint.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::Advice;

/// The result of every fallible operation in plyfold.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in terms of what the caller can do about it.
///
/// The same fault has the same kind from every backend (rules E 108 to 116).
#[derive(Clone, Debug, Eq, PartialEq, strum::IntoStaticStr)]
#[non_exhaustive]
#[strum(serialize_all = "kebab-case")]
pub enum ErrorKind {
    /// The input can be read in two ways, or names more than one image.
    Ambiguous,
    /// Credentials were refused, or the authentication protocol was broken.
    Auth,
    /// The caller gave up before the operation ended.
    Cancelled,
    /// A configuration, option, URI or reference is not valid.
    Config,
    /// Content is not what was promised: digest, size, `diff_id` or format.
    Corrupt,
    /// The credentials are good, the permission is missing.
    Denied,
    /// A defect in plyfold or in a backend.
    Internal,
    /// The local system refused an operation; the source holds the [`io::Error`].
    Io,
    /// The input passes a bound that keeps memory, disk or time finite.
    Limit,
    /// The image, blob, repository or file does not exist.
    NotFound,
    /// The image exists, but not for the wanted platform.
    PlatformNotFound {
        /// The platforms that the image has, as `os/arch[/variant]`.
        available: Vec<String>,
    },
    /// The endpoint limits requests.
    RateLimited {
        /// How long it asked to wait, if it said so.
        retry_after: Option<Duration>,
    },
    /// No progress was made for the configured time.
    Timeout,
    /// The TLS session could not be trusted or established.
    Tls,
    /// The endpoint cannot be reached or is failing.
    Unavailable,
    /// The backend, format or document version cannot do this.
    Unsupported,
}

impl ErrorKind {
    /// The kind's name as it stands in messages and `--json` output.
    pub fn name(&self) -> &'static str {
        self.into()
    }
}

/// Any failure of plyfold: a kind, a message, details, the context it happened in, a hint and a source.
///
/// ```
/// use plyfold_core::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::NotFound, "no such tag")
///     .with_image("docker.io/library/alpine:3.99")
///     .with_hint("check the spelling");
/// assert_eq!(error.to_string(), "docker.io/library/alpine:3.99: no such tag");
/// ```
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    context: Vec<(&'static str, String)>,
    hint: Option<String>,
    advice: Option<Advice>,
    details: Vec<Arc<dyn Any + Send + Sync>>,
    retry_after: Option<Duration>,
    attempts: Option<u32>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// The value of an outcome; `None` for [`ErrorKind::NotFound`].
    ///
    /// # Errors
    /// The others.
    pub fn found<T>(outcome: Result<T>) -> Result<Option<T>> {
        match outcome {
            Err(e) if *e.kind() == ErrorKind::NotFound => Ok(None),
            outcome => outcome.map(Some),
        }
    }

    /// An error of `kind`; `message` is a lowercase clause without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            context: Vec::new(),
            hint: None,
            advice: None,
            details: Vec::new(),
            retry_after: None,
            attempts: None,
            source: None,
        }))
    }

    /// Input that can be read in two ways.
    pub fn ambiguous(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Ambiguous, message)
    }

    /// An invalid option, URI or reference.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// Content that is not what was promised.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// Input beyond a bound.
    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Limit, message)
    }

    /// Something that does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// Something that cannot be done here.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// An operating system error during `action` (a clause such as `opening the index`).
    ///
    /// An [`Error`] that was wrapped in an `io::Error` is unwrapped: its kind and context are kept.
    pub fn io(action: impl Into<String>, source: io::Error) -> Self {
        if source.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Self>) {
            return Self::from(source);
        }
        let error = Self::new(ErrorKind::Io, action);
        let advice = match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => Advice::WriteElsewhere,
            io::ErrorKind::StorageFull => Advice::FreeSpace,
            _ => return error.with_source(source),
        };
        error.with_advice(advice).with_source(source)
    }

    /// Adds the image that was worked on.
    #[must_use]
    pub fn with_image(self, image: impl fmt::Display) -> Self {
        self.with_context("image", image)
    }

    /// Adds the backend or host that answered.
    #[must_use]
    pub fn with_endpoint(self, endpoint: impl fmt::Display) -> Self {
        self.with_context("endpoint", endpoint)
    }

    /// Adds a named value; the first value of a key stays, because it was closest to the fault.
    #[must_use]
    pub fn with_context(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        if self.context(key).is_none() {
            self.0.context.push((key, value.to_string()));
        }
        self
    }

    /// Says what the reader can do, without flags and verbs of a program; the first hint stays.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Replaces the hint: for callers that know more.
    #[must_use]
    pub fn with_better_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self.0.advice = None;
        self
    }

    /// Says what the reader can do, as a value that each program puts into its own words; the first hint stays.
    #[must_use]
    pub fn with_advice(mut self, advice: Advice) -> Self {
        if self.0.hint.is_none() {
            self.0.hint = Some(advice.to_string());
            self.0.advice = Some(advice);
        }
        self
    }

    /// Adds how long the endpoint asked to wait, for kinds that do not hold it.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// Says how many attempts in a row can help, the first one included, such as 2 for a host that does not exist.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.0.attempts = Some(attempts);
        self
    }

    /// Adds a value that says more of the fault, for [`Error::detail`]; a [`Fault`](crate::Fault) that became an error is
    /// one already.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Any + Send + Sync) -> Self {
        self.0.details.push(Arc::new(detail));
        self
    }

    /// Adds the underlying error.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong, for `match`.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The message without context, hint or source.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The value of a context key, such as `image`, `endpoint`, `layer` or `path`, to be shown.
    pub fn context(&self, key: &str) -> Option<&str> {
        self.0.context.iter().find(|(k, _)| *k == key).map(|(_, value)| value.as_str())
    }

    /// All of the context, closest to the fault first.
    pub fn contexts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.context.iter().map(|(key, value)| (*key, value.as_str()))
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The [hint](Self::hint) as a value, if it is one that a program has its own words for.
    pub fn advice(&self) -> Option<&Advice> {
        self.0.advice.as_ref()
    }

    /// The detail of type `T`, such as [`Mismatch`](crate::Mismatch): what program logic acts on, where the kind is not
    /// enough.
    pub fn detail<T: Any>(&self) -> Option<&T> {
        self.0.details.iter().find_map(|detail| detail.downcast_ref())
    }

    /// The same kind, message and details, without context, hint and source.
    #[must_use]
    pub fn bare(&self) -> Self {
        let mut bare = Self::new(self.0.kind.clone(), self.0.message.clone());
        bare.0.details.clone_from(&self.0.details);
        bare
    }

    /// How long the endpoint asked to wait before the next attempt, if it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.0.kind {
            ErrorKind::RateLimited { retry_after } => retry_after.or(self.0.retry_after),
            _ => self.0.retry_after,
        }
    }

    /// How many attempts in a row can help, the first one included; `None` where only the caller bounds them.
    pub fn attempts(&self) -> Option<u32> {
        self.0.attempts
    }

    /// Whether the same call may succeed later without any change by the user.
    ///
    /// True for [`ErrorKind::RateLimited`], [`ErrorKind::Timeout`] and [`ErrorKind::Unavailable`] only.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::RateLimited { .. } | ErrorKind::Timeout | ErrorKind::Unavailable)
    }
}

impl fmt::Display for Error {
    /// One line, `image: message (context): source`, safe to print: control characters are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((_, image)) = self.0.context.iter().find(|(key, _)| *key == "image") {
            write!(f, "{}: ", printable(image))?;
        }
        write!(f, "{}", printable(&self.0.message))?;
        let mut open = " (";
        for (key, value) in self.0.context.iter().filter(|(key, _)| *key != "image") {
            write!(f, "{open}{key} {}", printable(value))?;
            open = ", ";
        }
        if open == ", " {
            write!(f, ")")?;
        }
        if let Some(source) = &self.0.source {
            write!(f, ": {}", printable(&source.to_string()))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<Error> for io::Error {
    /// Carries the error through `std::io` interfaces; [`Error::io`] and `From` take it out again.
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        match source.downcast::<Self>() {
            Ok(error) => error,
            Err(source) => Self::io("input or output failed", source),
        }
    }
}

/// Text from outside with control characters escaped, so that it cannot control a terminal.
///
/// ```
/// assert_eq!(plyfold_core::printable("a\u{1b}[31mb"), "a\\u{1b}[31mb");
/// ```
pub fn printable(text: &str) -> String {
    const SHOWN: usize = 4096;
    let mut shown = String::with_capacity(text.len());
    for (count, c) in text.chars().enumerate() {
        if count == SHOWN {
            shown.push('…');
            break;
        }
        // Bidirectional overrides reorder what a reader sees; they are as dangerous as escapes.
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}
