//! The manifest that a name means on a platform, and checked reads of what a registry gives.

use std::collections::HashSet;

use futures_util::future::BoxFuture;
use oci_spec::image::ImageManifest;

use crate::cache::MissingBlob;
use crate::manifest::{self, Document, RawConfig, RawManifest, check_is_image, is_index, limits};
use crate::registry::ImageRegistry;
use crate::{
    Advice, Blob, BlobRange, Descriptor, Digest, Error, ErrorKind, Platform, Reference, Result, digest,
    platform, platform::EROFS_FEATURE, reference,
};

/// The manifest that a reference means on a platform, and the indexes that led there, outermost first.
pub(crate) struct Found {
    pub(crate) indexes: Vec<RawManifest>,
    pub(crate) raw: RawManifest,
    /// The config, when it had to be read to know the platform.
    pub(crate) config: Option<RawConfig>,
}

/// Descends from `reference` to the manifest for `wanted`. Where only an image of EROFS layers is for that platform, it is
/// that one, whether or not the feature is wanted.
pub(crate) async fn find<R: ImageRegistry + ?Sized>(
    registry: &R,
    reference: &Reference,
    wanted: &Platform,
) -> Result<Found> {
    // On the heap: it is kept while what is below it is read.
    let root = Box::new(raw(registry, reference).await?);
    find_in(registry, reference, root, wanted).await
}

/// As [`find`], from what the reference stands for.
pub(crate) async fn find_in<R: ImageRegistry + ?Sized>(
    registry: &R,
    reference: &Reference,
    root: Box<RawManifest>,
    wanted: &Platform,
) -> Result<Found> {
    let features = wanted.features().iter().map(String::as_str);
    let native = Box::new(wanted.clone().with_features(features.chain([EROFS_FEATURE])));
    let (tried, available) = (HashSet::new(), Vec::new());
    let mut search = Search { registry, reference, wanted, fetched: 0, tried, available, config: None };
    let mut indexes = Vec::new();
    let mut next = Some(wanted);
    while let Some(wanted) = next {
        search.wanted = wanted;
        search.tried.clear();
        if let Some(raw) = search.descend((*root).clone(), &mut indexes).await? {
            return Ok(Found { indexes, raw, config: search.config });
        }
        next = Some(&*native).filter(|native| search.has_native(native));
    }
    search.available.sort();
    search.available.dedup();
    let available = search.available;
    let kind = ErrorKind::PlatformNotFound { available: available.clone() };
    let error = Error::new(kind, format!("no image for platform {wanted}"));
    let error = error.with_image(reference).with_endpoint(registry);
    if available.is_empty() {
        return Err(error.with_hint("the image names no platform at all"));
    }
    Err(error.with_advice(Advice::ChoosePlatform { available }))
}

/// Documents fetched for one search, over all nested indexes.
const FETCHES: usize = 256;

/// The descriptor of a blob: of the config or a layer of any image that `reference` leads to.
pub(crate) async fn described<R: ImageRegistry + ?Sized>(
    registry: &R,
    reference: &Reference,
    blob: &Digest,
) -> Result<Descriptor> {
    let mut found = raw(registry, reference).await?;
    let (mut children, mut known) = (Vec::new(), HashSet::new());
    for _ in 0..FETCHES {
        match found.document() {
            Document::Manifest(image) => {
                let mut blobs = image.layers().iter().chain([image.config()]);
                if let Some(blob) = blobs.find(|own| own.digest() == blob) {
                    return Ok(blob.clone());
                }
            }
            Document::Index(index) => {
                let fresh = index.manifests().iter().filter(|child| known.insert(child.digest().clone()));
                let fresh: Vec<Descriptor> = fresh.cloned().collect();
                children.extend(fresh.into_iter().rev());
            }
        }
        found = loop {
            let Some(next) = children.pop() else {
                let error = Error::not_found(format!("the image has no blob {blob}"));
                return Err(error.with_image(reference).with_endpoint(registry));
            };
            // An index may list images that are not here.
            if let Some(child) = Error::found(child(registry, reference, &next).await)? {
                break child;
            }
        };
    }
    let message = format!("no such blob among the first {FETCHES} manifests");
    Err(Error::limit(message).with_image(reference).with_context("blob", blob))
}

/// An image that an index lists for a platform, and that is not there; all images of the index.
#[derive(Clone, Debug)]
pub(crate) struct AbsentImage {
    pub(crate) platform: String,
    pub(crate) listed: Vec<Descriptor>,
}

/// Says of what is missing for which platform it is.
fn absent(error: Error, wanted: &Platform, listed: &[Descriptor]) -> Error {
    if *error.kind() != ErrorKind::NotFound || error.detail::<AbsentImage>().is_some() {
        return error;
    }
    error
        .with_context("platform", wanted)
        .with_detail(AbsentImage { platform: wanted.to_string(), listed: listed.to_vec() })
}

/// A bounded depth-first search through an index for a platform.
struct Search<'a, R: ?Sized> {
    registry: &'a R,
    reference: &'a Reference,
    wanted: &'a Platform,
    fetched: usize,
    /// What was looked into, and has nothing for the platform.
    tried: HashSet<Digest>,
    available: Vec<String>,
    /// The config that decided about the last candidate.
    config: Option<RawConfig>,
}

impl<R: ImageRegistry + ?Sized> Search<'_, R> {
    /// Whether an image that was not chosen runs on this platform, and would not on the one that was wanted.
    fn has_native(&self, native: &Platform) -> bool {
        let offered = self.available.iter().filter_map(|text| text.parse::<Platform>().ok());
        native != self.wanted && offered.into_iter().any(|offered| native.distance(&offered).is_some())
    }

    /// The manifest below `raw`, with the indexes that led there pushed to `path`.
    fn descend<'s>(
        &'s mut self,
        raw: RawManifest,
        path: &'s mut Vec<RawManifest>,
    ) -> BoxFuture<'s, Result<Option<RawManifest>>> {
        Box::pin(async move {
            let index = match raw.document() {
                Document::Manifest(manifest) => {
                    let fits = self.fits(&raw, manifest, path.is_empty()).await?;
                    return Ok(fits.then_some(raw));
                }
                Document::Index(index) => index.clone(),
            };
            if path.iter().any(|outer| outer.digest() == raw.digest()) {
                return Err(Error::corrupt(format!("index {} contains itself", raw.digest()))
                    .with_image(self.reference));
            }
            if path.len() == limits::NESTING {
                let message = format!("indexes are nested more than {} deep", limits::NESTING);
                return Err(Error::limit(message).with_image(self.reference));
            }
            self.available.extend(platform::available(index.manifests()));
            path.push(raw);
            for child in platform::candidates(index.manifests(), self.wanted) {
                let is_decided = child.platform().is_some() && !is_index(child.media_type());
                // Hostile input lists one document many times, and in each of those another.
                if !is_decided && !self.tried.insert(child.digest().clone()) {
                    continue;
                }
                self.fetched += 1;
                if self.fetched > FETCHES {
                    let message = format!("no platform found among the first {FETCHES} manifests");
                    return Err(Error::limit(message).with_image(self.reference));
                }
                let child_raw = self::child(self.registry, self.reference, child).await;
                let child_raw = child_raw.map_err(|e| absent(e, self.wanted, index.manifests()))?;
                // A child with a platform was chosen by it; its own config is not asked again.
                if is_decided {
                    return Ok(Some(child_raw));
                }
                if let Some(found) = self.descend(child_raw, path).await? {
                    return Ok(Some(found));
                }
            }
            path.pop();
            Ok(None)
        })
    }

    /// Whether an image of this platform is for the wanted one. There is no choice where the reference names one image:
    /// which features it needs is then seen by what is done with it.
    fn runs(&self, offered: &Platform, is_named: bool) -> bool {
        if is_named {
            return self.wanted.clone().with_features(offered.features()).distance(offered).is_some();
        }
        self.wanted.distance(offered).is_some()
    }

    /// Whether an image that no platform led to runs on the wanted one. Artifacts have no platform and fit.
    async fn fits(&mut self, raw: &RawManifest, manifest: &ImageManifest, is_named: bool) -> Result<bool> {
        match read_config(self.registry, self.reference, manifest).await {
            Ok(config) => {
                let offered = config.platform_or(raw.platform());
                // An image named by its digest is accepted with the platform that an index would give it.
                let told = raw.platform().filter(|_| self.reference.digest().is_some()).map(Platform::from);
                self.available.push(offered.to_string());
                let fits = told.iter().chain([&offered]).any(|one| self.runs(one, is_named));
                self.config = fits.then_some(config);
                Ok(fits)
            }
            Err(e) if manifest::is_artifact(&e) => Ok(true),
            Err(e) => Err(e),
        }
    }
}

/// Reads and checks the config that a manifest names.
pub(crate) async fn read_config<R: ImageRegistry + ?Sized>(
    registry: &R,
    reference: &Reference,
    manifest: &ImageManifest,
) -> Result<RawConfig> {
    check_is_image(manifest).map_err(|e| e.with_image(reference))?;
    let blob = blob(registry, reference, manifest.config(), BlobRange::FULL).await?;
    let bytes = blob.bytes(limits::CONFIG).await;
    let bytes = bytes.map_err(|e| e.with_image(reference).with_endpoint(registry))?;
    RawConfig::new(manifest, bytes).map_err(|e| e.with_image(reference))
}

/// The manifest, checked against the digest in the reference if it has one.
pub(crate) async fn raw<R: ImageRegistry + ?Sized>(
    registry: &R,
    reference: &Reference,
) -> Result<RawManifest> {
    let manifest = registry.manifest(reference).await.map_err(|e| e.with_image(reference))?;
    match reference::digest_of(reference)? {
        Some(digest) if digest != *manifest.digest() => {
            // The backend may have named the bytes by another algorithm: the requested one decides.
            let media_type = manifest.descriptor().media_type();
            RawManifest::verified(manifest.bytes().clone(), Some(media_type), &digest)
                .map_err(|e| e.with_image(reference).with_endpoint(registry))
        }
        _ => Ok(manifest),
    }
}

/// The child of an index, checked against its descriptor.
pub(crate) async fn child<R: ImageRegistry + ?Sized>(
    registry: &R,
    reference: &Reference,
    child: &Descriptor,
) -> Result<RawManifest> {
    digest::supported(child.digest())?;
    manifest::check_size(child.size(), child.digest()).map_err(|e| e.with_image(reference))?;
    let manifest = registry.manifest(&reference::by_digest(reference, child.digest())).await;
    let manifest = manifest.map_err(|e| e.with_image(reference))?;
    RawManifest::described(manifest.bytes().clone(), child)
        .map_err(|e| e.with_image(reference).with_endpoint(registry))
}

/// The document of a tag of the same repository; `None` when there is no such tag.
pub(crate) async fn of_tag<R: ImageRegistry + ?Sized>(
    registry: &R,
    image: &Reference,
    tag: &str,
) -> Result<Option<RawManifest>> {
    match raw(registry, &reference::tagged(image, tag.to_owned())).await {
        // One whose document is missing is another matter.
        Err(e) if *e.kind() == ErrorKind::NotFound && e.detail::<MissingBlob>().is_none() => Ok(None),
        raw => raw.map(Some),
    }
}

/// A blob or a range of one, with the image and the endpoint in its errors.
pub(crate) async fn blob<R: ImageRegistry + ?Sized>(
    registry: &R,
    reference: &Reference,
    blob: &Descriptor,
    range: BlobRange,
) -> Result<Blob> {
    let opened = registry.blob(reference, blob, range).await;
    opened.map_err(|e| e.with_image(reference).with_endpoint(registry).with_context("blob", blob.digest()))
}
