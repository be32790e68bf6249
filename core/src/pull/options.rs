//! How an image is pulled, and what a pull yields.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cache::Lease;
use crate::layer::{LayerLimits, TreeBudget};
use crate::manifest::{RawConfig, RawManifest};
use crate::progress::Progress;
use crate::{ArtifactHandle, Credential, Descriptor, Digest, Materializer, Platform, Reference};

use super::retry::Retry;

/// When a pull asks the backend.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PullPolicy {
    /// Resolve the name at the backend; fetch what is missing.
    Always,
    /// Ask only when something is missing. With everything here there is no I/O on the network, also when the
    /// name has moved (rule C 49).
    #[default]
    IfMissing,
    /// Never ask the backend; missing content is an error. Nothing can be [confirmed](PullOptions::confirm) then.
    Never,
}

/// What becomes of the image's name in the cache.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PullNaming {
    /// A name that stands for another image stays as it is; one that the cache lacks stands for this image.
    Keep,
    /// No name is set, for what is read once: the image stays while the [result](PullResult::lease) is held.
    Leave,
    /// The name stands for the image, [whatever it stood for](PullResult::replaced). A digest is set as a name also where the
    /// cache has the image under a tag, which can move on.
    #[default]
    Set,
}

/// How an image is pulled.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// The memory that the conversions of layers share, by default with all of the process.
    pub budget: TreeBudget,
    /// Layers downloaded at the same time, 6 by default: registries take their time for each, however small.
    pub concurrency: usize,
    /// Whether an image that is in the cache is an answer only after the backend has agreed: it is asked, with one
    /// request without content, what the name stands for there, and with one more, if that is not the image that is
    /// here, for the digest of this one. Content is not asked for again, and until the backend has agreed no error and
    /// no event tells a digest that only the cache knows (rule C 230 `a_refusal_tells_no_digest`).
    ///
    /// `None` confirms exactly when there is a [`credential`](Self::credential): who asks may not be who has pulled.
    /// Without one, everybody who uses the cache may have all of it, and no request is made (rule C 49).
    pub confirm: Option<bool>,
    /// Who asks, for programs that pull for several tenants: what opens the backend, such as an
    /// [`ImageProvider`](crate::ImageProvider), opens it with this one, and with no other that the options or the
    /// machine have. [`pull`](fn@crate::pull), whose backend is open, only [confirms](Self::confirm) by it.
    pub credential: Option<Credential>,
    /// [`Verify`](Self::verify) all content of the image in the cache, and ask the backend as [`PullPolicy::Always`].
    pub force: bool,
    /// Bounds on layers that are converted.
    pub limits: LayerLimits,
    /// Convert each layer while it is downloaded, into an artifact of the cache.
    pub materializer: Option<Box<dyn Materializer>>,
    /// What becomes of the name.
    pub naming: PullNaming,
    /// Which image of an index.
    pub platform: Platform,
    /// When to ask the backend.
    pub policy: PullPolicy,
    /// Where events go.
    pub progress: Progress,
    /// What happens after a failed attempt.
    pub retry: Retry,
    /// The folder for temporary files, made when it is needed, on a disk that holds the image. By default the cache's
    /// [own](crate::CacheProvider::scratch).
    pub scratch: Option<PathBuf>,
    /// How long a transfer may make no progress at all.
    pub stall: Duration,
    /// Read what is here of the image again, also when all of it is. What is damaged is fetched again; under
    /// [`PullPolicy::Never`] it is an error. Artifacts are not read (rule C 54 `verification_policy_applies_on_hit`).
    pub verify: bool,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            budget: TreeBudget::default(),
            concurrency: 6,
            confirm: None,
            credential: None,
            force: false,
            limits: LayerLimits::default(),
            materializer: None,
            naming: PullNaming::default(),
            platform: Platform::host(),
            policy: PullPolicy::default(),
            progress: Progress::none(),
            retry: Retry::default(),
            scratch: None,
            stall: Duration::from_secs(30),
            verify: false,
        }
    }
}

/// An image that is in the cache now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PullResult {
    /// The name it has there, or with [`PullNaming`] would have.
    pub reference: Reference,
    /// What the name stands for: an index or a manifest.
    pub descriptor: Descriptor,
    /// What the name stood for until now, if that was another image.
    pub replaced: Option<Descriptor>,
    /// The image's manifest.
    pub manifest: RawManifest,
    /// The indexes that led to it, outermost first; empty for a single image.
    pub indexes: Vec<RawManifest>,
    /// The image's configuration; `None` for artifacts, which have none.
    pub config: Option<RawConfig>,
    /// Its layers, bottom first.
    pub layers: Vec<PulledLayer>,
    /// Whether every layer was here already; the name may still have been asked for.
    pub cached: bool,
    /// Keeps all of it in the cache while this or a clone of it lives, also when the name goes.
    pub lease: Lease,
}

/// A layer that is in the cache now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PulledLayer {
    /// The layer's blob.
    pub descriptor: Descriptor,
    /// The digest of its uncompressed tar; `None` for artifacts.
    pub diff_id: Option<Digest>,
    /// The file made from it, if [`PullOptions::materializer`] asked for one.
    pub artifact: Option<Box<dyn ArtifactHandle>>,
    /// Whether that file was made now, and not in the cache before.
    pub converted: bool,
}
