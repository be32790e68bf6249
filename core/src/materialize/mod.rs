//! Formats of an image that is in a cache: what is there is used, what is missing is made and kept.

use crate::artifact::Made;
use crate::cache::CacheProvider;
use crate::digest::chain_id;
use crate::format::Format;
use crate::layer::LayerForm;
use crate::manifest::{RawConfig, not_an_image};
use crate::materializer::{Input, InputArtifact, Materializer};
use crate::materializers::Materializers;
use crate::pull::{Engine, PullOptions, PullPolicy};
use crate::source::{ImageSource as _, RegistrySource};
use crate::worker::Workers;
use crate::{Error, ErrorKind, Result};

pub(crate) use content::{ImageLayers, Origin, ReadXattrs};
pub use work::{MadeFile, MadeImage};

use work::{Content, Work};

mod apart;
mod content;
mod make;
mod work;

/// Makes a format of a resolved image, and what it is made from. What is in the cache is not made again, of layers and
/// of whole images alike.
///
/// Nothing is fetched, and no name is looked up: the image may have lost its name, or the name stand for another one,
/// as long as its content is there. The image is [leased](CacheProvider::lease) until the result is dropped.
///
/// The last progress event is [`Event::Finished`](crate::progress::Event::Finished), always. Threads have ended when an
/// error is returned; when the future is dropped, they are asked to end, as [`Workers`] says.
///
/// # Errors
/// Those of [`Materializers::chain`]; [`Unsupported`](ErrorKind::Unsupported) for what is no image with layers;
/// [`NotFound`](ErrorKind::NotFound) when content is not there; otherwise those of the cache and of the materializers,
/// with the image in their context, the layer where it is one, and the format. Damaged content of a layer is
/// [`Corrupt`](ErrorKind::Corrupt) with [`RepairContent`](crate::Advice::RepairContent): a repair, or a pull that
/// [verifies](PullOptions::verify), mends it. No incomplete file of the format is visible then.
pub async fn materialize(
    image: &RegistrySource,
    cache: &dyn CacheProvider,
    format: &dyn Materializer,
    formats: &Materializers,
    options: &PullOptions,
) -> Result<MadeImage> {
    let operation = options.progress.operation();
    let mut chain = match formats.chain(dyn_clone::clone_box(format)).and_then(check_names) {
        Ok(chain) => chain,
        Err(e) => return operation.end(Err(e)),
    };
    chain.reverse();
    let pull = PullOptions {
        materializer: chain.first().filter(|lowest| lowest.input() == Input::Layer).cloned(),
        policy: PullPolicy::Never,
        progress: operation.progress().clone(),
        ..options.clone()
    };
    let engine = Engine {
        registry: dyn_clone::clone_box(image.registry()),
        reference: image.reference(),
        name: image.reference().clone(),
        cache: dyn_clone::clone_box(cache),
        options: &pull,
        workers: Workers::new(),
    };
    let work = Work { engine: &engine, image, formats };
    // On the heap: callers would carry all of its states in futures of their own.
    let made = Box::pin(work.run(format.format(), chain)).await;
    operation.end(engine.end(made).await)
}

/// Checks that no two files would have one name. Files of layers have names that no others can have.
fn check_names(chain: Vec<Box<dyn Materializer>>) -> Result<Vec<Box<dyn Materializer>>> {
    let mut names: Vec<(String, &'static str)> = Vec::new();
    for link in chain.iter().filter(|link| link.input() != Input::Layer) {
        for file in link.outputs() {
            let (name, format) = (format!("{}.{}", file.stem, file.extension), link.format().name);
            if let Some((_, other)) = names.iter().find(|(other, _)| *other == name) {
                let message = format!("the formats {other} and {format} have a file of one name, {name}");
                return Err(Error::new(ErrorKind::Internal, message));
            }
            names.push((name, format));
        }
    }
    Ok(chain)
}

impl Work<'_> {
    /// Makes each format of the chain, the lowest first.
    async fn run(&self, format: Format, chain: Vec<Box<dyn Materializer>>) -> Result<MadeImage> {
        // An artifact has no config that says what its layers are.
        let Some(config) = self.engine.config(self.image).await? else {
            return Err(not_an_image(self.image.raw().image()?));
        };
        let lease = self.engine.lease(self.image, Some(&config)).await?;
        let diff_ids = config.diff_ids()?;
        let digest = chain_id(&diff_ids).ok_or_else(|| {
            Error::unsupported("the image has no layers, and so no root file system")
                .with_hint("an image that was made from scratch needs a layer of files first")
        })?;
        let layers = self.image.raw().image()?.layers();
        let forms = self.engine.forms(layers)?;
        let layers = layers.iter().cloned().zip(diff_ids).collect();
        let content = Content { digest, layers, forms };
        let is_separated = chain.last().is_some_and(|top| top.separates_hash_trees());
        let mut files: Vec<MadeFile> = Vec::new();
        for link in chain {
            let own = match link.input() {
                Input::Layer => self.layers(&config, &*link).await?,
                _ => self.files_of_image(&*link, &content, inputs(&files)).await?,
            };
            files.splice(0..0, own);
        }
        if is_separated {
            files = apart::separate(files);
        }
        let made = files.iter().fold(Made::default(), |all, file| all.and(file.artifact.made()));
        Ok(MadeImage { format, files, made, lease })
    }

    /// The files of a format of single layers.
    async fn layers(&self, config: &RawConfig, format: &dyn Materializer) -> Result<Vec<MadeFile>> {
        let outputs = format.outputs();
        let layers = self.engine.layers(self.image.raw(), Some(config)).await?;
        let digits = layers.len().saturating_sub(1).to_string().len().max(2);
        let files = layers.into_iter().enumerate().map(|(index, (layer, _))| {
            let (Some(artifact), [output]) = (layer.artifact, outputs.as_slice()) else {
                return Err(Error::new(ErrorKind::Internal, format!("layer {index} was not converted")));
            };
            Ok(MadeFile {
                name: format!("layer-{index:0digits$}.{}", output.extension),
                role: output.role,
                writable: output.writable,
                format: format.format().of_form(LayerForm::of(&layer.descriptor)?),
                artifact,
                diff_id: layer.diff_id,
                cached: !layer.converted,
            })
        });
        files.collect()
    }
}

/// What the next format is made from.
fn inputs(files: &[MadeFile]) -> Vec<InputArtifact> {
    files
        .iter()
        .map(|file| {
            InputArtifact::new(file.name.clone(), file.role, file.artifact.clone(), file.diff_id.clone())
        })
        .collect()
}
