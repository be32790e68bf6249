//! An image of a cache, made of another one.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::registry::as_registry;
use super::target::CacheTarget;
use super::{CacheProvider, CacheRegistry, Lease, content, push, with_platforms_here};
use crate::blocking::alone;
use crate::copy::subset::{chosen, with_children};
use crate::edit::{Edit, EditFault, NewLayer, edited};
use crate::manifest::{Document, RawManifest, is_artifact, limits};
use crate::progress::Event;
use crate::registry::ImageRegistry as _;
use crate::{
    Blob, BlobRange, Descriptor, Digest, Error, FlatImage, FlatOptions, Platforms, Reference, RegistrySource,
    Result, Size, platform, select,
};

/// Bytes of all documents of one edit: they are kept in memory.
const DOCUMENTS: u64 = 64 << 20;

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
    let (root, chosen) = match &edit.platforms {
        Platforms::All => (root, None),
        Platforms::One(platform) => (select::find(&source, image, platform).await?.raw, None),
        Platforms::Some(platforms) => {
            let chosen = chosen(&source, image, &root, platforms).await?;
            (root, Some(chosen))
        }
    };
    let mut work = Work {
        cache,
        source,
        image,
        edit,
        chosen,
        made: HashMap::new(),
        documents: Vec::new(),
        images: Vec::new(),
        bytes: 0,
        listed: 0,
        absent: 0,
    };
    let made = work.of(&root, limits::NESTING).await.map_err(|e| e.with_image(image))?;
    let root = made.ok_or_else(|| Error::from(EditFault::NoImage).with_image(image).with_endpoint(cache))?;
    let Work { documents, images, listed, absent, .. } = work;
    if absent > 0 {
        let message =
            format!("{image}: {absent} of {listed} images of the index are not here, and are left out");
        edit.progress.emit(Event::Warning { message });
    }
    let _new = stored(cache, edit, &documents).await.map_err(|e| e.with_image(name))?;
    if edit.layers.iter().any(NewLayer::leans_on_lower) {
        for image in &images {
            check_stack(cache, name, image).await.map_err(|e| e.with_image(name))?;
        }
    }
    CacheTarget(dyn_clone::clone_box(cache)).push_names(&[(name.clone(), root.clone())]).await?;
    Ok(root.descriptor().clone())
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
    /// Digest and size of what each child of an index became, by its own.
    made: HashMap<(Digest, u64), Option<(Digest, u64)>>,
    documents: Vec<(Descriptor, Bytes)>,
    /// Manifests of images among them.
    images: Vec<RawManifest>,
    /// Of the documents.
    bytes: u64,
    /// Images of indexes, and those of them that are not here.
    listed: usize,
    absent: usize,
}

impl Work<'_> {
    /// What becomes of a document; `None` for an index of which nothing is left.
    fn of<'s>(
        &'s mut self,
        raw: &'s RawManifest,
        depth: usize,
    ) -> BoxFuture<'s, Result<Option<RawManifest>>> {
        Box::pin(async move {
            let made = match raw.document() {
                Document::Manifest(_) => Some(self.changed(raw).await?),
                Document::Index(_) if depth == 0 => {
                    let message = format!("indexes are nested more than {} deep", limits::NESTING);
                    return Err(Error::limit(message));
                }
                Document::Index(index) => {
                    let mut kept = Vec::with_capacity(index.manifests().len());
                    for child in index.manifests() {
                        kept.push(self.child(child, depth - 1).await?);
                    }
                    with_children(raw, index.manifests(), kept)?
                }
            };
            if let Some(made) = &made {
                self.keep(made.descriptor().clone(), made.bytes().clone())?;
            }
            Ok(made)
        })
    }

    /// What stands for a child of an index: attestations and other artifacts are about the image before the change.
    async fn child(&mut self, child: &Descriptor, depth: usize) -> Result<Option<Descriptor>> {
        let is_taken = self.chosen.as_ref().is_none_or(|chosen| chosen.contains(child.digest()));
        if !is_taken || platform::is_attestation(child) {
            return Ok(None);
        }
        // Hostile input lists one document many times, and in each of those another.
        let place = (child.digest().clone(), child.size());
        let made = if let Some(made) = self.made.get(&place) {
            made.clone()
        } else {
            let made = self.made_of(child, depth).await?;
            self.made.insert(place, made.clone());
            made
        };
        Ok(made.map(|(digest, size)| {
            let mut entry = child.clone();
            entry.set_digest(digest);
            entry.set_size(size);
            entry
        }))
    }

    async fn made_of(&mut self, child: &Descriptor, depth: usize) -> Result<Option<(Digest, u64)>> {
        let found = Error::found(select::child(&self.source, self.image, child).await)?;
        let is_here = match &found {
            Some(raw) => content::absent(self.cache, raw.requirements()).await?.is_empty(),
            None => false,
        };
        let is_index = found.as_ref().is_some_and(|raw| matches!(raw.document(), Document::Index(_)));
        self.listed += usize::from(!is_index);
        let Some(raw) = found.filter(|_| is_here) else {
            self.absent += 1;
            return Ok(None);
        };
        match self.of(&raw, depth).await {
            Err(e) if is_artifact(&e) => {
                self.listed -= usize::from(!is_index);
                Ok(None)
            }
            made => Ok(made?.map(|made| (made.digest().clone(), made.descriptor().size()))),
        }
    }

    async fn changed(&mut self, raw: &RawManifest) -> Result<RawManifest> {
        let config = select::read_config(&self.source, self.image, raw.image()?).await?;
        let made = edited(raw, &config, self.edit)?;
        let (config, bytes) = made.config;
        self.keep(config, bytes)?;
        self.images.push(made.manifest.clone());
        Ok(made.manifest)
    }

    fn keep(&mut self, descriptor: Descriptor, bytes: Bytes) -> Result<()> {
        self.bytes += descriptor.size();
        if self.bytes > DOCUMENTS {
            return Err(Error::limit(format!("the images have more than {} of documents", Size(DOCUMENTS))));
        }
        self.documents.push((descriptor, bytes));
        Ok(())
    }
}
