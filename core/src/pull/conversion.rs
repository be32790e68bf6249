//! A layer on its way through a materializer, on a thread of its own.

use std::fs::File;
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::engine::Engine;
use crate::format::Output;
use crate::layer::{Hashing, LayerOptions, LayerTar, TreeLimits};
use crate::{
    ArtifactWriter, BlobReader, CacheProvider as _, Digest, Error, ErrorKind, Made, Result, Role, Sink,
};

/// Chunks between a layer's bytes and its conversion. Chunks are at most some hundred KiB in every backend.
const IN_FLIGHT: usize = 8;

/// A running conversion, and the way for its bytes. Dropping it ends the thread at its next step: its input ends in an
/// error then, and its output takes no more.
///
/// It waits for a download or for files that are read: in a thread of the runtime's pool it would keep them waiting for
/// such a thread.
pub(super) struct Conversion {
    input: Option<mpsc::Sender<Result<Bytes>>>,
    outcome: oneshot::Receiver<Result<Converted>>,
    pub(super) diff_id: Digest,
    given_up: Arc<AtomicBool>,
    deferred: Arc<AtomicBool>,
}

/// An artifact that is verified and not yet visible, and what its materializer has told.
pub(super) type Converted = (Box<dyn ArtifactWriter>, Made);

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

    /// The artifact, verified against its `diff_id` but not yet visible.
    pub(super) async fn finish(self) -> Result<Converted> {
        self.finish_or_defer()
            .await?
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a conversion was put off"))
    }

    /// As [`Self::finish`]; `None` when it has [ended](WhenFull::Defer) because no memory was left.
    pub(super) async fn finish_or_defer(mut self) -> Result<Option<Converted>> {
        self.input = None;
        let broken = |e| Error::new(ErrorKind::Internal, "a conversion thread panicked").with_source(e);
        let made = (&mut self.outcome).await.map_err(broken)?;
        if made.is_err() && self.deferred.load(Ordering::Relaxed) { Ok(None) } else { made.map(Some) }
    }
}

impl Drop for Conversion {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

impl Engine<'_> {
    /// Starts converting a layer's bytes, which come one by one, into `artifact`.
    ///
    /// # Errors
    /// `Io` when no thread can be started.
    pub(super) fn convert(
        &self,
        mut artifact: Box<dyn ArtifactWriter>,
        diff_id: Digest,
        when_full: WhenFull,
    ) -> Result<Conversion> {
        let materializer = self.options.materializer.clone();
        let (given_up, deferred) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut limits = self.options.limits.clone();
        let deferral = (when_full == WhenFull::Defer).then(|| Arc::clone(&deferred));
        limits.tree.share = Some(self.options.budget.part(Arc::clone(&given_up), deferral));
        // The sender of the bytes checks the blob's digest.
        let options = LayerOptions {
            diff_id: Some(diff_id.clone()),
            hashing: Hashing::Tar,
            limits,
            ..LayerOptions::default()
        };
        let (input, bytes) = mpsc::channel(IN_FLIGHT);
        let (is_over, scratch) = (Arc::clone(&given_up), self.cache.scratch());
        let limits = options.limits.tree.clone();
        let work = move || {
            let mut tar = LayerTar::new(BlobReader::new(bytes), options)?;
            let made = match materializer {
                Some(materializer) => {
                    let out = Wanted { output: artifact.output(), is_over };
                    materializer.layer(&mut tar, &mut Conversions { out, scratch, limits })?
                }
                None => Made::default(),
            };
            // The engine checks the diff_id at the end of the tar, even if a materializer does not read to the end.
            tar.finish()?;
            Ok((artifact, made))
        };
        let (done, outcome) = oneshot::channel();
        // The receiver is gone when the conversion was dropped; its output is dropped with the message.
        self.workers.start("plyfold-convert", move || drop(done.send(work())))?;
        Ok(Conversion { input: Some(input), outcome, diff_id, given_up, deferred })
    }
}

/// Where the file of one layer is written.
struct Conversions<'a> {
    out: Wanted<'a>,
    /// The cache's own folder for temporary files.
    scratch: Option<PathBuf>,
    limits: TreeLimits,
}

impl Sink for Conversions<'_> {
    fn output(&mut self, role: Role) -> Result<&mut dyn Output> {
        Sink::output(&mut self.out, role)
    }

    fn scratch(&mut self) -> Result<File> {
        let Some(folder) = &self.scratch else {
            return Err(Error::config("the cache has no folder for the temporary files of this format"));
        };
        let file = tempfile::tempfile_in(folder);
        file.map_err(|e| Error::io("making a temporary file", e).with_context("path", folder.display()))
    }

    fn limits(&self) -> TreeLimits {
        self.limits.clone()
    }
}

/// An output that refuses writes when the conversion is cancelled: a materializer may have much to write after it has
/// read all.
struct Wanted<'a> {
    output: &'a mut dyn Output,
    is_over: Arc<AtomicBool>,
}

impl Wanted<'_> {
    fn output(&mut self) -> io::Result<&mut dyn Output> {
        if self.is_over.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled, "the conversion was cancelled").into());
        }
        Ok(self.output)
    }
}

impl Read for Wanted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.output()?.read(buf)
    }
}

impl Write for Wanted<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.output()?.write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.output()?.write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output()?.flush()
    }
}

impl Seek for Wanted<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.output()?.seek(position)
    }
}

impl Output for Wanted<'_> {
    fn set_len(&mut self, length: u64) -> io::Result<()> {
        self.output()?.set_len(length)
    }
}
