//! An index made of another one.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::manifest::{Document, RawManifest, canonical_json, limits};
use crate::strict::invalid;
use crate::{Descriptor, Digest, Error, Result, Size};

/// Bytes of all documents that one index leads to, and of those that are made of them.
const DOCUMENTS: u64 = 64 << 20;

/// What is made of the documents that an index leads to. However often entries repeat a digest, with the same size and media
/// type it is looked at once: hostile input lists one document many times, and in each of those another.
#[async_trait]
pub(crate) trait Rewrite: Send {
    /// Whether an entry may stay.
    fn takes(&self, _entry: &Descriptor) -> bool {
        true
    }

    /// What an entry leads to.
    async fn child(&mut self, entry: &Descriptor) -> Result<Child>;

    /// What becomes of a manifest, to which `entry` led unless it is the root; `None` leaves it out.
    async fn manifest(
        &mut self,
        raw: &RawManifest,
        _entry: Option<&Descriptor>,
    ) -> Result<Option<RawManifest>> {
        Ok(Some(raw.clone()))
    }

    /// What becomes of an index with these entries; `None` leaves it out.
    fn index(&mut self, raw: &RawManifest, entries: Entries<'_>) -> Result<Option<RawManifest>> {
        with_entries(raw, entries)
    }
}

/// What an entry of an index leads to.
pub(crate) enum Child {
    /// A document, of which something is made.
    Document(Box<RawManifest>),
    /// The entry stays as it is.
    Kept,
    /// The entry is left out.
    LeftOut,
}

/// The entries of an index, in their order.
pub(crate) struct Entries<'a> {
    pub(crate) old: &'a [Descriptor],
    /// What stands in their places.
    pub(crate) new: Vec<Option<Descriptor>>,
    /// What the documents that were read are about.
    pub(crate) subjects: Vec<Option<Digest>>,
}

impl Entries<'_> {
    /// Leaves out what is about one of some digests, and what is about that, by what each entry is about; how many entries.
    pub(crate) fn leave_out_about(
        &mut self,
        mut digests: HashSet<Digest>,
        subjects: &[Option<Digest>],
    ) -> usize {
        let pairs = self.old.iter().zip(subjects);
        add_about(&mut digests, pairs.filter_map(|(old, of)| Some((old.digest().clone(), of.clone()?))));
        let of = self.new.iter_mut().zip(subjects);
        let about = of.filter(|(_, of)| of.as_ref().is_some_and(|subject| digests.contains(subject)));
        about.filter_map(|(new, _)| new.take()).count()
    }
}

/// What is made of `root`: itself when nothing changes, `None` when nothing is left. Also all documents that are new, those
/// before others that list them.
pub(crate) async fn rewrite(
    rules: &mut dyn Rewrite,
    root: &RawManifest,
) -> Result<(Option<RawManifest>, Vec<RawManifest>)> {
    let mut walk = Walk { rules, known: HashMap::new(), made: Vec::new(), bytes: 0 };
    let made = walk.of(root, None, limits::NESTING).await?;
    Ok((made, walk.made))
}

/// What tells entries apart, whatever else they say.
pub(crate) type EntryKey = (Digest, u64, String);

pub(crate) fn key(entry: &Descriptor) -> EntryKey {
    (entry.digest().clone(), entry.size(), entry.media_type().to_string())
}

struct Walk<'a> {
    rules: &'a mut dyn Rewrite,
    /// For each entry what stands in its place, and what it is about.
    known: HashMap<EntryKey, (Option<Descriptor>, Option<Digest>)>,
    made: Vec<RawManifest>,
    /// Of the documents.
    bytes: u64,
}

impl Walk<'_> {
    fn of<'s>(
        &'s mut self,
        raw: &'s RawManifest,
        entry: Option<&'s Descriptor>,
        depth: usize,
    ) -> BoxFuture<'s, Result<Option<RawManifest>>> {
        Box::pin(async move {
            self.count(raw)?;
            // No read may ever wait, and an interrupt is to be heard between two documents.
            tokio::task::yield_now().await;
            let made = match raw.document() {
                Document::Manifest(_) => self.rules.manifest(raw, entry).await?,
                Document::Index(index) => {
                    let too_deep = format!("indexes are nested more than {} deep", limits::NESTING);
                    let depth = depth.checked_sub(1).ok_or_else(|| Error::limit(too_deep))?;
                    let old = index.manifests();
                    let (mut new, mut subjects) = (Vec::with_capacity(old.len()), Vec::new());
                    for entry in old {
                        let (made, subject) = self.entry(entry, depth).await?;
                        new.push(made);
                        subjects.push(subject);
                    }
                    self.rules.index(raw, Entries { old, new, subjects })?
                }
            };
            if let Some(made) = made.as_ref().filter(|made| made.digest() != raw.digest()) {
                self.count(made)?;
                self.made.push(made.clone());
            }
            Ok(made)
        })
    }

    fn count(&mut self, raw: &RawManifest) -> Result<()> {
        self.bytes = self.bytes.saturating_add(raw.descriptor().size());
        if self.bytes > DOCUMENTS {
            let message = format!("the image has more than {} of manifests and indexes", Size(DOCUMENTS));
            return Err(Error::limit(message));
        }
        Ok(())
    }

    /// What stands in the place of an entry, and what it is about.
    async fn entry(
        &mut self,
        entry: &Descriptor,
        depth: usize,
    ) -> Result<(Option<Descriptor>, Option<Digest>)> {
        if !self.rules.takes(entry) {
            return Ok((None, None));
        }
        let key = key(entry);
        let (made, subject) = if let Some(known) = self.known.get(&key) {
            known.clone()
        } else {
            let looked = self.looked(entry, depth).await?;
            self.known.insert(key, looked.clone());
            looked
        };
        let entry = made.map(|made| {
            let mut entry = entry.clone();
            if made.digest() != entry.digest() {
                entry.set_digest(made.digest().clone());
                entry.set_size(made.size());
                entry.set_media_type(made.media_type().clone());
            }
            entry
        });
        Ok((entry, subject))
    }

    async fn looked(
        &mut self,
        entry: &Descriptor,
        depth: usize,
    ) -> Result<(Option<Descriptor>, Option<Digest>)> {
        let raw = match self.rules.child(entry).await? {
            Child::Document(raw) => raw,
            Child::Kept => return Ok((Some(entry.clone()), None)),
            Child::LeftOut => return Ok((None, None)),
        };
        let subject = raw.subject().map(|subject| subject.digest().clone());
        let made = self.of(&raw, Some(entry), depth).await?;
        Ok((made.map(|made| made.descriptor().clone()), subject))
    }
}

/// Adds to some digests all that is about one of them, and what is about that. Each pair is a digest and what it is about.
pub(crate) fn add_about(digests: &mut HashSet<Digest>, pairs: impl IntoIterator<Item = (Digest, Digest)>) {
    let mut about: HashMap<Digest, Vec<Digest>> = HashMap::new();
    for (digest, subject) in pairs {
        about.entry(subject).or_default().push(digest);
    }
    let mut left: Vec<Digest> = digests.iter().cloned().collect();
    while let Some(subject) = left.pop() {
        for digest in about.remove(&subject).unwrap_or_default() {
            if digests.insert(digest.clone()) {
                left.push(digest);
            }
        }
    }
}

/// The index with these entries; `None` when nothing is left.
pub(crate) fn with_entries(raw: &RawManifest, entries: Entries<'_>) -> Result<Option<RawManifest>> {
    let Entries { old, new, .. } = entries;
    if old.iter().zip(&new).all(|(old, new)| Some(old) == new.as_ref()) {
        return Ok(Some(raw.clone()));
    }
    let mut document: Value = serde_json::from_slice(raw.bytes()).map_err(invalid)?;
    let Some(Value::Array(list)) = document.get_mut("manifests") else {
        return Err(invalid("there is no list \"manifests\""));
    };
    let left = std::mem::take(list).into_iter().zip(old.iter().zip(new));
    *list = left.filter_map(|(entry, (old, new))| Some(with_content(entry, old, &new?))).collect();
    if list.is_empty() {
        return Ok(None);
    }
    let media_type = raw.descriptor().media_type();
    RawManifest::new(canonical_json(&document), Some(media_type)).map(Some)
}

/// The entry with the content of `new` in place of `old`. Fields that plyfold does not know stay.
fn with_content(mut entry: Value, old: &Descriptor, new: &Descriptor) -> Value {
    if let Value::Object(entry) = &mut entry
        && old.digest() != new.digest()
    {
        entry.insert("digest".to_owned(), json!(new.digest()));
        entry.insert("size".to_owned(), json!(new.size()));
        if old.media_type() != new.media_type() {
            entry.insert("mediaType".to_owned(), json!(new.media_type()));
        }
        entry.remove("data");
    }
    entry
}
