//! The files of one format of a whole image, on a thread of its own.

use super::content::{ImageLayers, Origin, ReadXattrs};
use super::work::{Content, MadeFile, Work};
use crate::artifact::{Artifact, ArtifactKey};
use crate::blocking::{Stop, StopOnDrop};
use crate::materializer::{Input, InputArtifact, Materializer, OutputSpec};
use crate::progress::Event;
use crate::pull::{Finished, Writers};
use crate::{Digest, Error, Result};

impl Work<'_> {
    /// The files of a format of the whole image; out of the cache when all of them are there.
    pub(super) async fn files_of_image(
        &self,
        format: &dyn Materializer,
        content: &Content,
        inputs: Vec<InputArtifact>,
    ) -> Result<Vec<MadeFile>> {
        let key =
            ArtifactKey { format: format.format().of_forms(&content.forms), content: content.digest.clone() };
        let mut found = Vec::new();
        // Always in this order, so that two makers never wait for each other.
        for output in format.outputs() {
            let key = key.with_extension(output.extension);
            let what = format!("{} {}", key.format, content.digest);
            found.push((output, self.engine.telling(what, self.engine.cache.artifact(&key)).await?));
        }
        let here: Option<Vec<Finished>> = found.iter().map(present).collect();
        let cached = here.is_some();
        let files = match here {
            Some(files) => {
                // Files of layers among the inputs have been compared with their layers.
                let is_same =
                    files.first().is_some_and(|(_, file, _)| file.made().source == content.source());
                if inputs.is_empty() && !is_same {
                    for (blob, diff_id) in &content.layers {
                        let at = |e: Error| e.with_context("layer", blob.digest());
                        self.engine.check_content(blob, diff_id).await.map_err(at)?;
                    }
                }
                files
            }
            None => self.make(format, content, found, inputs).await?,
        };
        let progress = &self.engine.options.progress;
        progress.emit(Event::FormatDone { format: key.format.to_string(), cached });
        let file = |(output, artifact, cached): Finished| MadeFile {
            name: format!("{}.{}", output.stem, output.extension),
            role: output.role,
            writable: output.writable,
            format: key.with_extension(output.extension).format,
            artifact,
            diff_id: None,
            cached,
        };
        Ok(files.into_iter().map(file).collect())
    }

    /// Runs the materializer.
    async fn make(
        &self,
        format: &dyn Materializer,
        content: &Content,
        found: Vec<(OutputSpec, Artifact)>,
        inputs: Vec<InputArtifact>,
    ) -> Result<Vec<Finished>> {
        let (stop, options) = (StopOnDrop::default(), self.engine.options);
        let mut limits = options.limits.clone();
        limits.tree.share = Some(options.budget.share_until(stop.0.flag()));
        let mut out = Writers::new(self.engine.scratch(), limits.tree.clone(), stop.0.clone());
        for (output, found) in found {
            out.add(output, found)?;
        }
        let layers: &[_] = if format.input() == Input::Image { &content.layers } else { &[] };
        let (cache, scratch) = (Origin::Cache(self.engine.cache.clone()), self.engine.scratch());
        let layers = ImageLayers::new(cache, layers, ReadXattrs::Kept, limits, scratch);
        let task = Task {
            format: dyn_clone::clone_box(format),
            source: content.source(),
            layers: layers.find_files(self.formats).await,
            inputs,
            stop: stop.0.clone(),
        };
        // What is made for a call that was dropped is dropped, or kept by the cache if it was committed.
        let made = self.engine.workers.run("plyfold-make", move || task.run(out))?.await;
        made.map_err(|e| e.with_context("format", format.format().name))
    }
}

fn present((output, found): &(OutputSpec, Artifact)) -> Option<Finished> {
    match found {
        Artifact::Present(artifact) => Some((output.clone(), artifact.clone(), true)),
        Artifact::Vacant(_) => None,
    }
}

/// What the thread does.
struct Task {
    format: Box<dyn Materializer>,
    source: Option<Digest>,
    layers: ImageLayers,
    inputs: Vec<InputArtifact>,
    stop: Stop,
}

impl Task {
    fn run(self, mut out: Writers) -> Result<Vec<Finished>> {
        let name = self.format.format().name;
        let made = match self.format.input() {
            Input::Image => {
                let image = self.layers.tree(out.folder()?, &self.stop)?;
                let made = self.format.image(&image, &mut out)?;
                image.check_unchanged()?;
                made.with_losses(image.dropped_xattrs().loss())
            }
            _ => self.format.join(&self.inputs, &mut out)?,
        };
        // What was lost in the files that it is made of is not in it, either.
        let inputs = self.inputs.iter().map(|input| input.artifact.made());
        let made =
            made.with_losses(self.layers.made().chain(inputs).flat_map(|made| made.losses.iter().cloned()));
        out.commit(name, &made.with_source(self.source), &self.stop)
    }
}
