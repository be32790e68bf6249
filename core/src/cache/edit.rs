//! An image of a cache, made of another one.

use std::collections::{BTreeSet, HashSet};

use async_trait::async_trait;
use bytes::Bytes;

use super::registry::as_registry;
use super::target::CacheTarget;
use super::{CacheProvider, CacheRegistry, Lease, content, push, with_platforms_here};
use crate::blocking::alone;
use crate::copy::rewrite::{Child, Rewrite, rewrite};
use crate::copy::subset::{attestations_of, chosen};
use crate::edit::{Edit, EditFault, NewLayer, edited};
use crate::manifest::{Document, RawManifest, is_artifact};
use crate::progress::Event;
use crate::registry::ImageRegistry as _;
use crate::{
    Blob, BlobRange, Descriptor, Digest, Error, FlatImage, FlatOptions, Platforms, Reference, RegistrySource,
    Result, Size, platform, select,
};

/// Bytes of all configs of one edit: they are kept in memory.
const CONFIGS: u64 = 64 << 20;

/// The body of `edit`.
pub(super) async fn edit(
    cache: &dyn CacheProvider,
    image: &Reference,
    edit: &Edit,
    name: &Reference,
) -> Result<Descriptor> {
    let operation = edit.progress.operation();
    let edit = Edit { progress: operation.progress().clone(), ..edit.clone() };
    let outcome = match Box::pin(made(cache, image, &edit, name)).await {
        Err(e) => Err(with_platforms_here(cache, image, e).await),
        made => made,
    };
    operation.end(outcome)
}

async fn made(
    cache: &dyn CacheProvider,
    image: &Reference,
    edit: &Edit,
    name: &Reference,
) -> Result<Descriptor> {
    if edit.layers.is_empty() && edit.config.is_empty() {
        return Err(Error::from(EditFault::Nothing).with_image(image));
    }
    if name.digest().is_some() {
        let hint = "give it a tag: its digest follows from what is in it";
        return Err(Error::config("a changed image has another digest").with_image(name).with_hint(hint));
    }
    let (root, _lease) = push::in_hand(cache, image).await?;
    let source = as_registry(cache).fixed(image.clone(), root.clone());
    let mut attestations = 0;
    let (root, chosen) = match &edit.platforms {
        Platforms::All => (root, None),
        Platforms::One(platform) => {
            let found = select::find(&source, image, platform).await?;
            attestations = attestations_of(found.raw.digest(), &found.indexes);
            (found.raw, None)
        }
        Platforms::Some(platforms) => {
            let chosen = chosen(&source, image, &root, platforms).await?;
            (root, Some(chosen))
        }
    };
    if let Document::Index(index) = root.document() {
        attestations = index.manifests().iter().filter(|entry| platform::is_attestation(entry)).count();
    }
    let mut work = Work {
        cache,
        source,
        image,
        edit,
        chosen,
        configs: Vec::new(),
        bytes: 0,
        images: Vec::new(),
        listed: 0,
        absent: 0,
        not_there: None,
        is_changed: false,
    };
    let (made, documents) = rewrite(&mut work, &root).await.map_err(|e| e.with_image(image))?;
    let made = made.ok_or_else(|| Error::from(EditFault::NoImage).with_image(image).with_endpoint(cache))?;
    let Work { configs, images, listed, absent, not_there, is_changed, .. } = work;
    // Of an index that stays nothing is left out.
    let is_left = !is_changed && edit.platforms == Platforms::All;
    let made = if is_left { root } else { made };
    let documents = documents.iter().map(|raw| (raw.descriptor().clone(), raw.bytes().clone()));
    let documents: Vec<(Descriptor, Bytes)> = configs.into_iter().chain(documents).collect();
    if absent > 0 && !is_left {
        let message =
            format!("{image}: {absent} of {listed} images of the index are not here, and are left out");
        edit.progress.emit(Event::Warning { message });
    }
    for what in not_there.into_iter().flatten() {
        let message = format!("{image}: {what} is not there, and cannot be removed");
        edit.progress.emit(Event::Warning { message });
    }
    if !is_changed {
        let message = format!("{image}: nothing is to be changed, and the image stays as it is");
        edit.progress.emit(Event::Warning { message });
    }
    if attestations > 0 && !is_left {
        let message = format!(
            "{image}: {attestations} attestations of the index are about the image before the change, and are left out"
        );
        edit.progress.emit(Event::Warning { message });
    }
    let documents = if is_left { Vec::new() } else { documents };
    let _new = stored(cache, edit, &documents).await.map_err(|e| e.with_image(name))?;
    if edit.layers.iter().any(NewLayer::leans_on_lower) {
        for image in &images {
            check_stack(cache, name, image).await.map_err(|e| e.with_image(name))?;
        }
    }
    CacheTarget(dyn_clone::clone_box(cache)).push_names(&[(name.clone(), made.clone())]).await?;
    Ok(made.descriptor().clone())
}

/// Reads all layers of an image, to see that they can be put on each other: a hard link of one may lead to no file below.
async fn check_stack(cache: &dyn CacheProvider, name: &Reference, image: &RawManifest) -> Result<()> {
    let registry = as_registry(cache).fixed(name.clone(), image.clone());
    let source = RegistrySource::in_hand(Box::new(registry), name.clone(), image.clone(), None);
    let options = FlatOptions { scratch: cache.scratch(), ..FlatOptions::default() };
    let flat = FlatImage::of(&source, &options).await?;
    alone("layers", move |stop| flat.tree(stop).map(drop)).await
}

/// Stores new layers and documents, and keeps them until the lease ends.
async fn stored(cache: &dyn CacheProvider, edit: &Edit, documents: &[(Descriptor, Bytes)]) -> Result<Lease> {
    let layers = edit.layers.iter().map(NewLayer::digest);
    let digests: Vec<Digest> =
        layers.chain(documents.iter().map(|(descriptor, _)| descriptor.digest())).cloned().collect();
    let lease = cache.lease(&digests).await?;
    for layer in &edit.layers {
        content::put(cache, layer.blob()?).await.map_err(|e| e.with_context("layer", layer.place()))?;
    }
    for (descriptor, bytes) in documents {
        content::put(cache, Blob::from_bytes(descriptor, BlobRange::FULL, bytes)?).await?;
    }
    Ok(lease)
}

/// The documents of an edit, made of those of the image.
struct Work<'a> {
    cache: &'a dyn CacheProvider,
    source: CacheRegistry,
    image: &'a Reference,
    edit: &'a Edit,
    /// What is taken of indexes; nothing stands for all.
    chosen: Option<HashSet<Digest>>,
    configs: Vec<(Descriptor, Bytes)>,
    /// Of the configs.
    bytes: u64,
    /// The manifests of images.
    images: Vec<RawManifest>,
    /// Images of indexes, and those of them that are not here.
    listed: usize,
    absent: usize,
    /// What is to be removed, and is in none of the images so far.
    not_there: Option<BTreeSet<String>>,
    /// Whether one of the images so far becomes another one.
    is_changed: bool,
}

impl Work<'_> {
    async fn changed(&mut self, raw: &RawManifest) -> Result<RawManifest> {
        let config = select::read_config(&self.source, self.image, raw.image()?).await?;
        let made = edited(raw, &config, self.edit)?;
        self.bytes += made.config.0.size();
        if self.bytes > CONFIGS {
            return Err(Error::limit(format!("the images have more than {} of configs", Size(CONFIGS))));
        }
        self.is_changed |= made.is_changed;
        self.configs.push(made.config);
        self.not_there = Some(match self.not_there.take() {
            None => made.not_there,
            Some(before) => &before & &made.not_there,
        });
        self.images.push(made.manifest.clone());
        Ok(made.manifest)
    }
}

#[async_trait]
impl Rewrite for Work<'_> {
    /// Attestations are about the image before the change.
    fn takes(&self, entry: &Descriptor) -> bool {
        let is_taken = self.chosen.as_ref().is_none_or(|chosen| chosen.contains(entry.digest()));
        is_taken && !platform::is_attestation(entry)
    }

    async fn child(&mut self, entry: &Descriptor) -> Result<Child> {
        let found = Error::found(select::child(&self.source, self.image, entry).await)?;
        let is_here = match &found {
            Some(raw) => content::absent(self.cache, raw.requirements()).await?.is_empty(),
            None => false,
        };
        let is_index = found.as_ref().is_some_and(|raw| matches!(raw.document(), Document::Index(_)));
        self.listed += usize::from(!is_index);
        let found = found.filter(|_| is_here);
        self.absent += usize::from(found.is_none());
        Ok(found.map_or(Child::LeftOut, |raw| Child::Document(Box::new(raw))))
    }

    /// Other artifacts are left out of indexes.
    async fn manifest(
        &mut self,
        raw: &RawManifest,
        entry: Option<&Descriptor>,
    ) -> Result<Option<RawManifest>> {
        match self.changed(raw).await {
            Err(e) if is_artifact(&e) && entry.is_some() => {
                self.listed -= 1;
                Ok(None)
            }
            changed => changed.map(Some),
        }
    }
}
