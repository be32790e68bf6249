//! The files of one format of a whole image, on a thread of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::sink::{Slot, Target, Writers};
use super::work::{MadeFile, Work};
use crate::artifact::{Artifact, ArtifactHandle, ArtifactKey, ArtifactWriter, Made};
use crate::layer::{LayerLimits, TreeLimits};
use crate::materializer::{Input, InputArtifact, Materializer, OutputSpec};
use crate::progress::Event;
use crate::source::{ImageSourceExt as _, RegistrySource};
use crate::tree::MergedTree;
use crate::{Digest, Error, ErrorKind, Result};

impl Work<'_> {
    /// The files of a format of the whole image; out of the cache when all of them are there.
    pub(super) async fn files_of_image(
        &self,
        format: &dyn Materializer,
        content: &Digest,
        inputs: Vec<InputArtifact>,
    ) -> Result<Vec<MadeFile>> {
        let key = ArtifactKey { format: format.format(), content: content.clone() };
        let mut found = Vec::new();
        // Always in this order, so that two makers never wait for each other.
        for output in format.outputs() {
            let key = key.with_extension(output.extension);
            let what = format!("{} {content}", key.format);
            found.push((output, self.engine.telling(what, self.engine.cache.artifact(&key)).await?));
        }
        let is_here = found.iter().all(|(_, found)| matches!(found, Artifact::Present(_)));
        let files = if is_here { here(found) } else { self.make(format, found, inputs).await? };
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
            image: self.image.clone(),
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

/// Tells the thread that nobody waits for it any more.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the thread does.
struct Task {
    format: Box<dyn Materializer>,
    image: RegistrySource,
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
        let mut files = Vec::new();
        // The first file last: it is the one that others refer to.
        for slot in sink.slots.into_iter().rev() {
            let (output, target) = slot.into_parts();
            if let Target::Artifact(writer) = target {
                files.push((output, commit(writer, &made)?, false));
            }
        }
        Ok(files)
    }

    /// The whole image. A bad layer is an error here, before anything is written.
    fn tree(&self, scratch: &PathBuf) -> Result<MergedTree> {
        let layers = (0..self.image.layers()?.len()).map(|layer| {
            self.check()?;
            self.runtime.block_on(self.image.layer_tar_within(layer, &self.limits))
        });
        MergedTree::read(layers, self.limits.tree.clone(), scratch)
    }

    fn check(&self) -> Result<()> {
        if self.is_over.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled, "the conversion was cancelled"));
        }
        Ok(())
    }
}

fn commit(writer: Box<dyn ArtifactWriter>, made: &Made) -> Result<Box<dyn ArtifactHandle>> {
    writer.commit(made)
}
