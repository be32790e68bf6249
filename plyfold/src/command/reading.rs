//! How an image comes that is read: options of many verbs.

use clap::{Args as Group, ValueEnum};

use super::bounds::Bounds;
use crate::PullPolicy;

/// How an image comes whose files are read: options of `cat`, `diff` and `ls`.
#[derive(Clone, Copy, Debug, Group)]
pub(crate) struct Reading {
    /// When to ask the image's backend [default: if-missing for registries, always for directories and archives]
    #[arg(long, value_enum)]
    pub(crate) policy: Option<Policy>,
    #[command(flatten)]
    pub(crate) bounds: Bounds,
}

/// [`PullPolicy`] on the command line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Policy {
    /// Resolve the name at the backend, and fetch what is missing
    Always,
    /// Ask only when something is missing
    IfMissing,
    /// Never ask
    Never,
}

impl From<Policy> for PullPolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Always => Self::Always,
            Policy::IfMissing => Self::IfMissing,
            Policy::Never => Self::Never,
        }
    }
}
