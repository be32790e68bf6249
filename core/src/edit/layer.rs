//! A layer that is added to images.

use std::fs::File;
use std::sync::Arc;

use crate::blocking::blocking;
use crate::holes::reopened;
use crate::layer::{Compression, LayerOptions, LayerTar, Warning};
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
    warnings: Vec<Warning>,
}

impl NewLayer {
    /// Reads a regular file to its end, to see that it is a layer. It is read again when the layer is stored; if it has
    /// changed by then, that is an error. `place` names it in errors.
    ///
    /// # Errors
    /// Those of [`LayerTar`], such as [`Corrupt`](crate::ErrorKind::Corrupt) for what is no tar;
    /// [`Io`](crate::ErrorKind::Io).
    pub async fn read(file: File, place: impl Into<String>) -> Result<Self> {
        let place = place.into();
        let at = place.clone();
        let read = blocking(move |stop| {
            let source = reopened(&file).map_err(|e| Error::io("opening a layer", e))?;
            let mut tar = LayerTar::new(stop.reader(source), LayerOptions::default())?;
            while tar.next_entry()?.is_some() {}
            let summary = tar.finish()?;
            let (Some(blob), Some(diff_id)) = (summary.blob, summary.diff_id) else {
                return Err(Error::new(crate::ErrorKind::Internal, "a layer was read without its digests"));
            };
            let (size, compression) = (summary.blob_size, summary.compression);
            let file = Arc::new(file);
            Ok(Self { file, place, blob, size, diff_id, compression, warnings: summary.warnings })
        });
        read.await.map_err(|e| e.with_context("layer", at))
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
