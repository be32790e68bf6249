//! How an image is copied.

use std::path::PathBuf;

use super::convert::asked::Conversion;
use crate::progress::Progress;
use crate::pull::Retry;
use crate::registry::ImageRegistry;
use crate::{Descriptor, Digest, Platform, Reference};

/// What of an index is copied.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Platforms {
    /// Everything: the copy has the digest of the original.
    #[default]
    All,
    /// The image of one platform alone: the copy has the digest of that image's manifest.
    One(Platform),
    /// The images of these platforms with their attestations, under the index: see [`Sparse`].
    Some(Vec<Platform>),
}

/// What happens to an index of which not all is copied: some [platforms](Platforms::Some) of it, or what a cache has of it
/// after a pull for one platform.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Sparse {
    /// The index is copied as it is, with its digest and its signatures, though not all that it lists is copied: neither what is
    /// not asked for nor what the source does not have, of which a warning says how much it is. Targets that
    /// take such an index say so by [`sparse`](crate::Capabilities::sparse); most registries refuse it.
    Keep,
    /// It is an error, that of a cache lists what is missing.
    #[default]
    Refuse,
    /// The target gets an index of what is copied: with another digest, and so without its signatures, and without
    /// attestations of what it does not list. Of [all platforms](Platforms::All) it is what the source has.
    Rewrite,
}

crate::fault! {
    /// Why an image is not copied.
    pub enum CopyFault;
    Sparse => (Unsupported, "the index lists more than is to be copied"),
}

/// How an image is copied.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// Blobs moved at the same time, and layers that are compressed anew.
    pub concurrency: usize,
    /// What is changed of the image. Without it every digest is kept.
    pub conversion: Option<Conversion>,
    /// Reads documents and looks for blobs in the target, and stores nothing: what is copied is what would be.
    pub dry_run: bool,
    /// What of an index is copied.
    pub platforms: Platforms,
    /// Where events go.
    pub progress: Progress,
    /// Copies what refers to the image, too: signatures, SBOMs, and what refers to those. Both ends have to list
    /// [referrers](crate::ImageRegistry::referrers), or nothing is copied. What of them is missing in the source is named by an
    /// error at the end, when everything else is copied.
    pub referrers: bool,
    /// What happens after a failed attempt.
    pub retry: Retry,
    /// The folder of temporary files, one for each layer that is being compressed anew; by default that of the system.
    pub scratch: Option<PathBuf>,
    /// What happens to an index of which not all is copied.
    pub sparse: Sparse,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self {
            concurrency: 4,
            conversion: None,
            dry_run: false,
            platforms: Platforms::default(),
            progress: Progress::none(),
            referrers: false,
            retry: Retry::default(),
            scratch: None,
            sparse: Sparse::default(),
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

/// One image of a copy from several places.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CopyFrom<'a> {
    /// The place that it is in.
    pub from: &'a dyn ImageRegistry,
    /// Its names.
    pub job: CopyJob,
    /// What of an index is copied.
    pub platforms: Platforms,
    /// Copies what refers to the image, too: as [`CopyOptions::referrers`].
    pub referrers: bool,
    /// What happens to an index of which not all is copied.
    pub sparse: Sparse,
}

impl<'a> CopyFrom<'a> {
    /// All of an image, without what refers to it.
    pub fn new(from: &'a dyn ImageRegistry, job: CopyJob) -> Self {
        Self { from, job, platforms: Platforms::All, referrers: false, sparse: Sparse::default() }
    }
}

/// An image that was copied.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Copied {
    /// Its name in the target.
    pub target: Reference,
    /// What that stands for.
    pub descriptor: Descriptor,
    /// What was copied, as the source has it: another digest than that of the descriptor when the copy has changed something,
    /// by a [conversion](CopyOptions::conversion) or by [`Sparse::Rewrite`].
    pub original: Descriptor,
    /// What its index lists and the source does not have: it is left out, as [`Sparse::Keep`] allows.
    pub absent: Vec<Digest>,
    /// Bytes of blobs that were moved for it.
    pub moved: u64,
    /// Bytes of its blobs that were in the target already, those of images before it included.
    pub present: u64,
    /// The documents that refer to it, in the order of their digests; `None` when they [were not asked for](CopyOptions::referrers).
    pub referrers: Option<Vec<Digest>>,
}
