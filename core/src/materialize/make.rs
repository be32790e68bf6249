//! The files of one format of a whole image, on a thread of its own.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use tokio::runtime::Handle;

use super::work::{Content, MadeFile, Work};
use crate::artifact::{Artifact, ArtifactKey};
use crate::blocking::{Stop, StopOnDrop};
use crate::cache::{CacheProvider, content};
use crate::layer::{Hashing, LayerForm, LayerLimits, LayerOptions, LayerTar};
use crate::materializer::{Input, InputArtifact, Materializer, OutputSpec};
use crate::progress::Event;
use crate::pull::{Finished, Writers};
use crate::tree::MergedTree;
use crate::{Advice, BlobRange, Descriptor, Digest, Error, Result};

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
            Some(files) => files,
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
        let task = Task {
            format: dyn_clone::clone_box(format),
            cache: self.engine.cache.clone(),
            layers: content.layers.clone(),
            inputs,
            limits,
            stop: stop.0.clone(),
            runtime: Handle::current(),
            scratch: self.engine.scratch(),
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
    cache: Box<dyn CacheProvider>,
    layers: Vec<(Descriptor, Digest)>,
    inputs: Vec<InputArtifact>,
    limits: LayerLimits,
    stop: Stop,
    runtime: Handle,
    scratch: Option<PathBuf>,
}

impl Task {
    fn run(self, mut out: Writers) -> Result<Vec<Finished>> {
        let name = self.format.format().name;
        let made = match self.format.input() {
            Input::Image => self.format.image(&self.tree(out.folder()?)?, &mut out),
            _ => self.format.join(&self.inputs, &mut out),
        };
        out.commit(name, &made?, &self.stop)
    }

    /// The whole image. A bad layer is an error here, before anything is written.
    fn tree(&self, scratch: &Path) -> Result<MergedTree> {
        // The one that is being read.
        let current = Cell::new(None);
        let layers = self.layers.iter().map(|(layer, diff_id)| {
            current.set(Some(layer.digest()));
            self.open(layer, diff_id)
        });
        let tree = MergedTree::read(layers, self.limits.tree.clone(), scratch);
        tree.map_err(|e| {
            let Some(layer) = current.get() else { return e };
            let e = e.with_context("layer", layer);
            // Nothing is fetched in its place here.
            if content::is_damage_of(layer, &e) { e.with_advice(Advice::RepairContent) } else { e }
        })
    }

    /// A layer out of the cache, whatever the image's own registry is.
    fn open(&self, layer: &Descriptor, diff_id: &Digest) -> Result<LayerTar> {
        self.stop.check()?;
        let bytes = async { Ok::<_, Error>(self.cache.open(layer, BlobRange::FULL).await?.into_reader()) };
        let bytes = self.runtime.block_on(bytes)?;
        // The cache checks the blob's digest.
        let options = LayerOptions {
            diff_id: Some(diff_id.clone()),
            hashing: Hashing::Tar,
            limits: self.limits.clone(),
            form: LayerForm::of(layer)?,
            layout: self.cache.layout().map(Path::to_owned),
            scratch: self.scratch.clone(),
            ..LayerOptions::default()
        };
        LayerTar::new(self.stop.reader(bytes), options)
    }
}
