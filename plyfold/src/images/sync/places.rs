//! Places that are opened for a sync.

use plyfold_core::{Opened, Result};

use super::super::Images;
use super::super::knowing::{KnownOptions, open_knowing};

/// The places of a sync, which are opened with the options that each knows.
pub(super) struct Places<'a> {
    pub(super) images: &'a Images,
    known: KnownOptions,
}

impl<'a> Places<'a> {
    pub(super) fn new(images: &'a Images) -> Self {
        Self { images, known: KnownOptions::default() }
    }

    /// Opens a URI. No image is looked at.
    pub(super) async fn open(&mut self, uri: &str) -> Result<Opened> {
        let Images { backends, options, shared, .. } = self.images;
        let (opened, strange) = open_knowing(backends, uri, options, shared).await?;
        self.known.note(&opened, options, strange);
        Ok(opened)
    }

    /// As [`open`](Self::open), of an image written as for [`Images::pull`].
    pub(super) async fn open_named(&mut self, image: &str) -> Result<Opened> {
        let uri = self.images.uri(image).await?;
        self.open(&uri).await
    }

    /// Refuses options that no place knows, and credentials for several registries.
    pub(super) fn check(self) -> Result<()> {
        self.known.check()
    }
}
