//! The files of one format of a whole image, on a thread of its own.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::sink::{Slot, Target, Writers, cancelled};
use super::work::{Content, MadeFile, Work};
use crate::artifact::{Artifact, ArtifactHandle, ArtifactKey};
use crate::cache::CacheProvider;
use crate::layer::{Hashing, LayerLimits, LayerOptions, LayerTar, TreeLimits};
use crate::materializer::{Input, InputArtifact, Materializer, OutputSpec};
use crate::progress::Event;
use crate::tree::MergedTree;
use crate::{BlobRange, BlobReader, Descriptor, Digest, Error, ErrorKind, Result};

impl Work<'_> {
    /// The files of a format of the whole image; out of the cache when all of them are there.
    pub(super) async fn files_of_image(
        &self,
        format: &dyn Materializer,
        content: &Content,
        inputs: Vec<InputArtifact>,
    ) -> Result<Vec<MadeFile>> {
        let key = ArtifactKey { format: format.format(), content: content.digest.clone() };
        let mut found = Vec::new();
        // Always in this order, so that two makers never wait for each other.
        for output in format.outputs() {
            let key = key.with_extension(output.extension);
            let what = format!("{} {}", key.format, content.digest);
            found.push((output, self.engine.telling(what, self.engine.cache.artifact(&key)).await?));
        }
        let is_here = found.iter().all(|(_, found)| matches!(found, Artifact::Present(_)));
        let files = if is_here { here(found) } else { self.make(format, content, found, inputs).await? };
        let progress = &self.engine.options.progress;
        progress.emit(Event::FormatDone { format: key.format.to_string(), cached: is_here });
        let file = |(output, artifact, cached): (OutputSpec, _, _)| MadeFile {
            name: format!("{}.{}", output.stem, output.extension),
            role: output.role,
            format: key.with_extension(output.extension).format,
            artifact,
            diff_id: None,
            cached,
        };
        Ok(files.into_iter().map(file).collect())
    }

    /// Runs the materializer. What is there already of its files is made again and dropped: the bytes are the same.
    async fn make(
        &self,
        format: &dyn Materializer,
        content: &Content,
        found: Vec<(OutputSpec, Artifact)>,
        inputs: Vec<InputArtifact>,
    ) -> Result<Vec<File>> {
        let is_over = Arc::new(AtomicBool::new(false));
        let _guard = Over(Arc::clone(&is_over));
        let options = self.engine.options;
        let share = Some(options.budget.share_until(Arc::clone(&is_over)));
        let limits = LayerLimits {
            tree: TreeLimits { share, ..options.limits.tree.clone() },
            ..options.limits.clone()
        };
        let scratch = self.scratch.clone().or_else(|| self.engine.cache.scratch());
        let mut sink = Writers { slots: Vec::new(), scratch, limits: limits.tree.clone() };
        let mut present = Vec::new();
        for (output, found) in found {
            let target = match found {
                Artifact::Vacant(writer) => Target::Artifact(writer),
                Artifact::Present(artifact) => {
                    present.push((output.clone(), artifact, true));
                    Target::Spare(sink.spare()?)
                }
            };
            sink.slots.push(Slot::new(output, target, Arc::clone(&is_over)));
        }
        let task = Task {
            format: dyn_clone::clone_box(format),
            cache: self.engine.cache.clone(),
            layers: content.layers.clone(),
            inputs,
            limits,
            is_over,
            runtime: Handle::current(),
        };
        let (done, outcome) = oneshot::channel();
        // The receiver is gone when the call was dropped; what was made is dropped with the message, or kept by the
        // cache if it was committed.
        self.engine.workers.start("plyfold-make", move || drop(done.send(task.run(sink))))?;
        let panicked = |e| Error::new(ErrorKind::Internal, "a materializer's thread panicked").with_source(e);
        let mut files = outcome.await.map_err(panicked)??;
        files.extend(present);
        let order: Vec<_> = format.outputs().iter().map(|output| output.role).collect();
        files.sort_by_key(|(output, _, _)| order.iter().position(|role| *role == output.role));
        Ok(files)
    }
}

/// A finished file, and whether it was there before.
type File = (OutputSpec, Box<dyn ArtifactHandle>, bool);

fn here(found: Vec<(OutputSpec, Artifact)>) -> Vec<File> {
    let present = found.into_iter().filter_map(|(output, found)| match found {
        Artifact::Present(artifact) => Some((output, artifact, true)),
        Artifact::Vacant(_) => None,
    });
    present.collect()
}

/// Cancels the thread's work when the future that waits for it is dropped.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the thread does.
struct Task {
    format: Box<dyn Materializer>,
    cache: Box<dyn CacheProvider>,
    layers: Vec<(Descriptor, Digest)>,
    inputs: Vec<InputArtifact>,
    limits: LayerLimits,
    is_over: Arc<AtomicBool>,
    runtime: Handle,
}

impl Task {
    fn run(self, mut sink: Writers) -> Result<Vec<File>> {
        let made = match self.format.input() {
            Input::Image => self.format.image(&self.tree(sink.folder()?)?, &mut sink),
            _ => self.format.join(&self.inputs, &mut sink),
        };
        let made = made.map_err(|e| e.with_context("format", self.format.format().name))?;
        self.check()?;
        if let Some(file) = sink.slots.iter().find(|slot| !slot.is_asked) {
            let message = format!(
                "the format {} lists a file as its {}, and has not made it",
                self.format.format().name,
                file.role()
            );
            return Err(Error::new(ErrorKind::Internal, message));
        }
        let mut files = Vec::new();
        // The first file last: it is the one that others refer to.
        for slot in sink.slots.into_iter().rev() {
            let (output, target) = slot.into_parts();
            if let Target::Artifact(writer) = target {
                files.push((output, writer.commit(&made)?, false));
            }
        }
        Ok(files)
    }

    /// The whole image. A bad layer is an error here, before anything is written.
    fn tree(&self, scratch: &Path) -> Result<MergedTree> {
        let layers = self.layers.iter().map(|(layer, diff_id)| {
            let tar = self.open(layer, diff_id);
            tar.map_err(|e| e.with_context("layer", layer.digest()))
        });
        MergedTree::read(layers, self.limits.tree.clone(), scratch)
    }

    /// A layer out of the cache, whatever the image's own registry is.
    fn open(&self, layer: &Descriptor, diff_id: &Digest) -> Result<LayerTar> {
        self.check()?;
        let bytes = async { Ok(self.cache.open(layer, BlobRange::FULL).await?.into_reader()) };
        let bytes: Result<BlobReader> = self.runtime.block_on(bytes);
        // The cache checks the blob's digest.
        let options = LayerOptions {
            diff_id: Some(diff_id.clone()),
            hashing: Hashing::Tar,
            limits: self.limits.clone(),
            ..LayerOptions::default()
        };
        LayerTar::new(Wanted { bytes: bytes?, is_over: Arc::clone(&self.is_over) }, options)
    }

    fn check(&self) -> Result<()> {
        if self.is_over.load(Ordering::Relaxed) {
            return Err(cancelled());
        }
        Ok(())
    }
}

/// The bytes of a layer, until the future that waits for the file is dropped.
struct Wanted {
    bytes: BlobReader,
    is_over: Arc<AtomicBool>,
}

impl Read for Wanted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.is_over.load(Ordering::Relaxed) {
            return Err(cancelled().into());
        }
        self.bytes.read(buf)
    }
}
