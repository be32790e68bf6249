//! One image, opened for reading.

use std::fmt::{Debug, Display};

use async_trait::async_trait;
use dyn_clone::DynClone;
use oci_spec::image::ImageManifest;

use crate::layer::{LayerForm, LayerOptions, LayerTar};
use crate::manifest::{self, RawConfig, RawManifest, limits};
use crate::registry::ImageRegistry;
use crate::select::{self, Found};
use crate::{Blob, BlobRange, Descriptor, Digest, Error, Platform, Reference, Result};

/// One image, opened for reading: its manifest is fixed and verified, its blobs are read when asked for.
#[async_trait]
#[expect(unused_variables, reason = "provided bodies do nothing with what they are given")]
pub trait ImageSource: AsImageSource + DynClone + Debug + Display + Send + Sync + 'static {
    /// The image's manifest, bytes and all. No I/O.
    ///
    /// # Contract
    /// S 76 `descriptor_matches_manifest_bytes`.
    fn raw(&self) -> &RawManifest;

    /// One of the image's blobs, or a range of one. An error in the middle never looks like the end.
    ///
    /// # Errors
    /// As [`ImageRegistry::blob`].
    async fn blob(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob>;

    /// The indexes that led to the manifest, outermost first; empty for a single image. No I/O.
    fn indexes(&self) -> &[RawManifest] {
        &[]
    }

    /// What refers to a document of the image's repository; empty where the medium lists no referrers.
    ///
    /// # Errors
    /// As [`ImageRegistry::referrers`].
    async fn referring(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }

    /// A document of the image's repository, checked against its descriptor.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a source of one manifest; otherwise as
    /// [`ImageRegistry::manifest`].
    async fn document(&self, document: &Descriptor) -> Result<RawManifest> {
        Err(Error::unsupported("the source has one manifest").with_context("manifest", document.digest()))
    }

    /// The document of a tag of the image's repository; `None` when there is no such tag.
    ///
    /// # Errors
    /// As [`ImageRegistry::manifest`].
    async fn of_tag(&self, tag: &str) -> Result<Option<RawManifest>> {
        Ok(None)
    }
}

dyn_clone::clone_trait_object!(ImageSource);

/// Any source as a trait object, for what is the same for all of them.
pub trait AsImageSource {
    /// The source itself.
    fn as_source(&self) -> &dyn ImageSource;
}

impl<T: ImageSource> AsImageSource for T {
    fn as_source(&self) -> &dyn ImageSource {
        self
    }
}

/// What follows from [`ImageSource`]'s methods, the same for every backend.
#[async_trait]
pub trait ImageSourceExt: ImageSource {
    /// The manifest's descriptor.
    fn descriptor(&self) -> &Descriptor {
        self.raw().descriptor()
    }

    /// The parsed manifest.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when the source was opened on an index.
    fn manifest(&self) -> Result<&ImageManifest> {
        self.raw().image()
    }

    /// The layers' descriptors, bottom first (rule S 78 `layers_ordered_bottom_up`).
    ///
    /// # Errors
    /// As [`ImageSourceExt::manifest`].
    fn layers(&self) -> Result<&[Descriptor]> {
        Ok(self.manifest()?.layers())
    }

    /// The image configuration; reads no layer.
    ///
    /// # Contract
    /// S 77 `config_raw_bytes_hash_to_descriptor`.
    ///
    /// # Errors
    /// As [`RawConfig::new`] and [`ImageRegistry::blob`].
    async fn config(&self) -> Result<RawConfig> {
        let manifest = self.manifest()?;
        manifest::check_is_image(manifest)?;
        let blob = self.blob(manifest.config(), BlobRange::FULL).await?;
        RawConfig::new(manifest, blob.bytes(limits::CONFIG).await?)
    }

    /// Layer `index` (0 is the bottom) as verified entries, also one that is [no tar](LayerForm), to be read on a blocking
    /// thread. Its end proves both the blob's digest and the `diff_id` (rule S 79).
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) when there is no such layer; otherwise as [`ImageSourceExt::config`].
    async fn layer_tar(&self, index: usize) -> Result<LayerTar> {
        self.layer_tar_with(index, LayerOptions::default()).await
    }

    /// As [`ImageSourceExt::layer_tar`], with other options: its `diff_id` and its form are those of the image.
    ///
    /// # Errors
    /// As [`ImageSourceExt::layer_tar`].
    async fn layer_tar_with(&self, index: usize, options: LayerOptions) -> Result<LayerTar> {
        let diff_ids = self.config().await?.diff_ids()?;
        let (Some(layer), Some(diff_id)) = (self.layers()?.get(index), diff_ids.get(index)) else {
            return Err(Error::config(format!(
                "the image has {} layers, there is no layer {index}",
                diff_ids.len()
            )));
        };
        let form = LayerForm::of(layer)?;
        let blob = self.blob(layer, BlobRange::FULL).await?;
        LayerTar::new(blob.into_reader(), LayerOptions { diff_id: Some(diff_id.clone()), form, ..options })
    }
}

impl<T: ImageSource + ?Sized> ImageSourceExt for T {}

/// An image of an [`ImageRegistry`], fixed to one manifest.
#[derive(Clone, Debug)]
pub struct RegistrySource {
    registry: Box<dyn ImageRegistry>,
    reference: Reference,
    /// What the reference itself names, then every index on the way: the last one holds the manifest.
    indexes: Vec<RawManifest>,
    raw: RawManifest,
    config: Option<RawConfig>,
}

impl RegistrySource {
    /// Opens `reference` and descends to the manifest for `platform`.
    ///
    /// # Errors
    /// As [`ImageRegistryExt::image`](crate::ImageRegistryExt::image).
    pub async fn open(
        registry: Box<dyn ImageRegistry>,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Self> {
        let Found { indexes, raw, config } = select::find(&registry, reference, platform).await?;
        Ok(Self { registry, reference: reference.clone(), indexes, raw, config })
    }

    /// An image whose manifest is already read, with its config if that is known: nothing is looked up by a name, and
    /// blobs are read from `registry`.
    pub fn in_hand(
        registry: Box<dyn ImageRegistry>,
        reference: Reference,
        raw: RawManifest,
        config: Option<RawConfig>,
    ) -> Self {
        Self { registry, reference, indexes: Vec::new(), raw, config }
    }

    /// The reference that was opened.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The same with the indexes that led to the manifest, outermost first.
    #[must_use]
    pub fn with_indexes(self, indexes: Vec<RawManifest>) -> Self {
        Self { indexes, ..self }
    }

    /// Where its blobs are read.
    pub(crate) fn registry(&self) -> &dyn ImageRegistry {
        &*self.registry
    }

    /// The config, when opening the image had to read it: the next caller need not read it again.
    pub(crate) fn known_config(&self) -> Option<&RawConfig> {
        self.config.as_ref()
    }

    /// What the reference itself names: the outermost index, or the manifest.
    pub fn root(&self) -> &RawManifest {
        self.indexes.first().unwrap_or(&self.raw)
    }
}

impl Display for RegistrySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {}", self.reference, self.registry)
    }
}

#[async_trait]
impl ImageSource for RegistrySource {
    fn raw(&self) -> &RawManifest {
        &self.raw
    }

    async fn blob(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        select::blob(&*self.registry, &self.reference, blob, range).await
    }

    fn indexes(&self) -> &[RawManifest] {
        &self.indexes
    }

    async fn referring(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        if !self.registry.capabilities().referrers {
            return Ok(Vec::new());
        }
        self.registry.referrers(&self.reference, subject, None).await
    }

    async fn document(&self, document: &Descriptor) -> Result<RawManifest> {
        select::child(&*self.registry, &self.reference, document).await
    }

    async fn of_tag(&self, tag: &str) -> Result<Option<RawManifest>> {
        select::of_tag(&*self.registry, &self.reference, tag).await
    }
}
