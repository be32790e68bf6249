//! A layer on its way through a materializer, on a thread of its own.

use std::io::Read;
use std::thread;

use tokio::sync::oneshot;

use super::Engine;
use crate::cache::ArtifactWriter;
use crate::layer::{Hashing, LayerOptions, LayerTar};
use crate::{Digest, Error, ErrorKind, Result};

/// A running conversion. Dropping it leaves the thread to end by itself: its input ends in an error then.
///
/// It waits for a download or for files that are read: in a thread of the runtime's pool it would keep them waiting for
/// such a thread.
pub(super) struct Conversion(oneshot::Receiver<Result<Box<dyn ArtifactWriter>>>);

impl Conversion {
    /// The artifact, verified against its `diff_id` but not yet visible.
    pub(super) async fn finish(self) -> Result<Box<dyn ArtifactWriter>> {
        let broken = |e| Error::new(ErrorKind::Internal, "a conversion thread broke").with_source(e);
        self.0.await.map_err(broken)?
    }
}

impl Engine<'_> {
    /// Starts converting a layer's bytes into `artifact`.
    ///
    /// # Errors
    /// `Io` when no thread can be started.
    pub(super) fn convert(
        &self,
        source: impl Read + Send + 'static,
        mut artifact: Box<dyn ArtifactWriter>,
        diff_id: Digest,
    ) -> Result<Conversion> {
        let materializer = self.options.materializer.clone();
        // Whoever hands over the bytes checks the blob's digest.
        let options = LayerOptions {
            diff_id: Some(diff_id),
            hashing: Hashing::Tar,
            limits: self.options.limits.clone(),
            ..LayerOptions::default()
        };
        let work = move || {
            let mut tar = LayerTar::new(source, options)?;
            if let Some(materializer) = materializer {
                materializer.layer(&mut tar, artifact.output())?;
            }
            // The verdict is the engine's, whatever a materializer forgets: the tar ends as its diff_id says.
            tar.finish()?;
            Ok(artifact)
        };
        let (done, outcome) = oneshot::channel();
        let thread = thread::Builder::new().name("plyfold-convert".to_owned());
        // Nobody listens when the conversion was dropped; what it has made goes with the message.
        let started = thread.spawn(move || drop(done.send(work())));
        started.map_err(|e| Error::io("starting a thread", e))?;
        Ok(Conversion(outcome))
    }
}
