//! Images in the cache as trees with the content of their files.

use plyfold_core::layer::LayerLimits;
use plyfold_core::tree::MergedTree;
use plyfold_core::{ImageSourceExt as _, PulledImage, Result};
use tokio::runtime::Handle;

use super::Images;
use crate::blocking::blocking;

impl Images {
    /// A pulled image as one tree, with the content of its files: to compare it with another by
    /// [`Differences`](crate::Differences), or to read it in any order. Every layer is read once, to its verified end; content of compressed
    /// layers takes room in the folder for temporary files while the tree is there.
    ///
    /// # Errors
    /// Those of [`MergedTree::read`] and of the cache.
    pub async fn merged(&self, image: &PulledImage, limits: LayerLimits) -> Result<MergedTree> {
        let (source, runtime, scratch) = (self.source(image), Handle::current(), self.temporary());
        let (count, options) = (source.layers()?.len(), self.layer_options(limits));
        let trees = options.limits.tree.clone();
        let merged = blocking(move |stop| {
            let layers = (0..count).map(|layer| {
                stop.check()?;
                runtime.block_on(source.layer_tar_with(layer, options.clone()))
            });
            MergedTree::read(layers, trees, &scratch)
        });
        merged.await.map_err(|e| e.with_image(&image.reference))
    }
}
