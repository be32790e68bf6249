//! What goes into an archive: a walk over the documents of images.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use futures_util::future::BoxFuture;
use serde_json::json;

use super::options::{SaveFault, SaveOptions};
use crate::beside::ReferrerCount;
use crate::cache::lease::Lease;
use crate::copy::rewrite::{EntryKey, key};
use crate::copy::subset;
use crate::layout_index::blob_name;
use crate::manifest::{Document, RawManifest, canonical_json, check_is_image, descriptor_json, limits};
use crate::progress::Event;
use crate::registry::{ImageRegistry, PushSession};
use crate::{
    Descriptor, Digest, Error, MediaType, Reference, Result, Size, digest, platform, reference, referrers,
    select,
};

/// Bytes of all manifests and indexes of one archive: they are kept in memory.
const DOCUMENTS: u64 = 64 << 20;

/// An image that is saved, and where it is.
#[derive(Clone, Debug)]
pub struct SaveImage {
    pub(super) registry: Box<dyn ImageRegistry>,
    pub(super) image: Reference,
    pub(super) name: Reference,
    _lease: Lease,
}

impl SaveImage {
    /// An image of a registry, which has the same name in the archive; by digest it has none.
    pub fn new(registry: Box<dyn ImageRegistry>, image: Reference) -> Self {
        let name = image.clone();
        Self { registry, image, name, _lease: Lease::none() }
    }

    /// Gives it another name in the archive.
    #[must_use]
    pub fn named(self, name: Reference) -> Self {
        Self { name, ..self }
    }

    /// Keeps a lease of its content as long as it is read.
    #[must_use]
    pub fn leased(self, lease: Lease) -> Self {
        Self { _lease: lease, ..self }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Manifests and indexes by the names of their members.
    pub(super) documents: BTreeMap<String, RawBytes>,
    /// Blobs by the names of their members, with the number of the image that they are read from.
    pub(super) blobs: BTreeMap<String, (Descriptor, usize)>,
    /// What stands in `index.json`.
    pub(super) names: Vec<(Reference, Descriptor)>,
    /// What stands in `manifest.json`: for each name the manifest of an image.
    pub(super) images: Vec<(Reference, usize, RawManifest)>,
    /// What the receiver has.
    pub(super) absent: BTreeMap<String, Descriptor>,
}

/// A document as it was read.
pub(super) type RawBytes = bytes::Bytes;

/// Reads all documents of some images.
pub(super) async fn gather(images: &[SaveImage], options: &SaveOptions) -> Result<Gathered> {
    let mut walk = Walk {
        options,
        gathered: Gathered::default(),
        types: HashMap::new(),
        bytes: 0,
        lists: BTreeMap::new(),
    };
    for (at, image) in images.iter().enumerate() {
        walk.image(at, image).await.map_err(|e| e.with_image(&image.image))?;
    }
    walk.finish()
}

fn too_many_documents() -> Error {
    SaveFault::Documents(format!("{} of manifests and indexes", Size(DOCUMENTS))).into()
}

struct Walk<'a> {
    options: &'a SaveOptions,
    gathered: Gathered,
    /// The media types of the documents.
    types: HashMap<Digest, MediaType>,
    /// Of the documents.
    bytes: u64,
    /// Lists of referrers by their names, each with its entries by their digests.
    lists: BTreeMap<String, (Reference, BTreeMap<String, Descriptor>)>,
}

/// Documents that one image leads to, in the order that they were met in.
#[derive(Default)]
struct Reached {
    /// What is taken of indexes; nothing stands for all.
    chosen: Option<HashSet<Digest>>,
    seen: HashSet<Digest>,
    /// Whether what indexes list is there: hostile input lists one document many times, and in each of those another.
    known: HashMap<EntryKey, bool>,
    /// Of what is known.
    bytes: u64,
    order: VecDeque<Digest>,
    /// Children of indexes, and those of them that are not there.
    listed: usize,
    missing: usize,
}

impl Walk<'_> {
    async fn image(&mut self, at: usize, image: &SaveImage) -> Result<()> {
        let registry = &*image.registry;
        let raw = self.retrying(&image.image, || async {
            match self.options.platforms.as_slice() {
                [one] => {
                    let found = select::find(registry, &image.image, one).await?;
                    Ok((found.raw, found.indexes))
                }
                _ => Ok((select::raw(registry, &image.image).await?, Vec::new())),
            }
        });
        let (raw, indexes) = raw.await?;
        if let Some(warning) = subset::without_attestations(&image.name, &raw, &indexes) {
            self.options.progress.emit(warning);
        }
        let mut reached = Reached::default();
        if let platforms @ [_, _, ..] = self.options.platforms.as_slice() {
            let chosen = || subset::chosen(registry, &image.image, &raw, platforms);
            reached.chosen = Some(self.retrying(&image.image, chosen).await?);
        }
        self.visit((at, image), &raw, &mut reached, limits::NESTING).await?;
        if reached.missing > 0 {
            let Reached { listed, missing, .. } = reached;
            if listed == missing {
                return Err(SaveFault::NoImage.into());
            }
            let name = &image.name;
            let message = format!(
                "{name}: {missing} of {listed} manifests of the index are not there, and are left out"
            );
            self.options.progress.emit(Event::Warning { message });
        }
        self.gathered.names.push((image.name.clone(), raw.descriptor().clone()));
        if let Some(chosen) = self.chosen(&raw, &mut HashSet::new()) {
            self.gathered.images.push((image.name.clone(), at, chosen));
        }
        if self.options.referrers {
            self.referrers((at, image), reached).await?;
            self.warn_of_indexes(image, &indexes).await?;
        }
        Ok(())
    }

    /// Adds a document with all that it leads to.
    fn visit<'s>(
        &'s mut self,
        from: (usize, &'s SaveImage),
        raw: &'s RawManifest,
        reached: &'s mut Reached,
        depth: usize,
    ) -> BoxFuture<'s, Result<()>> {
        Box::pin(async move {
            // No read may ever wait, and an interrupt is to be heard between two documents.
            tokio::task::yield_now().await;
            if !reached.seen.insert(raw.digest().clone()) {
                return Ok(());
            }
            reached.order.push_back(raw.digest().clone());
            self.add(raw)?;
            let Document::Index(index) = raw.document() else { return self.blobs(from.0, raw) };
            if depth == 0 {
                return Err(Error::limit(format!("indexes are nested more than {} deep", limits::NESTING)));
            }
            for child in index.manifests() {
                if reached.chosen.as_ref().is_some_and(|chosen| !chosen.contains(child.digest())) {
                    continue;
                }
                reached.listed += 1;
                // As after a pull for one platform.
                reached.missing += usize::from(!self.entry(from, child, reached, depth - 1).await?);
            }
            Ok(())
        })
    }

    /// Adds what an index lists; whether it is there.
    async fn entry(
        &mut self,
        from: (usize, &SaveImage),
        listed: &Descriptor,
        reached: &mut Reached,
        depth: usize,
    ) -> Result<bool> {
        let key = key(listed);
        if let Some(is_there) = reached.known.get(&key) {
            return Ok(*is_there);
        }
        let child = Error::found(self.child(from.1, listed).await)?;
        reached.known.insert(key, child.is_some());
        let Some(child) = child else { return Ok(false) };
        reached.bytes += listed.size();
        if reached.bytes > DOCUMENTS {
            return Err(too_many_documents());
        }
        self.visit(from, &child, reached, depth).await.map(|()| true)
    }

    /// A document that another one lists.
    async fn child(&self, image: &SaveImage, child: &Descriptor) -> Result<RawManifest> {
        if let Some(bytes) = self.gathered.documents.get(&blob_name(child.digest())) {
            return RawManifest::described(bytes.clone(), child);
        }
        self.retrying(child.digest(), || select::child(&*image.registry, &image.image, child)).await
    }

    fn add(&mut self, raw: &RawManifest) -> Result<()> {
        digest::supported(raw.digest())?;
        if self.gathered.documents.insert(blob_name(raw.digest()), raw.bytes().clone()).is_none() {
            self.bytes += raw.descriptor().size();
        }
        self.types.insert(raw.digest().clone(), raw.descriptor().media_type().clone());
        if self.bytes > DOCUMENTS {
            return Err(too_many_documents());
        }
        self.check_count()
    }

    fn check_count(&self) -> Result<()> {
        if self.gathered.documents.len() + self.gathered.blobs.len() > PushSession::LIMIT {
            return Err(SaveFault::Documents(format!("{} blobs", PushSession::LIMIT)).into());
        }
        Ok(())
    }

    /// Adds config and layers, but for those that the receiver has.
    fn blobs(&mut self, at: usize, raw: &RawManifest) -> Result<()> {
        let manifest = raw.image()?;
        let is_there =
            |blob: &Descriptor| self.options.since.iter().any(|base| base.content.contains(blob.digest()));
        for layer in manifest.layers().iter().filter(|layer| is_there(layer)) {
            self.gathered.absent.insert(blob_name(layer.digest()), layer.clone());
        }
        let layers = manifest.layers().iter().filter(|layer| !is_there(layer));
        for blob in layers.chain([manifest.config()]) {
            digest::supported(blob.digest())?;
            self.gathered.blobs.entry(blob_name(blob.digest())).or_insert_with(|| (blob.clone(), at));
        }
        self.check_count()
    }

    /// The image of an index that Docker's list has: that of the first wanted platform, else the first that there is.
    fn chosen(&self, raw: &RawManifest, seen: &mut HashSet<(Digest, u64)>) -> Option<RawManifest> {
        let index = match raw.document() {
            Document::Manifest(manifest) => return check_is_image(manifest).is_ok().then(|| raw.clone()),
            Document::Index(index) => index,
        };
        let first = self.options.platforms.first().cloned().unwrap_or_default();
        let preferred = platform::candidates(index.manifests(), &first);
        let others = index.manifests().iter().filter(|child| !platform::is_attestation(child));
        let mut children = preferred.into_iter().chain(others);
        children.find_map(|child| {
            if !seen.insert((child.digest().clone(), child.size())) {
                return None;
            }
            let bytes = self.gathered.documents.get(&blob_name(child.digest()))?;
            self.chosen(&RawManifest::described(bytes.clone(), child).ok()?, seen)
        })
    }

    /// What refers to an index is not saved where that is not.
    async fn warn_of_indexes(&self, image: &SaveImage, indexes: &[RawManifest]) -> Result<()> {
        let (registry, mut count) = (&*image.registry, 0);
        for index in indexes.iter().map(RawManifest::digest) {
            let list = || registry.referrers(&image.image, index, None);
            count += self.retrying("referrers", list).await?.len();
            for tag in reference::cosign_tags(index) {
                let tagged = reference::tagged(&image.image, tag);
                let there = self.retrying("manifest", || select::raw(registry, &tagged)).await;
                count += usize::from(Error::found(there)?.is_some());
            }
        }
        if count > 0 {
            let message = format!(
                "{}: not saved, because it refers to the index, which is not either: {count} documents",
                image.name
            );
            self.options.progress.emit(Event::Warning { message });
        }
        Ok(())
    }

    /// Adds what refers to the documents of an image, and what refers to that.
    async fn referrers(&mut self, from: (usize, &SaveImage), mut reached: Reached) -> Result<()> {
        let (registry, image) = (&*from.1.registry, &from.1.image);
        if !registry.capabilities().referrers {
            return Err(registry.unsupported("list referrers"));
        }
        reached.chosen = None;
        let mut count = ReferrerCount::default();
        while let Some(subject) = reached.order.pop_front() {
            let listed = self.retrying("referrers", || registry.referrers(image, &subject, None)).await?;
            for referrer in listed {
                count.add()?;
                let raw = self.child(from.1, &referrer).await?;
                referrers::check_subject(&raw, &subject)?;
                self.visit(from, &raw, &mut reached, limits::NESTING).await?;
                let name = reference::referrers_of(&from.1.name, &subject);
                let list = self.lists.entry(name.whole()).or_insert_with(|| (name, BTreeMap::new()));
                list.1.insert(raw.digest().to_string(), referrers::descriptor(&raw));
            }
            for tag in reference::cosign_tags(&subject) {
                let tagged = reference::tagged(image, tag.clone());
                let raw = self.retrying("manifest", || select::raw(registry, &tagged)).await;
                let Some(raw) = Error::found(raw)? else { continue };
                count.add()?;
                self.visit(from, &raw, &mut reached, limits::NESTING).await?;
                let name = reference::tagged(&from.1.name, tag);
                self.gathered.names.push((name, raw.descriptor().clone()));
            }
        }
        Ok(())
    }

    /// Adds the lists of referrers, each once for all images of a repository.
    fn finish(mut self) -> Result<Gathered> {
        for (name, entries) in std::mem::take(&mut self.lists).into_values() {
            let entries: Vec<_> = entries.values().map(descriptor_json).collect();
            let list = json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex.as_ref(), "manifests": entries });
            let raw = RawManifest::new(canonical_json(&list), None)?;
            self.add(&raw)?;
            self.gathered.names.push((name, raw.descriptor().clone()));
        }
        let documents = &self.gathered.documents;
        self.gathered.blobs.retain(|path, _| !documents.contains_key(path));
        let blobs = &self.gathered.blobs;
        self.gathered.absent.retain(|path, _| !documents.contains_key(path) && !blobs.contains_key(path));
        Ok(self.gathered)
    }

    async fn retrying<T, F>(&self, what: impl ToString, attempt: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.options.retry.run(&what.to_string(), &self.options.progress, attempt).await
    }
}
