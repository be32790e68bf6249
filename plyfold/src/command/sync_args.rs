//! The grammar of `sync`.

use std::path::PathBuf;

use clap::Args as Group;

use super::copy_args::Sparse;

/// The store as a place.
pub(crate) const STORE: &str = "store";

/// Options of `sync`.
#[derive(Debug, Group)]
pub(crate) struct Sync {
    /// A list of images, LIST.toml, or `-` for standard input; or a place of which all images are brought: an archive, a layout
    /// directory, `store`, HOST/[PREFIX/] or HOST/REPOSITORY of a registry, a URI
    pub(crate) source: String,
    /// Where to: an archive (FILE.tar), a layout directory (DIR/), a registry (HOST/[PREFIX]), `store`, or a URI of such a place
    pub(crate) target: String,
    /// Show what would be moved, with its size, and store nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Look at images whose names stand for the same already, too: for signatures that came later
    #[arg(long)]
    pub(crate) refresh: bool,
    /// Bring images without signatures, SBOMs and what else refers to them, whatever the list says
    #[arg(long)]
    pub(crate) no_referrers: bool,
    /// Of a place, an index of which not all is brought: kept as it is, refused, or rewritten to what is brought, with another
    /// digest
    #[arg(long, value_enum)]
    pub(crate) sparse: Option<Sparse>,
    /// Write a new archive without layers that its receiver has: those of an image, of an archive or a layout directory, of
    /// `store`, or of another store by store:DIR; may be given several times
    #[arg(long, value_name = "BASE")]
    pub(crate) since: Vec<String>,
    /// Write the report to a file, as JSON that has the digest which is shown; `-` is standard output, in place of the summary
    #[arg(long, value_name = "FILE.json")]
    pub(crate) report: Option<PathBuf>,
}
