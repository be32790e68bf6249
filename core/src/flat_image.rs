//! One image as one tar, ready to be written.

use std::path::PathBuf;

use crate::Result;
use crate::blocking::Stop;
use crate::cache::{CacheProvider, Lease};
use crate::flatten::flatten;
use crate::layer::LayerLimits;
use crate::materialize::{ImageLayers, Origin, ReadXattrs};
use crate::materializers::Materializers;
use crate::pull::Retry;
use crate::range_write::RangeWrite;
use crate::save::TarReader;
use crate::source::{ImageSource, ImageSourceExt as _};
use crate::tree::MergedTree;

/// How an image is [flattened](crate::flatten).
#[derive(Clone, Debug, Default)]
pub struct FlatOptions {
    /// Bounds of each layer, and of all of them together.
    pub limits: LayerLimits,
    /// What happens after a failed attempt to read a layer of a [source](FlatImage::of).
    pub retry: Retry,
    /// The folder for the content of files that lies in no file as it is, such as that of compressed layers; by default that
    /// of the cache, or of the system. It takes as much room as the layers do expanded.
    pub scratch: Option<PathBuf>,
}

/// An image whose layers are found, to be written as one tar: the root file system, whiteouts applied.
///
/// The same image gives the same bytes, wherever its content comes from.
#[derive(Debug)]
pub struct FlatImage {
    layers: ImageLayers,
    scratch: PathBuf,
    _lease: Lease,
}

impl FlatImage {
    /// An image of any source: each layer is read once, and goes on where an attempt failed. To be called within a tokio
    /// runtime, which the layers are read by.
    ///
    /// # Errors
    /// As [`ImageSourceExt::config`](crate::ImageSourceExt::config); [`Unsupported`](crate::ErrorKind::Unsupported) for what is no image.
    pub async fn of(image: &dyn ImageSource, options: &FlatOptions) -> Result<Self> {
        let origin = Origin::Source(dyn_clone::clone_box(image), options.retry);
        Self::from(image, origin, options.scratch.clone(), options).await
    }

    /// An image of a cache. A layer is read from the file that a [format](crate::tree::LayerReader) has made of it, where
    /// that is in the cache and lacks nothing, otherwise from its blob, once. To be called within a tokio runtime, which the
    /// cache is read by.
    ///
    /// # Errors
    /// As [`FlatImage::of`].
    pub async fn cached(
        image: &dyn ImageSource,
        cache: Box<dyn CacheProvider>,
        formats: &Materializers,
        options: &FlatOptions,
    ) -> Result<Self> {
        let scratch = options.scratch.clone().or_else(|| cache.scratch());
        let flat = Self::from(image, Origin::Cache(cache), scratch, options).await?;
        Ok(Self { layers: flat.layers.find_files(formats).await, ..flat })
    }

    async fn from(
        image: &dyn ImageSource,
        origin: Origin,
        known: Option<PathBuf>,
        options: &FlatOptions,
    ) -> Result<Self> {
        let diff_ids = image.config().await?.diff_ids()?;
        let layers: Vec<_> = image.layers()?.iter().cloned().zip(diff_ids).collect();
        let scratch = known.clone().unwrap_or_else(std::env::temp_dir);
        let layers = ImageLayers::new(origin, &layers, ReadXattrs::Every, options.limits.clone(), known);
        Ok(Self { layers, scratch, _lease: Lease::none() })
    }

    /// Keeps the image in its cache until it is written.
    #[must_use]
    pub fn leased(self, lease: Lease) -> Self {
        Self { _lease: lease, ..self }
    }

    /// The tar as a stream, which is written by a thread of its own while it is read.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when the system has no thread left; those of [`write`](Self::write) come as the last item
    /// of the stream.
    pub fn into_reader(self) -> Result<TarReader> {
        TarReader::of("flatten", move |out, stop| self.write(out, stop))
    }

    /// Writes the tar, by the kernel where content and `out` are files. Every layer is read to its verified end first; after
    /// an error `out` is no complete tar. For a thread that may block.
    ///
    /// # Errors
    /// Those of the cache, of [`MergedTree::read`](crate::tree::MergedTree::read) and of [`flatten`](fn@crate::flatten).
    pub fn write(self, out: &mut dyn RangeWrite, stop: &Stop) -> Result<()> {
        flatten(&self.tree(stop)?, out)
    }

    /// The tree that the tar is of, with the extended attributes of every name. For a thread that may block.
    ///
    /// # Errors
    /// Those of the cache and of [`MergedTree::read`].
    pub fn tree(self, stop: &Stop) -> Result<MergedTree> {
        self.layers.tree(&self.scratch, stop)
    }
}
