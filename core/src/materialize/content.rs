//! The layers of an image: their blobs, and the files that formats have made of them.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use futures_util::FutureExt as _;
use tokio::runtime::Handle;

use crate::artifact::{ArtifactHandle, ArtifactKey, Made};
use crate::blocking::Stop;
use crate::cache::{CacheProvider, content, gzip_index};
use crate::layer::{Hashing, LayerForm, LayerLimits, LayerOptions, LayerTar};
use crate::materializers::Materializers;
use crate::progress::Progress;
use crate::pull::{Retry, Row};
use crate::resumed::BlobOpener;
use crate::source::ImageSource;
use crate::stored_blob::StoredBlob;
use crate::tree::{LayerFile, LayerReader, LayerSource, MergedTree};
use crate::worker::cores;
use crate::{Advice, BlobRange, Descriptor, Digest, Error, ErrorKind, Options, Result};

/// The attributes that are read of files.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ReadXattrs {
    /// As [`MergedTree::with_every_xattr`].
    Every,
    /// As [`MergedTree::from_sources`].
    Kept,
}

/// Where blobs are read.
#[derive(Debug)]
pub(crate) enum Origin {
    /// A cache, whatever the image's own registry is.
    Cache(Box<dyn CacheProvider>),
    /// The image's own source; what happens after a failed attempt.
    Source(Box<dyn ImageSource>, Retry),
}

/// The layers of an image, bottom first, as they are found.
#[derive(Debug)]
pub(crate) struct ImageLayers {
    origin: Origin,
    layers: Vec<Layer>,
    xattrs: ReadXattrs,
    limits: LayerLimits,
    scratch: Option<PathBuf>,
    runtime: Handle,
}

/// A layer, and the file that some format has made of it.
#[derive(Debug)]
struct Layer {
    blob: Descriptor,
    diff_id: Digest,
    file: Option<(Box<dyn ArtifactHandle>, LayerReader)>,
}

impl ImageLayers {
    /// The layers, with their `diff_id`s, without files that were made of them.
    pub(crate) fn new(
        origin: Origin,
        layers: &[(Descriptor, Digest)],
        xattrs: ReadXattrs,
        limits: LayerLimits,
        scratch: Option<PathBuf>,
    ) -> Self {
        let layer = |(blob, diff_id): &(Descriptor, Digest)| Layer {
            blob: blob.clone(),
            diff_id: diff_id.clone(),
            file: None,
        };
        let layers = layers.iter().map(layer).collect();
        Self { origin, layers, xattrs, limits, scratch, runtime: Handle::current() }
    }

    /// Looks in the cache for a file of each layer that can be read back.
    pub(crate) async fn find_files(mut self, known: &Materializers) -> Self {
        let Origin::Cache(cache) = &self.origin else { return self };
        let mut readers: Vec<_> = LayerReader::linked().copied().collect();
        readers.sort_by_key(|reader| reader.format);
        let mut formats = Vec::new();
        for reader in readers {
            // Another crate's format of this name is not what the reader reads.
            let mut entries = known.iter();
            let is_known =
                entries.any(|entry| (entry.name, entry.package) == (reader.format, reader.package));
            if is_known && let Ok(format) = known.open(reader.format, &Options::default()) {
                formats.push((format.format(), reader));
            }
        }
        for layer in &mut self.layers {
            for (format, reader) in &formats {
                let key = ArtifactKey::layer(format.clone(), layer.diff_id.clone());
                match cache.find_artifact(&key).await {
                    Ok(Some(found)) if is_usable(&*found, &layer.blob, self.xattrs) => {
                        layer.file = Some((found, *reader));
                        break;
                    }
                    Ok(_) => {}
                    // The layer itself is there.
                    Err(e) => tracing::debug!("looking for the {} of {}: {e}", reader.format, layer.diff_id),
                }
            }
        }
        self
    }

    /// What is known of the files that the image is read from.
    pub(crate) fn made(&self) -> impl Iterator<Item = &Made> {
        self.layers.iter().filter_map(|layer| Some(layer.file.as_ref()?.0.made()))
    }

    /// The whole image. A bad layer is an error here, before anything is written. For a thread that may wait.
    pub(crate) fn tree(&self, scratch: &Path, stop: &Stop) -> Result<MergedTree> {
        let used = Cell::new(false);
        match self.read(scratch, stop, Some(&used)) {
            // What was used was damaged, or removed since it was found.
            Err(e) if used.get() && *e.kind() != ErrorKind::Cancelled => {
                tracing::warn!(
                    "the layers are read again, as a file that was made of one, or its index, cannot be used: {e}"
                );
                self.read(scratch, stop, None)
            }
            read => read,
        }
    }

    /// The whole image, by the files that were made of layers and the indexes of blobs, unless `used` is `None`: it says
    /// afterwards whether there were any.
    fn read(&self, scratch: &Path, stop: &Stop, used: Option<&Cell<bool>>) -> Result<MergedTree> {
        // The one that is being read.
        let current = Cell::new(None);
        let layers = self.layers.iter().map(|layer| {
            current.set(Some(&layer.blob));
            stop.check()?;
            match (&layer.file, used) {
                (Some((file, reader)), Some(used)) => {
                    used.set(true);
                    file_of(&**file, *reader, &layer.diff_id)
                }
                _ => self.open(&layer.blob, &layer.diff_id, stop, used).map(LayerSource::from),
            }
        });
        let limits = self.limits.tree.clone();
        let tree = match self.xattrs {
            ReadXattrs::Every => MergedTree::with_every_xattr(layers, limits, scratch),
            ReadXattrs::Kept => MergedTree::from_sources(layers, limits, scratch),
        };
        tree.map_err(|e| {
            let Some(layer) = current.get() else { return e };
            let e = self.damage_or(layer, e).with_context("layer", layer.digest());
            // Nothing is fetched in its place here.
            if content::is_damage_of(layer.digest(), &e) { e.with_advice(Advice::RepairContent) } else { e }
        })
    }

    /// Why a layer cannot be read: damage of its blob, if there is any where the blob's digest was not checked.
    fn damage_or(&self, layer: &Descriptor, error: Error) -> Error {
        match &self.origin {
            Origin::Cache(cache) if !content::is_damage_of(layer.digest(), &error) => {
                self.runtime.block_on(content::verify_after(&**cache, layer, error))
            }
            _ => error,
        }
    }

    /// A layer's blob: its content is compared with the `diff_id`, its digest with what a stream of it yields.
    /// By the blob's index, where it has one and `used` is there to say so.
    fn open(
        &self,
        layer: &Descriptor,
        diff_id: &Digest,
        stop: &Stop,
        used: Option<&Cell<bool>>,
    ) -> Result<LayerTar> {
        let (file, bytes, layout): (_, Box<dyn Read + Send>, _) = match &self.origin {
            Origin::Cache(cache) => {
                let opened = async {
                    let mut blob = cache.open(layer, BlobRange::FULL).await?;
                    Ok::<_, Error>(StoredBlob::take(&mut blob).ok_or_else(|| blob.into_reader()))
                };
                let (file, bytes): (_, Box<dyn Read + Send>) = match self.runtime.block_on(opened)? {
                    Ok(stored) => (Some(stored.file()?), Box::new(stop.reader(stored))),
                    Err(stream) => (None, Box::new(stop.reader(stream))),
                };
                (file, bytes, cache.layout().map(Path::to_owned))
            }
            Origin::Source(source, retry) => {
                let opener = self.opener(&**source, *retry, stop);
                let mut row = Row::default();
                let mut blob = opener.open(layer, 0, &mut row)?;
                (blob.take_file(), Box::new(opener.resumed(blob, row)?), None)
            }
        };
        let options = LayerOptions {
            diff_id: Some(diff_id.clone()),
            hashing: Hashing::Tar,
            limits: self.limits.clone(),
            form: LayerForm::of(layer)?,
            layout,
            scratch: self.scratch.clone(),
            ..LayerOptions::default()
        };
        if let (Origin::Cache(cache), Some(file), Some(used)) = (&self.origin, &file, used) {
            let decoded = gzip_index::decoded(&**cache, layer, file, &self.limits, cores());
            if let Some(decoded) = self.runtime.block_on(decoded)? {
                used.set(true);
                return LayerTar::indexed(decoded.stopped_by(stop), options);
            }
        }
        match file {
            Some(file) => LayerTar::in_file(bytes, file, options),
            None => LayerTar::new(bytes, options),
        }
    }

    fn opener(&self, source: &dyn ImageSource, retry: Retry, stop: &Stop) -> BlobOpener {
        let source = dyn_clone::clone_box(source);
        let open = move |blob: Descriptor, range| {
            let source = source.clone();
            async move { source.blob(&blob, range).await }.boxed()
        };
        BlobOpener {
            open: Box::new(open),
            retry,
            progress: Progress::none(),
            runtime: self.runtime.clone(),
            stop: stop.clone(),
        }
    }
}

/// That of another blob may have other content: an image alone says that they are the same. One that lacks attributes is not
/// used where they are read.
fn is_usable(file: &dyn ArtifactHandle, blob: &Descriptor, xattrs: ReadXattrs) -> bool {
    let made = file.made();
    file.path().is_some()
        && made.source.as_ref() == Some(blob.digest())
        && (xattrs == ReadXattrs::Kept || made.losses.is_empty())
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
