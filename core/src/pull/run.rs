//! A pull from its name to its result.

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::cache::{CacheProvider, Lease, NameChange, content};
use crate::layer::{LayerFault, LayerForm};
use crate::manifest::{RawConfig, RawManifest};
use crate::materializer::Input;
use crate::progress::Event;
use crate::registry::ImageRegistry;
use crate::source::{ImageSource, ImageSourceExt, RegistrySource};
use crate::worker::Workers;
use crate::{Blob, BlobRange, Descriptor, Digest, Error, ErrorKind, Reference, Result};

use super::engine::{Engine, cache_name};
use super::lookup::{Found, Turn, blobs, config_of};
use super::options::{PullNaming, PullOptions, PullPolicy, PullResult, PulledLayer};

/// Brings an image into a cache.
///
/// Everything that the image needs is [leased](CacheProvider::lease) before it is looked for, until the name stands
/// for it, and on with the [result](PullResult::lease): an image is not collected while its result is held.
///
/// Of several pulls of one image for one platform under [`PullPolicy::IfMissing`], in whatever process, one fetches it
/// while the others [wait](CacheProvider::single_flight), with [`Event::Waiting`]; the next one takes over when it fails or
/// is killed, or has not ended after five minutes. Nothing else in the cache waits for a download, and images that are
/// here never wait.
///
/// Nothing is fetched but the manifest when the cache says that it has [no room](CacheProvider::free) for what is
/// missing of the blobs. What a [materializer](PullOptions::materializer) will make of them is not known beforehand,
/// and not counted.
///
/// # Contract
/// C 47 to C 54, R 22 to R 28 about transfers that fail, R 29 `duplicate_layer_digests_fetched_once`, K 118
/// `n_threads_same_blob_one_write`, K 119 `winner_cancelled_waiter_succeeds`, K 124 `lock_not_held_over_network`,
/// C 200 `a_confirmed_hit_asks_first`, C 230 `a_refusal_tells_no_digest`, C 187 `a_pull_yields_the_image_that_was_found`, C 188
/// `what_the_cache_cannot_read_is_not_fetched`, C 189 `a_dropped_pull_tells_its_end`.
/// A digest in the reference wins over the tag.
/// The last progress event is [`Event::Finished`], always: also when the future is dropped, unless it was never polled.
/// Every [`Event::BlobStarted`] is followed by an [`Event::BlobDone`] or an [`Event::BlobStopped`].
///
/// Threads that convert layers have ended when an error is returned. When the future is dropped, they are asked to, and
/// the runtime, when it is shut down, waits for them, as [`Workers`] says.
///
/// # Errors
/// Those of the backend and the cache, with the image in their context;
/// [`NotFound`](crate::ErrorKind::NotFound) under [`PullPolicy::Never`] lists what is missing;
/// [`Io`](crate::ErrorKind::Io) with [`StorageFull`](std::io::ErrorKind::StorageFull) as its source when there is no
/// room. Nothing half-made
/// is visible then; what has been downloaded of a blob is kept for the next attempt when that attempt may resume.
pub async fn pull(
    registry: &dyn ImageRegistry,
    reference: &Reference,
    cache: &dyn CacheProvider,
    options: &PullOptions,
) -> Result<PullResult> {
    let operation = options.progress.operation();
    let options = &PullOptions { progress: operation.progress().clone(), ..options.clone() };
    let engine = Engine {
        registry: dyn_clone::clone_box(registry),
        reference,
        name: cache_name(reference),
        cache: dyn_clone::clone_box(cache),
        options,
        workers: Workers::new(),
    };
    // On the heap: callers would carry all of its states in futures of their own.
    let result = Box::pin(engine.run()).await;
    operation.end(engine.end(result).await)
}

/// How often a pull stores again content that other processes have quarantined meanwhile, for each blob of its image:
/// a repair of the store may move one after the other.
const REPAIRS: usize = 8;

impl Engine<'_> {
    async fn run(&self) -> Result<PullResult> {
        if let Some(materializer) = self.options.materializer.as_ref() {
            if materializer.input() != Input::Layer {
                let message = format!("{} is not made from single layers", materializer.format().name);
                return Err(Error::config(message).with_hint("materialize the image after the pull"));
            }
            crate::materializers::check(&**materializer)?;
        }
        let always = self.options.force || self.options.policy == PullPolicy::Always;
        if self.confirms() && self.options.policy == PullPolicy::Never {
            let error = Error::config("an image in the cache is to be confirmed, and the policy never asks");
            return Err(error.with_hint("choose another policy, or ask for no confirmation"));
        }
        if !always && let Some(found) = self.look().await? {
            return Box::pin(self.take(found)).await;
        }
        let mut turn = None;
        let found = match self.options.policy {
            PullPolicy::Never => return Err(self.missing().await?),
            _ if self.options.force => None,
            PullPolicy::Always => match self.unmoved().await? {
                Some(here) => self.look_at(&here).await?,
                None => None,
            },
            PullPolicy::IfMissing => match self.turn().await? {
                Turn::Found(found) => Some(*found),
                Turn::Right(right) => {
                    turn = Some(right);
                    self.look().await?
                }
            },
        };
        match found {
            Some(found) => {
                // Release the right first: other pulls need not wait while artifacts are made.
                drop(turn);
                Box::pin(self.take(found)).await
            }
            None => Box::pin(self.fetch_image()).await,
        }
    }

    /// The result out of the cache alone; artifacts are made if need be.
    async fn take(&self, found: Found) -> Result<PullResult> {
        let Found { source, config, lease, is_away } = found;
        if is_away {
            self.check_room(&source).await?;
        }
        let layers = self.layers(source.raw(), config.as_ref()).await?;
        if is_away {
            self.store_config(&source, config.as_ref()).await?;
            self.store_documents(&source).await?;
            self.set_name(&source, source.root().descriptor()).await?;
        } else {
            self.name_by_digest(&source).await?;
        }
        Ok(self.result(&source, config, layers, lease))
    }

    /// Sets a name that is a digest: the cache may have found the image under a tag, which can move on. What refers to
    /// another image goes with that.
    async fn name_by_digest(&self, source: &RegistrySource) -> Result<()> {
        let is_set = self.options.naming == PullNaming::Set && self.name.digest().is_some();
        if !is_set || source.raw().subject().is_some() || self.cache.is_read_only() {
            return Ok(());
        }
        let root = source.root().descriptor().clone();
        self.cache.update(&[NameChange::Set(self.name.clone(), root)]).await
    }

    /// Fetches what is missing.
    async fn fetch_image(&self) -> Result<PullResult> {
        let source = self.retrying("manifest", || {
            RegistrySource::open(self.documents(), self.reference, &self.options.platform)
        });
        let source = source.await?;
        self.resolved(&source)?;
        self.check_room(&source).await?;
        let config = self.config(&source).await?;
        let lease = self.lease(&source, config.as_ref()).await?;
        if self.options.force || self.options.verify {
            self.drop_damaged(&source).await?;
        }
        let mut root = source.root().descriptor().clone();
        if config.as_ref().is_some_and(|config| config.platform().is_none()) && source.indexes().is_empty() {
            // No document in the cache has the platform.
            root.set_platform(source.raw().platform().cloned());
        }
        // Documents last: what is visible is complete.
        self.store_config(&source, config.as_ref()).await?;
        let mut layers = self.layers(source.raw(), config.as_ref()).await?;
        self.store_documents(&source).await?;
        let limit = REPAIRS * blobs(&source).len();
        let mut repairs = 0;
        let replaced = loop {
            match self.set_name(&source, &root).await {
                // Another process has quarantined damaged content of this image.
                Err(e) if *e.kind() == ErrorKind::NotFound && repairs < limit => repairs += 1,
                outcome => break outcome?,
            }
            // Layers last: the shorter the time until the name is set, the less is lost in it.
            self.store_config(&source, config.as_ref()).await?;
            self.store_documents(&source).await?;
            let again = self.layers(source.raw(), config.as_ref()).await?;
            for ((_, fetched), (_, now)) in layers.iter_mut().zip(again) {
                *fetched |= now;
            }
        };
        let result = self.result(&source, config, layers, lease);
        Ok(PullResult { replaced, ..result })
    }

    /// Checks that the image is complete, and sets its name as the options say; what the name stood for, if it is replaced.
    async fn set_name(&self, source: &RegistrySource, root: &Descriptor) -> Result<Option<Descriptor>> {
        let before = match self.cache.find_descriptor(&self.name).await {
            // What it stands for is not one image.
            Err(e) if *e.kind() == ErrorKind::Ambiguous => None,
            before => before?,
        };
        let other = before.filter(|before| before.digest() != root.digest());
        let is_set = match self.options.naming {
            PullNaming::Keep => other.is_none(),
            PullNaming::Leave => false,
            PullNaming::Set => true,
        };
        // The image, and the indexes between it and what the name stands for.
        let below = std::iter::once(source.raw()).chain(source.indexes());
        let mut changes: Vec<_> = below.map(|raw| NameChange::Require(raw.descriptor().clone())).collect();
        changes.extend(is_set.then(|| NameChange::Set(self.name.clone(), root.clone())));
        self.cache.update(&changes).await?;
        Ok(other.filter(|_| is_set))
    }

    async fn store_config(&self, source: &RegistrySource, config: Option<&RawConfig>) -> Result<()> {
        let described = source.manifest()?.config();
        let Some(config) = config else { return self.layer(described, None).await.map(drop) };
        content::put(&self.cache, Blob::from_bytes(described, BlobRange::FULL, config.bytes())?).await
    }

    /// Stores the manifest and the indexes above it.
    async fn store_documents(&self, source: &RegistrySource) -> Result<()> {
        for raw in std::iter::once(source.raw()).chain(source.indexes()) {
            content::put(&self.cache, Blob::from_bytes(raw.descriptor(), BlobRange::FULL, raw.bytes())?)
                .await?;
        }
        Ok(())
    }

    fn result(
        &self,
        source: &RegistrySource,
        config: Option<RawConfig>,
        layers: Vec<(PulledLayer, bool)>,
        lease: Lease,
    ) -> PullResult {
        if let Some(config) = config.as_ref().filter(|config| config.platform().is_none())
            && source.raw().platform().is_none()
        {
            let (image, platform) = (self.reference, config.platform_or(None));
            let message = format!("{image} does not name its platform, it is taken for {platform}");
            self.options.progress.emit(Event::Warning { message });
        }
        PullResult {
            reference: self.name.clone(),
            descriptor: source.root().descriptor().clone(),
            manifest: source.raw().clone(),
            indexes: source.indexes().to_vec(),
            config,
            replaced: None,
            cached: layers.iter().all(|(_, fetched)| !fetched),
            layers: layers.into_iter().map(|(layer, _)| layer).collect(),
            lease,
        }
    }

    fn resolved(&self, source: &RegistrySource) -> Result<()> {
        let manifest = source.manifest()?;
        let sizes = manifest.layers().iter().map(Descriptor::size);
        let size = sizes.fold(manifest.config().size(), u64::saturating_add);
        let (image, digest) = (self.reference.whole(), source.descriptor().digest().clone());
        self.options.progress.emit(Event::Resolved { image, digest, size });
        Ok(())
    }

    /// The config, from here or from the backend; `None` for artifacts, whose config is kept like a layer.
    pub(crate) async fn config(&self, source: &RegistrySource) -> Result<Option<RawConfig>> {
        let manifest = source.manifest()?;
        if crate::manifest::check_is_image(manifest).is_err_and(|e| *e.kind() == ErrorKind::Unsupported) {
            return Ok(None);
        }
        match self.retrying("config", || config_of(source)).await {
            Err(e) if crate::manifest::is_artifact(&e) => Ok(None),
            config => config.map(Some),
        }
    }

    /// What each layer is, if it is no tar. Refuses the first one that the format cannot be made of, before any is
    /// fetched: which of several is converted first is chance.
    pub(crate) fn forms(&self, layers: &[Descriptor]) -> Result<Vec<Option<&'static LayerForm>>> {
        let format = self.options.materializer.as_ref().filter(|format| format.takes_only_tars());
        let of = |layer: &Descriptor| match (LayerForm::of(layer)?, format) {
            (Some(form), Some(format)) => {
                Err(Error::from(LayerFault::NoTar(form.name)).with_context("format", format.format().name))
            }
            (form, _) => Ok(form),
        };
        layers.iter().map(|layer| of(layer).map_err(|e| e.with_context("layer", layer.digest()))).collect()
    }

    /// Every layer, several at a time, each digest once; with whether it had to be fetched.
    pub(crate) async fn layers(
        &self,
        raw: &RawManifest,
        config: Option<&RawConfig>,
    ) -> Result<Vec<(PulledLayer, bool)>> {
        let layers = raw.image()?.layers();
        let diff_ids = config.map(RawConfig::diff_ids).transpose()?;
        if diff_ids.is_some() && self.options.materializer.is_some() {
            self.forms(layers)?;
        }
        let mut unique: Vec<(Descriptor, Option<Digest>)> = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let diff_id = diff_ids.as_ref().and_then(|list| list.get(index)).cloned();
            match unique.iter().find(|(other, _)| other.digest() == layer.digest()) {
                Some((_, other)) if *other != diff_id => {
                    let message = format!("layer {} stands under two diff_ids", layer.digest());
                    return Err(Error::corrupt(message));
                }
                Some((other, _)) if other.size() != layer.size() => {
                    return Err(Error::corrupt(format!("layer {} stands with two sizes", layer.digest())));
                }
                Some(_) => {}
                None => unique.push((layer.clone(), diff_id)),
            }
        }
        // The longest first, so that none of them is left when the others are done.
        unique.sort_by_key(|(layer, _)| std::cmp::Reverse(layer.size()));
        // Owned descriptors: with borrowed ones the compiler cannot prove that a pull may move between threads.
        let jobs =
            unique.into_iter().map(|(layer, diff_id)| async move { self.layer(&layer, diff_id).await });
        let concurrency = self.options.concurrency.min(self.registry.concurrency()).max(1);
        let done: Vec<(PulledLayer, bool)> =
            stream::iter(jobs).buffer_unordered(concurrency).try_collect().await?;
        let pulled = layers.iter().map(|layer| {
            let found = done.iter().find(|(done, _)| done.descriptor.digest() == layer.digest());
            found.cloned().ok_or_else(|| {
                Error::new(ErrorKind::Internal, format!("layer {} was not processed", layer.digest()))
            })
        });
        pulled.collect()
    }
}
