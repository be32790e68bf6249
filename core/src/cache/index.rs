//! Writing an index of manifests that are here.

use oci_spec::image::Platform as PlatformDocument;
use serde_json::{Map, Value};

use super::naming::not_here;
use super::{CacheProvider, Lease, NameChange, Needs, content};
use crate::copy::subset::{SUBJECT, annotation};
use crate::manifest::{
    Document, RawConfig, RawManifest, canonical_json, descriptor_json, is_document, is_manifest, limits,
};
use crate::strict::{self, invalid};
use crate::{Blob, BlobRange, Descriptor, Digest, Error, MediaType, Platform, Reference, Result, reference};

/// The work of writing lists of referrers: one writer at a time, because many lists may be written together.
pub(super) const LISTS: &str = "lists of referrers";

/// After this many concurrent changes of the name, the index is written on the base of the last one read.
pub(super) const ATTEMPTS: u32 = 16;

/// The body of `index_write`.
pub(super) async fn write(
    cache: &dyn CacheProvider,
    name: &Reference,
    manifests: &[Descriptor],
) -> Result<Descriptor> {
    let at = |e: Error| e.with_image(name).with_endpoint(cache);
    if name.digest().is_some() {
        let hint = "write it under a tag: its digest follows from what is in it";
        return Err(at(Error::config("an index cannot be written under a digest").with_hint(hint)));
    }
    if manifests.is_empty() {
        return Err(at(Error::config("an index needs manifests, and none are given")));
    }
    // Other writers of this index wait: none reads an index that another is about to replace.
    let _turn = turn(cache, name).await?;
    let mut attempts = 0;
    let (root, _lease) = loop {
        let before = existing(cache, name).await.map_err(at)?;
        let (root, lease) = joined(cache, before.as_ref(), manifests).await.map_err(at)?;
        // Content of the index may have been removed before the lease was taken. Check again now that the lease is
        // held.
        let now = existing(cache, name).await.map_err(at)?;
        attempts += 1;
        if now == before || attempts == ATTEMPTS {
            break (root, lease);
        }
    };
    content::put(cache, Blob::from_bytes(root.descriptor(), BlobRange::FULL, root.bytes())?).await?;
    let mut changes: Vec<_> = manifests.iter().cloned().map(NameChange::Require).collect();
    changes.push(NameChange::Set(name.clone(), root.descriptor().clone()));
    cache.update(&changes).await?;
    Ok(root.descriptor().clone())
}

/// The right to write an index, which one writer has at a time.
pub(super) async fn turn(cache: &dyn CacheProvider, name: &Reference) -> Result<Lease> {
    if reference::is_list_of_referrers(name) {
        return cache.single_flight(LISTS).await;
    }
    cache.single_flight(&format!("index {}", name.whole())).await
}

/// The index that has `before` and these manifests, and a lease on all of it.
async fn joined(
    cache: &dyn CacheProvider,
    before: Option<&RawManifest>,
    manifests: &[Descriptor],
) -> Result<(RawManifest, Lease)> {
    let given = entries(cache, manifests).await?;
    let merged = Merged::new(before, given)?;
    let root = match before {
        Some(before) if !merged.is_changed => before.clone(),
        _ => merged.into_raw()?,
    };
    let mut others = vec![root.digest().clone()];
    if let Some(before) = before {
        others.extend(Needs::of(cache, before.descriptor()).await?.digests());
    }
    let lease = present(cache, manifests, &others).await?;
    Ok((root, lease))
}

/// Leases everything that `wanted` need, and `others`, and sees that the former is here.
pub(super) async fn present(
    cache: &dyn CacheProvider,
    wanted: &[Descriptor],
    others: &[Digest],
) -> Result<Lease> {
    let mut all = Needs::default();
    for descriptor in wanted {
        let media_type = descriptor.media_type();
        if !is_document(media_type) {
            let message = format!("{} is neither an image nor an index", descriptor.digest());
            return Err(Error::unsupported(format!("{message}, but {media_type}")));
        }
        all.include(cache, descriptor).await?;
    }
    let content: Vec<Digest> = all.digests().chain(others.iter().cloned()).collect();
    let lease = cache.lease(&content).await?;
    // Content may have been removed before the lease was taken. Check again now that the lease is held.
    if let Some(damaged) = all.damaged.iter().next() {
        return Err(Error::corrupt(format!("{damaged} is damaged")).with_context("blob", damaged));
    }
    let missing = all.missing(cache).await?;
    if missing.is_empty() { Ok(lease) } else { Err(not_here(&missing)) }
}

/// The index that a name stands for, if it stands for anything.
pub(super) async fn existing(cache: &dyn CacheProvider, name: &Reference) -> Result<Option<RawManifest>> {
    let Some(descriptor) = cache.find_descriptor(name).await? else { return Ok(None) };
    let found = content::read(cache, &descriptor, limits::MANIFEST).await;
    let raw = RawManifest::described(found?, &descriptor)?;
    match raw.document() {
        Document::Index(_) => Ok(Some(raw)),
        Document::Manifest(_) => Err(Error::unsupported("the name stands for a single image, not an index")
            .with_hint("write the index under another name, or remove this one")),
    }
}

/// What `index_write` is given, as entries of an index.
async fn entries(cache: &dyn CacheProvider, manifests: &[Descriptor]) -> Result<Vec<Entry>> {
    if manifests.len() > limits::INDEX_ENTRIES {
        let message = format!("{} manifests, the limit is {}", manifests.len(), limits::INDEX_ENTRIES);
        return Err(Error::limit(message));
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(manifests.len());
    for descriptor in manifests {
        let mut descriptor = descriptor.clone();
        if is_manifest(descriptor.media_type()) && annotation(&descriptor, SUBJECT).is_none() {
            descriptor.set_platform(told_platform(cache, &descriptor).await?);
        }
        let entry = Entry::new(descriptor_json(&descriptor), descriptor);
        match entries.iter().find(|other| entry.replaces(other)) {
            Some(other) if other.raw == entry.raw => {}
            Some(other) => {
                let (one, two) = (other.descriptor.digest(), entry.descriptor.digest());
                let what = entry.platform.as_ref().map_or("one place", |platform| &platform.name);
                return Err(Error::ambiguous(format!("two manifests for {what}: {one} and {two}")));
            }
            None => entries.push(entry),
        }
    }
    Ok(entries)
}

/// The platform of a descriptor, with what only its image's config tells; `None` for artifacts.
async fn told_platform(
    cache: &dyn CacheProvider,
    descriptor: &Descriptor,
) -> Result<Option<PlatformDocument>> {
    let told = descriptor.platform().clone();
    // What is not found is reported together with everything else that is missing.
    let config = Error::found(own_config(cache, descriptor).await)?.flatten();
    let Some(config) = config else { return Ok(told) };
    let mut platform = told.unwrap_or_else(|| PlatformDocument::from(&config.platform_or(None)));
    if platform.os_version().is_none() {
        platform.set_os_version(config.document().os_version().clone());
    }
    if platform.os_features().is_none() {
        platform.set_os_features(config.document().os_features().clone());
    }
    Ok(Some(platform))
}

async fn own_config(cache: &dyn CacheProvider, descriptor: &Descriptor) -> Result<Option<RawConfig>> {
    let raw = RawManifest::described(content::read(cache, descriptor, limits::MANIFEST).await?, descriptor)?;
    content::config(cache, raw.image()?).await
}

/// An index with some of its entries replaced.
struct Merged {
    document: Map<String, Value>,
    entries: Vec<Entry>,
    is_changed: bool,
}

impl Merged {
    fn new(before: Option<&RawManifest>, given: Vec<Entry>) -> Result<Self> {
        let mut document: Map<String, Value> = match before {
            Some(raw) => serde_json::from_slice(raw.bytes()).map_err(invalid)?,
            None => Map::from_iter([
                ("schemaVersion".to_owned(), 2.into()),
                ("mediaType".to_owned(), MediaType::ImageIndex.as_ref().into()),
            ]),
        };
        // Fields that plyfold does not know stay as they are, in the document and in its entries.
        let old = match document.remove("manifests") {
            Some(Value::Array(list)) => list,
            _ => Vec::new(),
        };
        let old = old.into_iter().map(|raw| {
            // Entries that say nothing are none.
            let descriptor = strict::descriptor(&raw.to_string())?;
            Ok(descriptor.map(|descriptor| Entry::new(raw, descriptor)))
        });
        let mut old = old.filter_map(Result::transpose).collect::<Result<Vec<_>>>()?;
        let count = old.len();
        let unchanged = given.iter().all(|new| old.iter().any(|old| old.raw == new.raw));
        old.retain(|old| !given.iter().any(|new| new.replaces(old)));
        let mut merged = Self { document, entries: old, is_changed: false };
        merged.entries.extend(given);
        merged.drop_dangling();
        merged.is_changed = !unchanged || merged.entries.len() != count;
        Ok(merged)
    }

    /// Drops attestations whose subject is not here, and what attests to those, until none is left.
    fn drop_dangling(&mut self) {
        loop {
            let here: Vec<String> = self.entries.iter().map(|e| e.descriptor.digest().to_string()).collect();
            let before = self.entries.len();
            self.entries.retain(|entry| {
                annotation(&entry.descriptor, SUBJECT).is_none_or(|subject| here.iter().any(|d| d == subject))
            });
            if self.entries.len() == before {
                return;
            }
        }
    }

    fn into_raw(mut self) -> Result<RawManifest> {
        self.entries.sort_by_cached_key(Entry::order);
        let is_docker =
            |entry: &Entry| entry.descriptor.media_type().as_ref().starts_with("application/vnd.docker.");
        if !self.entries.iter().all(is_docker) {
            self.document.insert("mediaType".to_owned(), MediaType::ImageIndex.as_ref().into());
        }
        let list = self.entries.into_iter().map(|entry| entry.raw).collect();
        self.document.insert("manifests".to_owned(), Value::Array(list));
        RawManifest::new(canonical_json(&Value::Object(self.document)), None)
    }
}

/// A manifest in an index.
struct Entry {
    raw: Value,
    descriptor: Descriptor,
    platform: Option<FullPlatform>,
}

impl Entry {
    fn new(raw: Value, descriptor: Descriptor) -> Self {
        let platform = FullPlatform::of(&raw, &descriptor);
        Self { raw, descriptor, platform }
    }

    /// Whether this takes the other's place: it is for the same platform, or the same content for the same subject
    /// where not both have a platform.
    fn replaces(&self, other: &Self) -> bool {
        if let (Some(own), Some(other)) = (&self.platform, &other.platform) {
            return own == other;
        }
        let (own, other) = (&self.descriptor, &other.descriptor);
        own.digest() == other.digest() && annotation(own, SUBJECT) == annotation(other, SUBJECT)
    }

    fn order(&self) -> (u8, Option<FullPlatform>, String, Vec<u8>) {
        let rank = match &self.platform {
            _ if annotation(&self.descriptor, SUBJECT).is_some() => 2,
            Some(_) => 0,
            None => 1,
        };
        let digest = self.descriptor.digest().to_string();
        (rank, self.platform.clone(), digest, canonical_json(&self.raw))
    }
}

/// The fields that distinguish platforms (OCI image spec, `image-index.md`, property `platform`).
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct FullPlatform {
    /// `os/architecture[/variant]`, in the one spelling.
    name: String,
    os_version: Option<String>,
    os_features: Vec<String>,
    features: Vec<String>,
}

impl FullPlatform {
    /// Out of the entry itself: oci-spec does not read all of it. `None` for `unknown/unknown`, which is no platform.
    fn of(raw: &Value, descriptor: &Descriptor) -> Option<Self> {
        let platform = descriptor.platform().as_ref().map(Platform::from)?;
        if platform.is_unknown() {
            return None;
        }
        let field = |name: &str| raw.get("platform").and_then(|platform| platform.get(name));
        let sorted = |name: &str| {
            let list = field(name).and_then(Value::as_array).into_iter().flatten();
            let mut list: Vec<String> = list.filter_map(Value::as_str).map(str::to_owned).collect();
            list.sort();
            list
        };
        Some(Self {
            // What needs no features comes first, and some readers take the first.
            name: platform.with_features([""]).to_string(),
            os_version: field("os.version").and_then(Value::as_str).map(str::to_owned),
            os_features: sorted("os.features"),
            features: sorted("features"),
        })
    }
}
