//! How an image is copied.

use crate::progress::Progress;
use crate::pull::Retry;
use crate::{Descriptor, Platform, Reference};

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

/// One image of a copy of several.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CopyJob {
    /// Its name in the source.
    pub image: Reference,
    /// Its name in the target.
    pub target: Reference,
}

/// An image that was copied.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Copied {
    /// Its name in the target.
    pub target: Reference,
    /// What that stands for.
    pub descriptor: Descriptor,
    /// Bytes of blobs that were moved for it.
    pub moved: u64,
    /// Bytes of its blobs that were in the target already, those of images before it included.
    pub present: u64,
}
