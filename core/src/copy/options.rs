//! How an image is copied.

use crate::Platform;
use crate::progress::Progress;
use crate::pull::Retry;

/// What of an index is copied.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Platforms {
    /// Everything: the copy has the digest of the original.
    #[default]
    All,
    /// The image of one platform alone: the copy has the digest of that image's manifest.
    One(Platform),
}

/// How an image is copied.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// Blobs moved at the same time.
    pub concurrency: usize,
    /// What of an index is copied.
    pub platforms: Platforms,
    /// Where events go.
    pub progress: Progress,
    /// Copies what refers to the image, too: signatures, SBOMs, and what refers to those. Both ends have to list
    /// [referrers](ImageRegistry::referrers), or nothing is copied. What of them is missing in the source is named by an
    /// error at the end, when everything else is copied.
    pub referrers: bool,
    /// What happens after a failed attempt.
    pub retry: Retry,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self {
            concurrency: 4,
            platforms: Platforms::default(),
            progress: Progress::none(),
            referrers: false,
            retry: Retry::default(),
        }
    }
}
