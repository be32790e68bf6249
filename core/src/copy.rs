//! The copy engine: an image from one backend into another, digests unchanged.

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::manifest::{Document, RawManifest, limits};
use crate::progress::{Event, Progress};
use crate::registry::{ImageRegistry, ImageRegistryExt};
use crate::source;
use crate::{
    BlobRange, Descriptor, Digest, Error, ErrorKind, MediaType, Platform, Reference, Result, reference,
};

/// What of an index is copied.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
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
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self { concurrency: 4, platforms: Platforms::default(), progress: Progress::none() }
    }
}

/// Copies an image between backends. Blobs come first, then manifests, then indexes; the name is set last. Every
/// document is carried on byte for byte, so that digests and signatures survive (rule X 99
/// `copy_a_to_b_preserves_digests_or_refuses`).
///
/// # Errors
/// [`Unsupported`](crate::ErrorKind::Unsupported) at once when the target stores nothing; otherwise those of both
/// backends, with the image in their context. The target's name is not touched then.
pub async fn copy(
    from: &dyn ImageRegistry,
    image: &Reference,
    to: &dyn ImageRegistry,
    target: &Reference,
    options: &CopyOptions,
) -> Result<Descriptor> {
    if !to.capabilities().push {
        return Err(to.unsupported("store images").with_image(target));
    }
    let copier = Copier { from, image, to, target, options };
    let result = copier.run().await;
    options.progress.emit(Event::Finished { success: result.is_ok() });
    result
}

struct Copier<'a> {
    from: &'a dyn ImageRegistry,
    image: &'a Reference,
    to: &'a dyn ImageRegistry,
    target: &'a Reference,
    options: &'a CopyOptions,
}

impl Copier<'_> {
    async fn run(&self) -> Result<Descriptor> {
        let raw = match &self.options.platforms {
            Platforms::All => self.from.fetch_raw(self.image).await?,
            Platforms::One(platform) => source::find(self.from, self.image, platform).await?.raw,
        };
        if reference::digest_of(self.target)?.is_some_and(|digest| digest != *raw.digest()) {
            let message = format!("the target's digest is not that of the image, {}", raw.digest());
            return Err(Error::config(message).with_image(self.target));
        }
        self.content(&raw, limits::NESTING).await?;
        let pushed = self.to.push_manifest(self.target, &raw).await;
        pushed.map_err(|e| e.with_image(self.target).with_endpoint(self.to))?;
        Ok(raw.descriptor().clone())
    }

    /// Copies everything that `raw` refers to, bottom up.
    fn content<'s>(&'s self, raw: &'s RawManifest, depth: usize) -> BoxFuture<'s, Result<()>> {
        Box::pin(async move {
            let Document::Index(index) = raw.document() else { return self.blobs(raw).await };
            if depth == 0 {
                let message = format!("indexes are nested more than {} deep", limits::NESTING);
                return Err(Error::limit(message).with_image(self.image));
            }
            for child in index.manifests() {
                let child = self.from.fetch_child(self.image, child).await?;
                self.content(&child, depth - 1).await?;
                let name = reference::by_digest(self.target, child.digest());
                let pushed = self.to.push_manifest(&name, &child).await;
                pushed.map_err(|e| e.with_image(self.target).with_endpoint(self.to))?;
            }
            Ok(())
        })
    }

    /// Copies config and layers, each digest once.
    async fn blobs(&self, raw: &RawManifest) -> Result<()> {
        let mut unique: Vec<Descriptor> = Vec::new();
        for blob in raw.references() {
            if !unique.iter().any(|other| other.digest() == blob.digest()) {
                unique.push(blob);
            }
        }
        let jobs = unique.into_iter().map(|blob| async move { self.blob(&blob).await });
        stream::iter(jobs).buffer_unordered(self.options.concurrency.max(1)).try_collect().await
    }

    async fn blob(&self, blob: &Descriptor) -> Result<()> {
        let digest: Digest = blob.digest().clone();
        self.options.progress.emit(Event::BlobStarted {
            digest: digest.clone(),
            size: blob.size(),
            resumed_at: 0,
        });
        let content = match self.from.fetch_blob(self.image, blob, BlobRange::FULL).await {
            // Layers that may not be redistributed need not be anywhere but at their own URL.
            Err(e) if *e.kind() == ErrorKind::NotFound && is_foreign(blob.media_type()) => {
                let message = format!("{digest} may not be redistributed and is not copied");
                self.options.progress.emit(Event::Warning { message });
                return Ok(());
            }
            outcome => outcome?,
        };
        let pushed = self.to.push_blob(self.target, content).await;
        pushed.map_err(|e| e.with_image(self.image).with_endpoint(self.to).with_context("blob", &digest))?;
        self.options.progress.emit(Event::BlobDone { digest, cached: false });
        Ok(())
    }
}

/// Whether a layer is non-distributable (OCI image spec, `layer.md#non-distributable-layers`) or a Docker foreign layer.
pub(crate) fn is_foreign(media_type: &MediaType) -> bool {
    let name = media_type.as_ref();
    name.contains(".nondistributable.") || name.contains(".image.rootfs.foreign.")
}
