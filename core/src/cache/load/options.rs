//! How images are loaded, and what a load yields.

use crate::cache::Lease;
use crate::copy::Platforms;
use crate::progress::Progress;
use crate::pull::Retry;
use crate::{Descriptor, Reference};

/// How an archive or a layout is loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Blobs moved at the same time.
    pub concurrency: usize,
    /// The images to load, by the names or digests that they have there; without any all that there are, or the one that
    /// was chosen when the place was opened.
    pub images: Vec<Reference>,
    /// Leaves a name alone that stands for another image in the cache. What the archive has under it is loaded by its
    /// digest.
    pub keep_names: bool,
    /// What of an index is loaded. The name stands for the index in any case. By default this is all that the archive has of
    /// it.
    pub platforms: Platforms,
    /// Where events go.
    pub progress: Progress,
    /// Loads what refers to the images, too: signatures, SBOMs, and what refers to those.
    pub referrers: bool,
    /// What happens after a failed attempt.
    pub retry: Retry,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            concurrency: 4,
            images: Vec::new(),
            keep_names: false,
            platforms: Platforms::default(),
            progress: Progress::none(),
            referrers: true,
            retry: Retry::default(),
        }
    }
}

/// An image that was loaded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The name that the archive gives it; by its digest alone where it has no name there.
    pub reference: Reference,
    /// What it is: an index or a manifest.
    pub descriptor: Descriptor,
    /// What the name stood for until now, if that was another image.
    pub replaced: Option<Descriptor>,
    /// What the name still stands for, if that is another image: [`LoadOptions::keep_names`]. The loaded image has its
    /// digest in the repository of the name, and no tag.
    pub kept: Option<Descriptor>,
    /// Keeps everything that was loaded in the cache while this or a clone of it lives, also when names go.
    pub lease: Lease,
}
