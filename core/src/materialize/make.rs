//! The files of one format of a whole image, on a thread of its own.

use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};

use tokio::runtime::Handle;

use super::work::{Content, MadeFile, Work};
use crate::artifact::{Artifact, ArtifactHandle, ArtifactKey};
use crate::blocking::{Stop, StopOnDrop};
use crate::cache::{CacheProvider, content};
use crate::layer::{Hashing, LayerForm, LayerLimits, LayerOptions, LayerTar};
use crate::materializer::{Input, InputArtifact, Materializer, OutputSpec};
use crate::progress::Event;
use crate::pull::{Finished, Writers};
use crate::tree::{LayerFile, LayerReader, LayerSource, MergedTree};
use crate::{Advice, BlobRange, Descriptor, Digest, Error, ErrorKind, Options, Result};

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
        let layers = match format.input() {
            Input::Image => self.layers_of(content).await,
            _ => Vec::new(),
        };
        let task = Task {
            format: dyn_clone::clone_box(format),
            source: content.source(),
            cache: self.engine.cache.clone(),
            layers,
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

/// A layer, and the file that some format has made of it.
struct Layer {
    blob: Descriptor,
    diff_id: Digest,
    file: Option<(Box<dyn ArtifactHandle>, LayerReader)>,
}

impl Work<'_> {
    /// The layers, each with a file out of the cache if there is one that can be read back.
    async fn layers_of(&self, content: &Content) -> Vec<Layer> {
        let mut readers: Vec<_> = LayerReader::linked().copied().collect();
        readers.sort_by_key(|reader| reader.format);
        let mut formats = Vec::new();
        for reader in readers {
            // Another crate's format of this name is not what the reader reads.
            let mut entries = self.formats.iter();
            let is_known =
                entries.any(|entry| (entry.name, entry.package) == (reader.format, reader.package));
            if is_known && let Ok(format) = self.formats.open(reader.format, &Options::default()) {
                formats.push((format.format(), reader));
            }
        }
        let mut layers = Vec::with_capacity(content.layers.len());
        for (blob, diff_id) in &content.layers {
            let mut file = None;
            for (format, reader) in &formats {
                let key = ArtifactKey::layer(format.clone(), diff_id.clone());
                match self.engine.cache.find_artifact(&key).await {
                    // That of another blob may have other content: an image alone says that they are the same.
                    Ok(Some(found))
                        if found.path().is_some() && found.made().source.as_ref() == Some(blob.digest()) =>
                    {
                        file = Some((found, *reader));
                        break;
                    }
                    Ok(_) => {}
                    // The layer itself is there.
                    Err(e) => tracing::debug!("looking for the {} of {diff_id}: {e}", reader.format),
                }
            }
            layers.push(Layer { blob: blob.clone(), diff_id: diff_id.clone(), file });
        }
        layers
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
    cache: Box<dyn CacheProvider>,
    layers: Vec<Layer>,
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
            Input::Image => {
                let image = self.tree(out.folder()?)?;
                let made = self.format.image(&image, &mut out)?;
                image.check_unchanged()?;
                made.with_losses(image.dropped_xattrs().loss())
            }
            _ => self.format.join(&self.inputs, &mut out)?,
        };
        // What was lost in the files that it is made of is not in it, either.
        let layers = self.layers.iter().filter_map(|layer| Some(layer.file.as_ref()?.0.made()));
        let inputs = self.inputs.iter().map(|input| input.artifact.made());
        let made = made.with_losses(layers.chain(inputs).flat_map(|made| made.losses.iter().cloned()));
        out.commit(name, &made.with_source(self.source), &self.stop)
    }

    /// The whole image. A bad layer is an error here, before anything is written.
    fn tree(&self, scratch: &Path) -> Result<MergedTree> {
        if self.layers.iter().any(|layer| layer.file.is_some()) {
            match self.read(scratch, true) {
                // It was damaged, or removed since it was found.
                Err(e) if *e.kind() != ErrorKind::Cancelled => {
                    tracing::warn!(
                        "the layers are read again, as a file that was made of one cannot be used: {e}"
                    );
                }
                read => return read,
            }
        }
        self.read(scratch, false)
    }

    /// The whole image, from the files that were made of layers where `by_files`.
    fn read(&self, scratch: &Path, by_files: bool) -> Result<MergedTree> {
        // The one that is being read.
        let current = Cell::new(None);
        let layers = self.layers.iter().map(|layer| {
            current.set(Some(layer.blob.digest()));
            self.stop.check()?;
            match &layer.file {
                Some((file, reader)) if by_files => file_of(&**file, *reader, &layer.diff_id),
                _ => self.open(&layer.blob, &layer.diff_id).map(LayerSource::from),
            }
        });
        let tree = MergedTree::from_sources(layers, self.limits.tree.clone(), scratch);
        tree.map_err(|e| {
            let Some(layer) = current.get() else { return e };
            let e = e.with_context("layer", layer);
            // Nothing is fetched in its place here.
            if content::is_damage_of(layer, &e) { e.with_advice(Advice::RepairContent) } else { e }
        })
    }

    /// A layer out of the cache, whatever the image's own registry is.
    fn open(&self, layer: &Descriptor, diff_id: &Digest) -> Result<LayerTar> {
        let opened = async {
            let mut blob = self.cache.open(layer, BlobRange::FULL).await?;
            Ok::<_, Error>((blob.take_file(), blob.into_reader()))
        };
        let (file, bytes) = self.runtime.block_on(opened)?;
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
        let bytes = self.stop.reader(bytes);
        match file {
            Some(file) => LayerTar::in_file(bytes, file, options),
            None => LayerTar::new(bytes, options),
        }
    }
}

/// The file that some format has made of a layer.
fn file_of(file: &dyn ArtifactHandle, reader: LayerReader, diff_id: &Digest) -> Result<LayerSource> {
    let path = file.path().ok_or_else(|| Error::not_found("the file of a layer is not on this machine"))?;
    let at = |e: Error| e.with_context("artifact", path.display());
    let opened = File::open(path).map_err(|e| at(Error::io("opening the file of a layer", e)))?;
    let layer = LayerFile::new(opened, reader, Some(diff_id.clone())).map_err(at)?;
    if layer.size() != file.size() {
        return Err(at(Error::corrupt(format!("a file has {} bytes, not {}", layer.size(), file.size()))));
    }
    Ok(LayerSource::File(layer))
}
