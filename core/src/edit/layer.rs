//! A layer that is added to images.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::blocking::blocking;
use crate::copy::convert::asked::Recompression;
use crate::copy::convert::recompress::recompressed;
use crate::durable::temporary_file;
use crate::holes::reopened;
use crate::layer::{Compression, LayerOptions, LayerTar, Warning};
use crate::tree::LayerTreeBuilder;
use crate::{Blob, BlobRange, Descriptor, Digest, Error, MediaType, Result};

/// A layer that is added to images: a tar in a file, as it is or compressed by gzip or zstd.
#[derive(Clone, Debug)]
pub struct NewLayer {
    file: Arc<File>,
    place: String,
    blob: Digest,
    size: u64,
    diff_id: Digest,
    compression: Compression,
    leans_on_lower: bool,
    warnings: Vec<Warning>,
}

impl NewLayer {
    /// Reads a regular file to its end, to see that it is a layer. It is read again when the layer is stored; if it has
    /// changed by then, that is an error. `place` names it in errors.
    ///
    /// # Errors
    /// Those of [`LayerTar`] and [`LayerTreeBuilder`], such as [`Corrupt`](crate::ErrorKind::Corrupt) for what is no tar;
    /// [`Io`](crate::ErrorKind::Io).
    pub async fn read(file: File, place: impl Into<String>) -> Result<Self> {
        let place = place.into();
        let at = place.clone();
        let read = blocking(move |stop| {
            let source = reopened(&file).map_err(|e| Error::io("opening a layer", e))?;
            let mut tar = LayerTar::new(stop.reader(source), LayerOptions::default())?;
            let mut tree = LayerTreeBuilder::within(tar.limits().tree.clone());
            while let Some(entry) = tar.next_entry()? {
                tree.insert(entry, |_, _| Ok(()))?;
            }
            let tree = tree.finish()?;
            let leans_on_lower = !tree.lower_links.is_empty() || !tree.assumed.is_empty();
            let summary = tar.finish()?;
            let (Some(blob), Some(diff_id)) = (summary.blob, summary.diff_id) else {
                return Err(Error::new(crate::ErrorKind::Internal, "a layer was read without its digests"));
            };
            let (size, compression) = (summary.blob_size, summary.compression);
            let file = Arc::new(file);
            Ok(Self {
                file,
                place,
                blob,
                size,
                diff_id,
                compression,
                leans_on_lower,
                warnings: summary.warnings,
            })
        });
        read.await.map_err(|e| e.with_context("layer", at))
    }

    /// The same layer compressed as asked, in a file without a name in a folder; as it is when it is compressed so already, whatever
    /// its level. The same tar gives the same bytes.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io); [`Corrupt`](crate::ErrorKind::Corrupt) for a file that has changed since it was
    /// [read](Self::read).
    pub async fn compressed(self, how: Recompression, folder: &Path) -> Result<Self> {
        if self.compression == how.compression() {
            return Ok(self);
        }
        let (at, folder) = (self.place.clone(), folder.to_owned());
        let made = blocking(move |stop| {
            let source = reopened(&self.file).map_err(|e| Error::io("opening a layer", e))?;
            let made = recompressed(stop.reader(source), &self.diff_id, how, temporary_file(&folder)?)?;
            let (blob, size) = (made.blob.digest().clone(), made.blob.size());
            Ok(Self { file: Arc::new(made.file), blob, size, compression: how.compression(), ..self })
        });
        made.await.map_err(|e| e.with_context("layer", at))
    }

    /// The digest of its uncompressed tar.
    pub fn diff_id(&self) -> &Digest {
        &self.diff_id
    }

    /// What deviates from the format and was accepted.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The digest of its bytes as they are.
    pub fn digest(&self) -> &Digest {
        &self.blob
    }

    /// Whether the layers below decide if it can be put on them: it has hard links to files of theirs.
    pub(crate) fn leans_on_lower(&self) -> bool {
        self.leans_on_lower
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn compression(&self) -> Compression {
        self.compression
    }

    /// As it stands in a manifest.
    pub(super) fn descriptor(&self, media_type: MediaType) -> Descriptor {
        Descriptor::new(media_type, self.size, self.blob.clone())
    }

    /// Its bytes.
    pub(crate) fn blob(&self) -> Result<Blob> {
        let file = reopened(&self.file).map_err(|e| Error::io(format!("opening {}", self.place), e))?;
        let media_type = MediaType::Other("application/octet-stream".to_owned());
        Blob::from_reader(&self.descriptor(media_type), BlobRange::FULL, file)
    }
}
