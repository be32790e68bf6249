//! A gzip layer that is in the cache, decoded by several threads for its conversion.

use super::conversion::{Converted, Vacant, WhenFull};
use super::engine::Engine;
use crate::cache::gzip_index;
use crate::layer::LayerTar;
use crate::worker::cores;
use crate::{Blob, Descriptor, ErrorKind, Result};

/// What has come of it.
pub(super) enum ByIndex {
    /// The artifact. Its `diff_id` proves it: the blob was not hashed.
    Made(Converted),
    /// The blob or its index is damaged, or no conversion can be made of the layer: the blob is to be converted as without
    /// an index, which says what is wrong.
    Failed(Blob),
    /// There is no index.
    None(Blob, Vacant),
}

impl Engine<'_> {
    /// Converts a blob of which the cache has an index and a file.
    ///
    /// # Errors
    /// [`Cancelled`](ErrorKind::Cancelled), [`Io`](ErrorKind::Io).
    pub(super) async fn convert_by_index(
        &self,
        layer: &Descriptor,
        mut blob: Blob,
        vacant: Vacant,
    ) -> Result<ByIndex> {
        let Some(file) = blob.take_file() else { return Ok(ByIndex::None(blob, vacant)) };
        let decoded = gzip_index::decoded(&self.cache, layer, &file, &self.options.limits, cores()).await?;
        let blob = blob.with_file(file);
        let Some(decoded) = decoded else { return Ok(ByIndex::None(blob, vacant)) };
        let conversion = self.convert_from(
            |stop, options| LayerTar::indexed(decoded.stopped_by(stop), options),
            vacant,
            WhenFull::Wait,
        )?;
        match conversion.finish().await {
            Ok(Some(converted)) => Ok(ByIndex::Made(converted)),
            Err(e) if matches!(e.kind(), ErrorKind::Cancelled | ErrorKind::Io) => Err(e),
            outcome => {
                let why = outcome.err().map(|e| e.to_string()).unwrap_or_default();
                tracing::debug!("{} is converted without its index: {why}", layer.digest());
                Ok(ByIndex::Failed(blob))
            }
        }
    }
}
