//! A layer on its way through a materializer, on a thread of its own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::engine::Engine;
use super::writers::Writers;
use crate::blocking::{Stop, StopOnDrop};
use crate::layer::{Hashing, LayerForm, LayerOptions, LayerTar};
use crate::{Artifact, ArtifactWriter, BlobReader, Digest, Made, Materializer, OutputSpec, Result, Role};

/// Chunks between a layer's bytes and its conversion. Chunks are at most some hundred KiB in every backend.
const IN_FLIGHT: usize = 8;

/// The right to make the artifact of a layer, and what makes it.
pub(super) struct Vacant {
    pub(super) writer: Box<dyn ArtifactWriter>,
    pub(super) diff_id: Digest,
    pub(super) materializer: Box<dyn Materializer>,
    /// What the layer is, if it is no tar.
    pub(super) form: Option<&'static LayerForm>,
}

/// A running conversion, and the way for its bytes, if they are sent. Dropping it ends the thread at its next step: its input ends in an
/// error then, and its output takes no more.
///
/// It waits for a download or for files that are read: in a thread of the runtime's pool it would keep them waiting for
/// such a thread.
pub(super) struct Conversion {
    input: Option<mpsc::Sender<Result<Bytes>>>,
    outcome: BoxFuture<'static, Result<Converted>>,
    deferred: Arc<AtomicBool>,
    _stop: StopOnDrop,
}

/// An artifact that is verified and not yet visible, and what its materializer has told.
pub(super) type Converted = (Writers, Made);

/// What a conversion does when no memory is left for its tree, and another one goes on beyond the budget.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum WhenFull {
    /// It ends in an error: its bytes come over a network, and a connection that waits may be the one that the other
    /// conversion waits for.
    Defer,
    /// It waits: its bytes are here.
    Wait,
}

impl Conversion {
    /// Hands over bytes, or the error that ends them; whether more are wanted. A conversion that has failed says why in
    /// its [outcome](Self::finish).
    pub(super) async fn send(&mut self, bytes: Result<Bytes>) -> bool {
        if let Some(input) = &self.input
            && input.send(bytes).await.is_err()
        {
            self.input = None;
        }
        self.input.is_some()
    }

    /// Marks the end of the bytes.
    pub(super) async fn end(&mut self) {
        // An empty chunk is the end.
        self.send(Ok(Bytes::new())).await;
        self.input = None;
    }

    /// The artifact, verified against its `diff_id` but not yet visible; `None` when the conversion has
    /// [ended](WhenFull::Defer) because no memory was left.
    pub(super) async fn finish(mut self) -> Result<Option<Converted>> {
        self.input = None;
        let made = self.outcome.await;
        if made.is_err() && self.deferred.load(Ordering::Relaxed) { Ok(None) } else { made.map(Some) }
    }
}

impl Engine<'_> {
    /// Starts converting a layer's bytes, which are sent.
    ///
    /// # Errors
    /// `Io` when no thread can be started.
    pub(super) fn convert(&self, vacant: Vacant, when_full: WhenFull) -> Result<Conversion> {
        let (input, bytes) = mpsc::channel(IN_FLIGHT);
        let conversion = self.convert_from(
            |_, options| LayerTar::new(BlobReader::new(bytes), options),
            vacant,
            when_full,
        )?;
        Ok(Conversion { input: Some(input), ..conversion })
    }

    /// Starts converting a layer that the conversion reads itself.
    ///
    /// # Errors
    /// As [`convert`](Self::convert).
    pub(super) fn convert_from(
        &self,
        open: impl FnOnce(&Stop, LayerOptions) -> Result<LayerTar>,
        vacant: Vacant,
        when_full: WhenFull,
    ) -> Result<Conversion> {
        let Vacant { writer, diff_id, materializer, form } = vacant;
        let (stop, deferred) = (StopOnDrop::default(), Arc::new(AtomicBool::new(false)));
        let mut limits = self.options.limits.clone();
        let deferral = (when_full == WhenFull::Defer).then(|| Arc::clone(&deferred));
        limits.tree.share = Some(self.options.budget.part(stop.0.flag(), deferral));
        let mut out = Writers::new(self.scratch(), limits.tree.clone(), stop.0.clone());
        let output = materializer.outputs().into_iter().next();
        let image = || OutputSpec::new(Role::Image, materializer.format().extension);
        out.add(output.unwrap_or_else(image), Artifact::Vacant(writer))?;
        // The sender of the bytes checks the blob's digest.
        let options = LayerOptions {
            diff_id: Some(diff_id),
            hashing: Hashing::Tar,
            limits,
            form,
            layout: self.cache.layout().map(Path::to_owned),
            scratch: self.scratch(),
            ..LayerOptions::default()
        };
        let (name, mut tar) = (materializer.format().name, open(&stop.0, options)?);
        let work = move || {
            let made = materializer.layer(&mut tar, &mut out)?;
            // The engine checks the diff_id at the end of the tar, even if a materializer does not read to the end.
            tar.finish()?;
            Ok((out, made))
        };
        let made = self.workers.run("plyfold-convert", work)?;
        let outcome = Box::pin(async move { made.await.map_err(|e| e.with_context("format", name)) });
        Ok(Conversion { input: None, outcome, deferred, _stop: stop })
    }
}
