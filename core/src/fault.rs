//! Faults: what went wrong, as a value of a type of its domain.

use std::error::Error as StdError;

use crate::{Descriptor, Digest, Error, ErrorKind};

/// What went wrong, as one value of a domain: an enum of what can be wrong with a digest, a layer or an answer.
///
/// `?` and `into` make an [`Error`] of it, with its text as the message; [`Error::detail`] finds it again.
/// [`fault!`](crate::fault) writes such an enum.
pub trait Fault: StdError + Send + Sync + 'static {
    /// The kind of the error.
    fn kind(&self) -> ErrorKind;

    /// What the reader can do about it.
    fn hint(&self) -> Option<&'static str> {
        None
    }

    /// What it is about: the key and the value of the error's context.
    fn context(&self) -> Option<(&'static str, &str)> {
        None
    }
}

impl<F: Fault> From<F> for Error {
    fn from(fault: F) -> Self {
        let mut error = Self::new(fault.kind(), fault.to_string());
        if let Some(hint) = fault.hint() {
            error = error.with_hint(hint);
        }
        if let Some((key, value)) = fault.context() {
            error = error.with_context(key, value);
        }
        error.with_detail(fault)
    }
}

/// An enum that is a [`Fault`]: each variant has a kind, a message in the format of `thiserror`, and a hint if one helps.
/// `in "KEY"` behind it puts the variant's first field, a text, into the error's context under that key. The crate that
/// calls it depends on `thiserror`.
///
/// ```
/// plyfold_core::fault! {
///     /// What can be wrong with a label.
///     pub enum LabelFault;
///     Empty => (Config, "a label is empty"),
///     Long(usize) => (Limit, "a label of {0} bytes", "a label has at most 16 bytes"),
/// }
///
/// let error = plyfold_core::Error::from(LabelFault::Long(20)).with_image("docker.io/library/alpine:3.20");
/// assert_eq!(error.to_string(), "docker.io/library/alpine:3.20: a label of 20 bytes");
/// assert_eq!(error.detail(), Some(&LabelFault::Long(20)));
/// ```
#[macro_export]
macro_rules! fault {
    (
        $(#[$meta:meta])* $vis:vis enum $name:ident;
        $(
            $(#[$doc:meta])*
            $variant:ident $(($($field:ty),+))? => ($kind:ident, $message:literal $(, $hint:literal)?) $(in $key:literal)?,
        )+
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
        #[non_exhaustive]
        $vis enum $name {
            $($(#[$doc])* #[doc = concat!("`", $message, "`")] #[error($message)] $variant $(($($field),+))?,)+
        }

        impl $crate::Fault for $name {
            fn kind(&self) -> $crate::ErrorKind {
                match self { $(Self::$variant { .. } => $crate::ErrorKind::$kind,)+ }
            }

            fn hint(&self) -> Option<&'static str> {
                match self { $(Self::$variant { .. } => None::<&'static str>$(.or(Some($hint)))?,)+ }
            }

            fn context(&self) -> Option<(&'static str, &str)> {
                $($(if let Self::$variant(value, ..) = self { return Some(($key, value)); })?)+
                None
            }
        }
    };
}

/// Content that is not what its descriptor promised.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}", self.text())]
pub struct Mismatch {
    /// The digest that was promised.
    pub expected: Digest,
    /// The digest of what was read, if all of it was read.
    pub actual: Option<Digest>,
    /// The size that was promised, in bytes, if one was.
    pub expected_size: Option<u64>,
    /// How many bytes were read before the check.
    pub actual_size: u64,
}

impl Mismatch {
    /// Of what a descriptor promised.
    pub fn of(expected: &Descriptor, actual: Option<Digest>, actual_size: u64) -> Self {
        let expected_size = Some(expected.size());
        Self { expected: expected.digest().clone(), actual, expected_size, actual_size }
    }

    fn text(&self) -> String {
        let Self { expected, actual, expected_size, actual_size } = self;
        match (actual, expected_size) {
            (Some(actual), _) if actual != expected => {
                format!("digest mismatch: expected {expected}, content is {actual}")
            }
            (_, Some(size)) if actual_size > size => {
                format!("size mismatch: {expected} has more than the declared {size} bytes")
            }
            (_, Some(size)) => {
                format!("size mismatch: {expected} declares {size} bytes, content has {actual_size}")
            }
            _ => format!("digest mismatch: content is not {expected}"),
        }
    }
}

impl Fault for Mismatch {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Corrupt
    }
}
