//! Where images are brought, and how.

use plyfold_core::CopyOptions;
use plyfold_core::progress::Progress;
use plyfold_core::pull::Retry;
use plyfold_core::save::SaveBase;

/// Where images are brought.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SyncTarget {
    /// The cache of the [`Images`](crate::Images).
    Cache,
    /// A place: the URI of a layout directory or of an archive, or `HOST/[PREFIX]` of a registry.
    Place(String),
}

/// How images are brought.
#[derive(Clone, Debug)]
pub struct SyncOptions {
    /// Blobs moved at the same time.
    pub concurrency: usize,
    /// Reads documents and looks for blobs in the target, and stores nothing.
    pub dry_run: bool,
    /// Where events go.
    pub progress: Progress,
    /// Looks at images, too, whose names stand for the same at the target: for signatures that came later.
    pub refresh: bool,
    /// What happens after a failed attempt.
    pub retry: Retry,
    /// What the receiver of an archive has: the target becomes an archive of all images of the list that leaves out the layers
    /// of these.
    pub since: Vec<SaveBase>,
}

impl Default for SyncOptions {
    fn default() -> Self {
        let CopyOptions { concurrency, dry_run, progress, retry, .. } = CopyOptions::default();
        Self { concurrency, dry_run, progress, refresh: false, retry, since: Vec::new() }
    }
}
