//! The grammar of `diff`.

use clap::Args as Group;

use super::reading::Reading;

/// Options of `diff`.
#[derive(Debug, Group)]
pub(crate) struct Diff {
    /// The image before; it is pulled if it is not in the store
    pub(crate) before: String,
    /// The image after
    pub(crate) after: String,
    /// Count the paths, and do not list them
    #[arg(long)]
    pub(crate) stat: bool,
    /// Leave modification times alone, which a new build changes
    #[arg(long)]
    pub(crate) ignore_times: bool,
    #[command(flatten)]
    pub(crate) reading: Reading,
}
