//! `index.json` and `oci-layout` of an OCI image layout (OCI image spec, `image-layout.md`), in a directory or in
//! an archive: which names it gives to which content, and how names change without losing what else it says.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::manifest::{RawManifest, descriptor_json, sorted};
use crate::registry::TagTable;
use crate::strict::{self, DocumentFault, invalid};
use crate::{
    Descriptor, Digest, Error, MediaType, Reference, Result, Size, digest, go_json, printable, reference,
};

pub use entry::{CONTAINERD_NAME, PINNED, REF_NAME};
use entry::{Entry, Fields, written};
use places::{Places, without_digest};
pub use referrers::IndexReferrers;

mod entry;
mod places;
mod referrers;

/// Bytes of an `index.json`: room for all [`ENTRIES`].
pub const INDEX_LIMIT: u64 = 64 << 20;
/// Entries of an `index.json`.
pub const ENTRIES: usize = 1 << 16;
/// Bytes of an `oci-layout` file.
pub const LAYOUT_LIMIT: u64 = 4 << 10;

/// The content of an `oci-layout` file.
pub const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// The path of a blob in a layout (OCI image spec, `image-layout.md`, "Blobs"). A digest has been parsed: it has no characters that
/// could lead elsewhere.
pub fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}

/// Checks the content of an `oci-layout` file.
///
/// # Errors
/// [`Corrupt`](crate::ErrorKind::Corrupt) when it is no such file, [`Unsupported`](crate::ErrorKind::Unsupported)
/// for another version than 1.x (rule C 72 `unsupported_layout_version_refused`).
pub fn check_layout(bytes: &[u8]) -> Result<()> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let invalid = |e| Error::corrupt(format!("not an OCI layout: invalid oci-layout file: {e}"));
    let layout: Layout = serde_json::from_slice(bytes).map_err(invalid)?;
    let version = layout.image_layout_version;
    if version.split('.').next() == Some("1") {
        return Ok(());
    }
    Err(DocumentFault::LayoutVersion(version).into())
}

/// The error for a place that has no `oci-layout`.
pub fn not_a_layout(why: &str) -> Error {
    DocumentFault::NoLayout(why.to_owned()).into()
}

/// A parsed `index.json`.
///
/// Fields and entries that plyfold does not know are kept as they are.
#[derive(Clone, Debug)]
pub struct LayoutIndex {
    /// All but the entries, as it was written.
    document: BTreeMap<String, Box<RawValue>>,
    entries: Vec<Entry>,
    /// Where entries are found, made at the first look-up; cleared by a change.
    places: OnceLock<Places>,
    place: PathBuf,
    itself: Option<Descriptor>,
}

impl LayoutIndex {
    /// An index without entries for the layout at `place`.
    pub fn new(place: &Path) -> Self {
        let document = BTreeMap::from([
            ("schemaVersion".to_owned(), written(&2)),
            ("mediaType".to_owned(), written(&MediaType::ImageIndex)),
        ]);
        let (entries, places) = (Vec::new(), OnceLock::new());
        Self { document, entries, places, place: place.to_owned(), itself: None }
    }

    /// Parses the bytes of an `index.json`. `place` is the path of the directory or archive that it stands in:
    /// bare tags are named after it (see [`reference::local`]).
    ///
    /// # Errors
    /// [`Ambiguous`](crate::ErrorKind::Ambiguous) and [`Corrupt`](crate::ErrorKind::Corrupt) for a document with
    /// two readings or none, [`Limit`](crate::ErrorKind::Limit) beyond [`INDEX_LIMIT`] and [`ENTRIES`].
    pub fn parse(bytes: &[u8], place: &Path) -> Result<Self> {
        let at = |e: Error| e.with_context("document", "index.json");
        if bytes.len() as u64 > INDEX_LIMIT {
            return Err(DocumentFault::Long(format!("index.json has more than {}", Size(INDEX_LIMIT))).into());
        }
        strict::check(bytes, &go_json::DOCUMENT).map_err(at)?;
        let mut document: BTreeMap<String, Box<RawValue>> =
            serde_json::from_slice(bytes).map_err(invalid).map_err(at)?;
        match document.get("schemaVersion").map(|version| version.get()) {
            Some("2") => {}
            // Go's readers do not look at it, and its zero value is "not set". What is written from here on says it.
            None | Some("0" | "null") => drop(document.insert("schemaVersion".to_owned(), written(&2))),
            Some(_) => return Err(at(invalid("schemaVersion is not 2"))),
        }
        let list = document.remove("manifests");
        let list = list.ok_or_else(|| at(invalid("there is no list \"manifests\"")))?;
        // umoci and oras write an empty list as null.
        let list: Option<Vec<&RawValue>> =
            serde_json::from_str(list.get()).map_err(|_| at(invalid("manifests is no list")))?;
        let list = list.unwrap_or_default();
        if list.len() > ENTRIES {
            let long = format!("it has {} entries, the limit is {ENTRIES}", list.len());
            return Err(at(DocumentFault::Long(long).into()));
        }
        let entries = list.into_iter().filter_map(|raw| Entry::parse(raw, place).transpose());
        let entries = entries.collect::<Result<Vec<_>>>().map_err(at)?;
        let places = OnceLock::new();
        let mut index = Self { document, entries, places, place: place.to_owned(), itself: None };
        index.name_the_nameless(bytes);
        Ok(index)
    }

    /// What can still be read of a damaged `index.json`: its fields, and every entry that is one by itself. Nothing is
    /// read of invalid JSON, because its other fields are unknown.
    pub fn salvage(bytes: &[u8], place: &Path) -> Self {
        let mut index = Self::new(place);
        let Ok(fields) = serde_json::from_slice::<Fields<'_>>(bytes) else { return index };
        for (key, raw) in fields.0 {
            if key == "manifests" {
                let list: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
                let room = ENTRIES.saturating_sub(index.entries.len());
                index.entries.extend(list.into_iter().filter_map(|raw| Entry::alone(raw, place)).take(room));
            } else {
                index.document.entry(key).or_insert_with(|| raw.to_owned());
            }
        }
        // Other faults of the document are dropped.
        if Self::parse(&index.to_bytes(), place).is_err() {
            index.document = Self::new(place).document;
        }
        index
    }

    /// Tools such as crane write layouts without any name. A single image is `latest` then; where every entry has
    /// a platform, `index.json` itself is the image, as the OCI image spec allows.
    fn name_the_nameless(&mut self, bytes: &[u8]) {
        let nameless = self.entries.iter().all(|entry| entry.name.is_none() && !entry.has_name());
        let Ok(latest) = reference::local(&self.place, "latest") else { return };
        match self.entries.as_mut_slice() {
            [only] if nameless => only.name = Some(latest),
            [first, others @ ..] if nameless => {
                // Two images for one platform are two images, as `docker save` writes those without a name.
                let distinct: Option<HashSet<String>> =
                    std::iter::once(&*first).chain(&*others).map(Entry::place_in_index).collect();
                if distinct.is_some_and(|distinct| distinct.len() == others.len() + 1) {
                    let (size, digest) = (bytes.len() as u64, digest::sha256(bytes));
                    self.itself = Some(Descriptor::new(MediaType::ImageIndex, size, digest));
                }
            }
            _ => {}
        }
    }

    /// Every name and what it stands for, sorted by name. Names that are no references are left out, with a
    /// warning in the log.
    pub fn names(&self) -> Vec<(Reference, Descriptor)> {
        let pairs = self.entries.iter().filter_map(|entry| Some((entry.name.clone()?, entry.plain())));
        let mut names: Vec<_> = pairs.collect();
        if let (Some(itself), Ok(latest)) = (&self.itself, reference::local(&self.place, "latest")) {
            names.push((latest, itself.clone()));
        }
        names.sort_by_cached_key(|(name, descriptor)| (name.whole(), descriptor.digest().to_string()));
        for entry in self.entries.iter().filter(|entry| entry.name.is_none()) {
            if let Some(text) = entry.annotation(CONTAINERD_NAME).or(entry.annotation(REF_NAME)) {
                tracing::warn!("{}: {} is no image reference", self.place.display(), printable(text));
            }
        }
        names
    }

    /// What a name with a tag stands for. A bare tag is also found where a full name stands beside it, and `latest` where the
    /// only image has a digest in place of a tag, such as crane writes it.
    ///
    /// # Errors
    /// [`Ambiguous`](crate::ErrorKind::Ambiguous) when it stands for several (hostile input: two descriptors with
    /// one name), or when no entry has a name and none can be distinguished from the others.
    pub fn find(&self, name: &Reference) -> Result<Option<Descriptor>> {
        self.one_of(name, self.at(self.places().names.get(name)).collect())
    }

    /// As [`find`](Self::find), in what another tool has written: a tag is found, too, where a digest stands behind it,
    /// as containerd names what was pulled by both.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn find_tag(&self, name: &Reference) -> Result<Option<Descriptor>> {
        let with_digest = self.at(self.places().names_with_digest.get(name));
        self.one_of(name, with_digest.chain(self.at(self.places().names.get(name))).collect())
    }

    /// The names that have a tag, in all repositories, and what they stand for.
    pub fn tagged(&self, tag: &str) -> Vec<(Reference, Descriptor)> {
        let found = self.at(self.places().tags.get(tag));
        let found = found.filter_map(|entry| Some((entry.name.clone()?, entry.plain())));
        found.filter(|(name, _)| name.tag() == Some(tag)).collect()
    }

    /// Gives each name to one entry, as `docker load` does: the last of several has it, and the others keep its
    /// repository and their digest. A digest behind a tag goes. For what is read and never written again.
    pub fn settle_names(&mut self) {
        let mut owners: HashMap<Reference, Digest> = HashMap::new();
        for entry in self.entries.iter_mut().rev() {
            let Some(name) = &entry.name else { continue };
            let name = without_digest(name).unwrap_or_else(|| name.clone());
            let digest = entry.descriptor.digest().clone();
            if name.tag().is_none() || *owners.entry(name.clone()).or_insert_with(|| digest.clone()) == digest
            {
                entry.name = Some(name);
                continue;
            }
            tracing::warn!(
                "{}: {} stands for several images: the last has the name, {digest} is kept by its digest",
                self.place.display(),
                name.whole()
            );
            entry.name = Some(reference::by_digest(&name, &digest));
            entry.tag = None;
        }
        self.places.take();
    }

    fn one_of<'a>(&'a self, name: &Reference, mut found: Vec<&'a Entry>) -> Result<Option<Descriptor>> {
        let tag = name.tag().unwrap_or_default();
        let is_local = reference::local(&self.place, tag).is_ok_and(|local| local == *name);
        if found.is_empty() && is_local {
            let same = |entry: &&Entry| entry.tag.as_deref() == Some(tag);
            found = self.at(self.places().tags.get(tag)).filter(same).collect();
        }
        if found.is_empty() && is_local && tag == "latest" {
            if let Some(itself) = &self.itself {
                return Ok(Some(itself.clone()));
            }
            let nameless = self.entries.len() > 1 && self.entries.iter().all(|entry| !entry.has_name());
            found = self.entries.iter().filter(|_| nameless || self.is_one_without_a_tag()).collect();
        }
        let Some((first, others)) = found.split_first() else { return Ok(None) };
        if others.iter().any(|other| other.descriptor.digest() != first.descriptor.digest()) {
            let digests: Vec<&str> = found.iter().map(|e| e.descriptor.digest().as_ref()).take(20).collect();
            let message = format!("the name stands for several images: {}", digests.join(", "));
            return Err(Error::ambiguous(message).with_image(name).with_hint("choose one by @DIGEST"));
        }
        Ok(Some(first.plain()))
    }

    /// The first names as texts, sorted: for a message that says what there is.
    pub fn first_names(&self) -> &[String] {
        let names = || self.names().iter().take(20).map(|(name, _)| name.whole()).collect();
        self.places().first.get_or_init(names)
    }

    /// The tags of each repository.
    pub fn tag_table(&self) -> &TagTable {
        self.places().tags_of.get_or_init(|| TagTable::of(&self.references()))
    }

    /// The names of all images, sorted.
    pub fn references(&self) -> Vec<Reference> {
        self.names().into_iter().map(|(name, _)| name).collect()
    }

    /// The entries that have no tag, by their digests: those without a name, with one that is no reference, or with a
    /// digest in place of a tag. None where `index.json` itself is the image, or an entry without a name the only one.
    /// Attestations are no images.
    pub fn untagged(&self) -> Vec<Reference> {
        let Ok(local) = reference::local(&self.place, "latest") else { return Vec::new() };
        if self.itself.is_some() {
            return Vec::new();
        }
        let images = self.entries.iter().filter(|entry| !entry.is_attestation());
        let without = images.filter_map(|entry| match &entry.name {
            Some(name) if name.tag().is_some() => None,
            name => Some(reference::by_digest(name.as_ref().unwrap_or(&local), entry.descriptor.digest())),
        });
        let mut seen = HashSet::new();
        without.filter(|name| seen.insert(name.clone())).collect()
    }

    /// Removes the implied name of an only image, and that of `index.json` itself: where
    /// there are other images beside these.
    pub fn forget_derived_names(&mut self) {
        self.itself = None;
        for entry in self.entries.iter_mut().filter(|entry| !entry.has_name()) {
            entry.name = None;
        }
        self.places.take();
    }

    fn is_one_without_a_tag(&self) -> bool {
        let by_digest = |entry: &Entry| entry.name.as_ref().is_some_and(|name| name.tag().is_none());
        matches!(self.entries.as_slice(), [only] if by_digest(only))
    }

    /// The descriptor that the index has for a digest.
    pub fn entry(&self, digest: &Digest) -> Option<&Descriptor> {
        let itself = self.itself.as_ref().filter(|itself| itself.digest() == digest);
        let listed = self.at(self.places().digests.get(digest)).next();
        itself.or_else(|| listed.map(|entry| &entry.descriptor))
    }

    /// The descriptors of all entries, named or not.
    pub fn entries(&self) -> impl Iterator<Item = &Descriptor> {
        self.entries.iter().map(|entry| &entry.descriptor)
    }

    /// What the repository of this place has by digest: entries without any name, and those that have a bare tag beside
    /// a full name.
    pub fn by_digest(&self) -> Vec<(Reference, Descriptor)> {
        let Ok(local) = reference::local(&self.place, "latest") else { return Vec::new() };
        let here = self.entries.iter().filter(|entry| entry.tag.is_some() || !entry.has_name());
        let name = |entry: &Entry| reference::by_digest(&local, entry.descriptor.digest());
        here.map(|entry| (name(entry), entry.plain())).collect()
    }

    /// The entries without a name, each with whether it has one that is no reference.
    pub fn nameless(&self) -> impl Iterator<Item = (&Descriptor, bool)> {
        let nameless = self.entries.iter().filter(|entry| entry.name.is_none());
        nameless.map(|entry| (&entry.descriptor, entry.has_name()))
    }

    /// Removes the entries for which `keep` says no, given their name, if they have one, and what they stand for;
    /// whether there were any.
    pub fn retain(&mut self, mut keep: impl FnMut(Option<&Reference>, &Digest) -> bool) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| keep(entry.name.as_ref(), entry.descriptor.digest()));
        self.places.take();
        before != self.entries.len()
    }

    /// `index.json` as an image of its own, when that is what [`find`](Self::find) has found.
    ///
    /// # Errors
    /// As [`RawManifest::described`].
    pub fn as_image(&self, digest: &Digest, bytes: &Bytes) -> Option<Result<RawManifest>> {
        let itself = self.itself.as_ref().filter(|itself| itself.digest() == digest)?;
        Some(RawManifest::described(bytes.clone(), itself))
    }

    /// The names that are never evicted.
    pub fn pins(&self) -> impl Iterator<Item = &Reference> {
        let pinned = self.entries.iter().filter(|entry| entry.annotation(PINNED).is_some());
        pinned.filter_map(|entry| entry.name.as_ref())
    }

    /// Marks a name as one that is never evicted, or takes the mark away; whether the name was there.
    pub fn pin(&mut self, name: &Reference, pinned: bool) -> bool {
        let mut there = false;
        for entry in self.entries.iter_mut().filter(|entry| entry.name.as_ref() == Some(name)) {
            entry.annotate(PINNED, pinned.then_some("true"));
            there = true;
        }
        there
    }

    /// Lets a name stand for `descriptor` alone. A pinned name stays pinned.
    ///
    /// Both annotations get the full name, so that every tool finds it; a name that is only a tag of this place
    /// (see [`reference::local`]) is written as that tag, unless `full` asks for full names always.
    pub fn set(&mut self, name: &Reference, descriptor: &Descriptor, full: bool) {
        self.keep_derived_names();
        let there = self.places().names.get(name);
        let is_pinned = self.at(there).any(|entry| entry.annotation(PINNED).is_some());
        let (count, place) = there.map_or((0, None), |there| (there.len(), there.first().copied()));
        let tag = name.tag().unwrap_or_default();
        let local = !full && reference::local(&self.place, tag).is_ok_and(|local| local == *name);
        let whole = name.whole();
        let mut entry = Entry {
            raw: written(&sorted(&descriptor_json(descriptor))),
            descriptor: descriptor.clone(),
            name: Some(name.clone()),
            tag: local.then(|| tag.to_owned()),
        };
        entry.annotate(REF_NAME, Some(if local { tag } else { &whole }));
        entry.annotate(CONTAINERD_NAME, Some(whole.as_str()).filter(|_| !local));
        entry.annotate(PINNED, is_pinned.then_some("true"));
        if count > 1 {
            self.remove(name);
        }
        self.entries.push(entry);
        // Thousands of names are set in one change: each is to take the same time.
        let old = place.filter(|_| count == 1).map(|place| (place, self.entries.swap_remove(place)));
        let place = old.as_ref().map_or(self.entries.len() - 1, |(place, _)| *place);
        if let (Some(places), Some(new)) = (self.places.get_mut(), self.entries.get(place)) {
            if let Some((place, old)) = &old {
                places.note(*place, old, false);
            }
            places.note(place, new, true);
        }
    }

    /// Writes the implied name of an only image into its entry.
    fn keep_derived_names(&mut self) {
        if let [entry] = self.entries.as_mut_slice()
            && !entry.has_name()
        {
            self.places.take();
            if let Some(tag) = entry.name.as_ref().and_then(Reference::tag).map(str::to_owned) {
                entry.annotate(REF_NAME, Some(&tag));
                entry.tag = Some(tag);
            }
        }
    }

    /// Removes a name with its entry; whether it was there.
    pub fn remove(&mut self, name: &Reference) -> bool {
        self.retain(|other, _| other != Some(name))
    }

    fn places(&self) -> &Places {
        self.places.get_or_init(|| Places::of(&self.entries))
    }

    /// The entries at some places.
    fn at<'a>(&'a self, places: Option<&'a Vec<usize>>) -> impl Iterator<Item = &'a Entry> {
        places.into_iter().flatten().filter_map(|place| self.entries.get(*place))
    }

    /// Removes the entries for a digest that have a name of `repository` or none; whether there were any.
    pub fn remove_digest(&mut self, repository: &str, digest: &Digest) -> bool {
        let elsewhere = |name: &Reference| reference::repository_of(name) != repository;
        self.retain(|name, other| other != digest || name.is_some_and(elsewhere))
    }

    /// The document: the same bytes for the same content, whatever the order of the changes that led there.
    /// Entries without a name stay first and in their order, because order may mean preference.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by_cached_key(|entry| {
            let written = entry.name.as_ref().filter(|_| entry.has_name());
            written.map(|name| (name.whole(), entry.descriptor.digest().to_string()))
        });
        let list: Vec<&RawValue> = entries.into_iter().map(|entry| &*entry.raw).collect();
        let list = written(&list);
        let mut document: BTreeMap<&str, &RawValue> =
            self.document.iter().map(|(key, value)| (key.as_str(), &**value)).collect();
        document.insert("manifests", &list);
        written(&document).get().as_bytes().to_vec()
    }
}

/// The image that a URI names within a layout, such as `3.20`, `alpine:3.20`, `3.20@sha256:…` or `@sha256:…`.
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config) for what is no reference.
///
/// ```
/// use std::path::Path;
/// use plyfold_core::layout_index::image_in;
///
/// let place = Path::new("/srv/base");
/// assert_eq!(image_in(place, "3.20")?.whole(), "localhost/base:3.20");
/// assert_eq!(image_in(place, "alpine:3.20")?.whole(), "docker.io/library/alpine:3.20");
/// assert!(image_in(place, "../../etc/passwd").is_err());
/// # Ok::<(), plyfold_core::Error>(())
/// ```
pub fn image_in(place: &Path, text: &str) -> Result<Reference> {
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    if name.is_empty() || reference::is_tag(name) {
        let tag = if name.is_empty() { "latest" } else { name };
        let local = reference::local(place, tag)?;
        let Some(digest) = digest else { return Ok(local) };
        let name = if name.is_empty() { reference::repository_of(&local) } else { local.whole() };
        return reference::parse(&format!("{name}@{digest}"));
    }
    reference::parse(text)
}

#[cfg(test)]
mod tests;
