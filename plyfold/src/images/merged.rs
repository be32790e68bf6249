//! Images in the cache as trees with the content of their files.

use plyfold_core::layer::LayerLimits;
use plyfold_core::tree::MergedTree;
use plyfold_core::{FlatOptions, PulledImage, Result};

use super::Images;
use crate::blocking::blocking;

impl Images {
    /// A pulled image as one tree, with the content of its files: to compare it with another by
    /// [`Differences`](crate::Differences), or to read it in any order. Layers are read as for [`export`](Self::export): from what formats
    /// have made of them, or once, to their verified ends. Content of compressed layers takes room in the folder for temporary
    /// files while the tree is there.
    ///
    /// # Errors
    /// As [`FlatImage::cached`](crate::FlatImage::cached) and [`FlatImage::tree`](crate::FlatImage::tree).
    pub async fn merged(&self, image: &PulledImage, limits: LayerLimits) -> Result<MergedTree> {
        let flat = self.flat(image, &FlatOptions { limits, ..FlatOptions::default() }).await?;
        let merged = blocking(move |stop| flat.tree(stop)).await;
        merged.map_err(|e| e.with_image(&image.reference))
    }
}
