//! Root file systems as tars.

use std::path::Path;

use plyfold_core::{FlatImage, FlatOptions, PulledImage, Result, TarReader};

use super::Images;
use crate::atomic_file::{AtomicFile, FileOptions};
use crate::blocking::blocking;

impl Images {
    /// The root file system of a pulled image as one tar, whiteouts applied, which is written while it is read. What formats
    /// have made of the layers is used where the cache has it; no layer is read twice. The image stays in the cache while the
    /// reader is there.
    ///
    /// # Errors
    /// As [`FlatImage::cached`]; those of the layers come as the last item of the reader.
    pub async fn export(&self, image: &PulledImage, options: &FlatOptions) -> Result<TarReader> {
        self.flat(image, options).await?.into_reader()
    }

    /// As [`export`](Self::export), to a file, which appears complete or not at all; its size in bytes.
    ///
    /// # Errors
    /// As [`FlatImage::cached`] and [`FlatImage::write`]; [`Io`](crate::ErrorKind::Io).
    pub async fn export_to(
        &self,
        image: &PulledImage,
        options: &FlatOptions,
        path: &Path,
        file: FileOptions,
    ) -> Result<u64> {
        let (flat, path) = (self.flat(image, options).await?, path.to_owned());
        let written = blocking(move |stop| {
            let mut out = AtomicFile::replace(&path, file, stop)?;
            flat.write(&mut out, stop)?;
            out.publish()
        });
        written.await.map_err(|e| e.with_image(&image.reference))
    }

    pub(crate) async fn flat(&self, image: &PulledImage, options: &FlatOptions) -> Result<FlatImage> {
        let scratch = options.scratch.clone().or_else(|| Some(self.temporary()));
        let options = FlatOptions { scratch, ..options.clone() };
        let flat = FlatImage::cached(&self.source(image), self.cache(), &self.materializers, &options).await;
        flat.map(|flat| flat.leased(image.lease.clone())).map_err(|e| e.with_image(&image.reference))
    }
}
