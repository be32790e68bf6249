//! The files of an image that is in the cache.

use std::path::Path;

use plyfold_core::files::LayerFiles;
use plyfold_core::layer::{LayerLimits, LayerOptions, LayerTar};
use plyfold_core::oci_spec::runtime::Spec;
use plyfold_core::runtime_spec::{names_a_user, runtime_spec};
use plyfold_core::{Error, ImageSourceExt as _, PulledImage, Result};
use tokio::runtime::Handle;

use super::Images;
use crate::blocking::blocking;

impl Images {
    /// How layers are read out of the cache.
    pub(crate) fn layer_options(&self, limits: LayerLimits) -> LayerOptions {
        let layout = self.cache.layout().map(Path::to_owned);
        LayerOptions { limits, layout, scratch: self.scratch(), ..LayerOptions::default() }
    }

    /// The files of a pulled image, as its layers stacked show them: to [list](plyfold_core::files::Files::list) and to
    /// [read](plyfold_core::files::Files::read), without mounting anything. Every layer is read to its verified end first;
    /// a file's bytes are read from its layer again, which waits for the cache.
    ///
    /// # Errors
    /// Those of [`LayerFiles::new`] and of the cache.
    ///
    /// # Panics
    /// Reading a file panics in an asynchronous task: do it by `spawn_blocking`, or on a thread of your own.
    pub async fn files(
        &self,
        image: &PulledImage,
        limits: LayerLimits,
    ) -> Result<LayerFiles<impl Fn(usize) -> Result<LayerTar> + Send + use<>>> {
        let (source, runtime) = (self.source(image), Handle::current());
        let layers = source.layers()?.len();
        let options = self.layer_options(limits);
        let open = move |layer| runtime.block_on(source.layer_tar_with(layer, options.clone()));
        blocking(move |_| LayerFiles::new(layers, open)).await.map_err(|e| e.with_image(&image.reference))
    }

    /// The configuration of a runtime that a pulled image stands for, with its user as the image's own files have it. These are
    /// read only where the image names a user.
    ///
    /// # Errors
    /// Those of [`runtime_spec`](fn@runtime_spec), of [`files`](Self::files) and of the cache.
    pub async fn runtime_spec(&self, image: &PulledImage, limits: LayerLimits) -> Result<Spec> {
        let config = self.source(image).config().await.map_err(|e| e.with_image(&image.reference))?;
        let converted = if names_a_user(&config) {
            let mut files = self.files(image, limits).await?;
            blocking(move |_| runtime_spec(&config, &mut files)).await
        } else {
            let mut none = LayerFiles::new(0, |_| Err(Error::not_found("there is no layer")))?;
            runtime_spec(&config, &mut none)
        };
        converted.map_err(|e| e.with_image(&image.reference))
    }
}
