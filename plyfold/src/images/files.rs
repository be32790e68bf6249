//! The files of an image that is in the cache.

use std::path::Path;

use plyfold_core::files::LayerFiles;
use plyfold_core::layer::{LayerLimits, LayerOptions, LayerTar};
use plyfold_core::{ImageSourceExt as _, PulledImage, Result};
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
}
