//! One image as one tar.

use std::fmt;

use async_trait::async_trait;

use crate::flat_image::{FlatImage, FlatOptions};
use crate::manifest::RawManifest;
use crate::registry::ImageRegistry;
use crate::save::{ArchiveForm, Contents, SaveImage, SaveOptions, TarReader};
use crate::source::{ImageSource, ImageSourceExt as _};
use crate::{Blob, BlobRange, Descriptor, Error, Reference, Result, reference};

/// An opened image as one tar: its root file system, or an archive that others load, of its one manifest, also where an
/// index led to it.
///
/// The same image under the same name gives the same bytes.
#[async_trait]
pub trait ImageSourceTars: ImageSource {
    /// The root file system, whiteouts applied: see [`flatten`](fn@crate::flatten). Each layer is read once, to its verified end,
    /// before the first byte comes.
    ///
    /// # Contract
    /// S 91 `tar_output_byte_reproducible`, S 92 `error_mid_stream_never_looks_like_eof`, S 93
    /// `dropping_reader_cancels_producer`, S 97 `non_image_artifact_config_gives_typed_error`, S 270
    /// `a_flattened_tar_reads_each_blob_once`, S 271 `a_hard_link_across_layers_is_one_file_in_the_flattened_tar`.
    ///
    /// # Errors
    /// As [`FlatImage::of`]; those of the image's layers come as the last item of the reader.
    async fn tar_reader(&self, options: &FlatOptions) -> Result<TarReader> {
        FlatImage::of(self.as_source(), options).await?.into_reader()
    }

    /// The form of `docker save` before version 25, which every version of Docker and podman loads. It has configs and
    /// expanded layers: the digest of the config is kept, that of the manifest is not.
    ///
    /// # Contract
    /// S 89 `docker_tar_loads_with_name_override`, S 91 `tar_output_byte_reproducible`, S 92
    /// `error_mid_stream_never_looks_like_eof`, S 93 `dropping_reader_cancels_producer`.
    ///
    /// # Errors
    /// As [`Contents::of`]; those of the image's blobs come as the last item of the reader.
    async fn v1_tar_reader(&self, name: &Reference, options: &SaveOptions) -> Result<TarReader> {
        reader(self.as_source(), name, ArchiveForm::Docker, options).await
    }

    /// An OCI layout, with [Docker's list](SaveOptions::docker_list) unless that is off: what containerd, podman and every
    /// version of Docker load. Every digest is kept.
    ///
    /// # Contract
    /// S 90 `oci_tar_index_media_type_is_the_real_one`, and as [`v1_tar_reader`](Self::v1_tar_reader) S 91 to S 93.
    ///
    /// # Errors
    /// As [`v1_tar_reader`](Self::v1_tar_reader).
    async fn oci_tar_reader(&self, name: &Reference, options: &SaveOptions) -> Result<TarReader> {
        reader(self.as_source(), name, ArchiveForm::Oci, options).await
    }
}

impl<T: ImageSource + ?Sized> ImageSourceTars for T {}

async fn reader(
    source: &dyn ImageSource,
    name: &Reference,
    form: ArchiveForm,
    options: &SaveOptions,
) -> Result<TarReader> {
    let options = SaveOptions { form, platforms: Vec::new(), ..options.clone() };
    let image = SaveImage::new(Box::new(OneImage(dyn_clone::clone_box(source))), name.clone());
    Contents::of(vec![image], &options).await?.into_reader()
}

/// An opened image as a registry of it alone, under every name.
#[derive(Clone, Debug)]
struct OneImage(Box<dyn ImageSource>);

#[async_trait]
impl ImageRegistry for OneImage {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        let raw = self.0.raw();
        if reference::digest_of(reference)?.is_some_and(|digest| digest != *self.0.descriptor().digest()) {
            return Err(Error::not_found("the source has one manifest")
                .with_image(reference)
                .with_endpoint(self));
        }
        Ok(raw.clone())
    }

    async fn blob(&self, _: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.0.blob(blob, range).await
    }
}

impl fmt::Display for OneImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
