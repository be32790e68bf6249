//! What follows from the methods of a registry.

use async_trait::async_trait;
use oci_spec::image::{ImageIndex, ImageManifest};

use super::ImageRegistry;
use crate::manifest::{Document, RawConfig, RawManifest};
use crate::source::RegistrySource;
use crate::{Blob, BlobRange, Descriptor, Digest, Error, Platform, Reference, Result, select};

/// What follows from [`ImageRegistry`]'s methods, the same for every backend.
#[async_trait]
pub trait ImageRegistryExt: ImageRegistry {
    /// The manifest, checked against the digest in the reference if it has one.
    ///
    /// # Errors
    /// As [`ImageRegistry::manifest`].
    async fn fetch_raw(&self, reference: &Reference) -> Result<RawManifest> {
        select::raw(self, reference).await
    }

    /// The child of an index: digest, size and media type are those of its descriptor (rule R 6
    /// `child_manifest_verified_by_descriptor_digest_and_size`).
    ///
    /// # Errors
    /// As [`ImageRegistry::manifest`].
    async fn fetch_child(&self, reference: &Reference, child: &Descriptor) -> Result<RawManifest> {
        select::child(self, reference, child).await
    }

    /// The index that `reference` names.
    ///
    /// # Errors
    /// As [`ImageRegistry::manifest`]; [`Unsupported`](crate::ErrorKind::Unsupported) when it is an image.
    async fn fetch_index(&self, reference: &Reference) -> Result<ImageIndex> {
        let raw = self.fetch_raw(reference).await?;
        match raw.document() {
            Document::Index(index) => Ok(index.clone()),
            Document::Manifest(_) => {
                Err(Error::unsupported("this is a single image, not an index").with_image(reference))
            }
        }
    }

    /// The image manifest for a platform, through any nested indexes.
    ///
    /// # Errors
    /// As [`ImageRegistry::manifest`]; [`PlatformNotFound`](crate::ErrorKind::PlatformNotFound).
    async fn fetch_manifest(&self, reference: &Reference, platform: &Platform) -> Result<ImageManifest> {
        Ok(select::find(self, reference, platform).await?.raw.image()?.clone())
    }

    /// The image configuration for a platform.
    ///
    /// # Errors
    /// As [`ImageRegistryExt::fetch_manifest`]; [`Unsupported`](crate::ErrorKind::Unsupported) for artifacts.
    async fn fetch_config(&self, reference: &Reference, platform: &Platform) -> Result<RawConfig> {
        let found = select::find(self, reference, platform).await?;
        match found.config {
            Some(config) => Ok(config),
            None => select::read_config(self, reference, found.raw.image()?).await,
        }
    }

    /// A blob or a range of one, with the image and the endpoint in its errors.
    ///
    /// # Errors
    /// As [`ImageRegistry::blob`].
    async fn fetch_blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        select::blob(self, reference, blob, range).await
    }

    /// A blob of the image that `reference` names, by its digest alone: the config or a layer, for any platform. Its
    /// size is the one that the image's manifest says, and whole it is verified; the blob is a stream of its bytes.
    ///
    /// # Contract
    /// S 204 `blob_of_an_image_by_its_digest_alone`.
    ///
    /// # Errors
    /// As [`ImageRegistry::manifest`] and [`ImageRegistry::blob`]; [`NotFound`](crate::ErrorKind::NotFound) when the
    /// image has no such blob; [`Limit`](crate::ErrorKind::Limit) when it is not found among 256 manifests of an index.
    async fn fetch_image_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        range: BlobRange,
    ) -> Result<Blob> {
        let blob = select::described(self, reference, digest).await?;
        self.fetch_blob(reference, &blob, range).await
    }

    /// Whether the name exists. An outage is an error, not `false`.
    ///
    /// # Errors
    /// As [`ImageRegistry::resolve`], [`NotFound`](crate::ErrorKind::NotFound) excepted.
    async fn exists(&self, reference: &Reference) -> Result<bool> {
        let found = Error::found(self.resolve(reference).await);
        Ok(found.map_err(|e| e.with_image(reference))?.is_some())
    }

    /// One image for one platform, opened for reading. The index is verified before a child is chosen (rule R 5).
    ///
    /// # Errors
    /// As [`ImageRegistry::manifest`]; [`PlatformNotFound`](crate::ErrorKind::PlatformNotFound) lists what there
    /// is; [`Limit`](crate::ErrorKind::Limit) for indexes nested too deep (rule R 16).
    async fn image(&self, reference: &Reference, platform: &Platform) -> Result<RegistrySource>
    where
        Self: Sized + Clone,
    {
        RegistrySource::open(Box::new(self.clone()), reference, platform).await
    }
}

impl<T: ImageRegistry + ?Sized> ImageRegistryExt for T {}
