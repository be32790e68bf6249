//! What of an index is for some platforms.

use std::collections::{HashMap, HashSet};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::manifest::{Document, RawManifest, canonical_json, is_index};
use crate::registry::ImageRegistry;
use crate::strict::invalid;
use crate::{Descriptor, Digest, Platform, Reference, Result, select};

/// On the descriptor of an attestation that `BuildKit` puts beside an image: the digest of that image.
pub(crate) const SUBJECT: &str = "vnd.docker.reference.digest";

/// The image for each of these platforms that `root` leads to, the indexes on the way, and their attestations of all
/// that.
pub(crate) async fn chosen(
    from: &dyn ImageRegistry,
    image: &Reference,
    root: &RawManifest,
    platforms: &[Platform],
) -> Result<HashSet<Digest>> {
    let (mut chosen, mut indexes) = (HashSet::new(), Vec::new());
    for platform in platforms {
        let found = select::find_in(from, image, Box::new(root.clone()), platform).await?;
        chosen.insert(found.raw.digest().clone());
        let fresh = found.indexes.into_iter().filter(|index| chosen.insert(index.digest().clone()));
        indexes.extend(fresh.collect::<Vec<_>>());
    }
    let children = indexes.iter().filter_map(|raw| match raw.document() {
        Document::Index(index) => Some(index.manifests()),
        Document::Manifest(_) => None,
    });
    let attestations: Vec<(&Digest, Digest)> =
        children.flatten().filter_map(|child| Some((child.digest(), subject(child)?))).collect();
    loop {
        let before = chosen.len();
        for (attestation, subject) in &attestations {
            if chosen.contains(subject) {
                chosen.insert((*attestation).clone());
            }
        }
        if chosen.len() == before {
            return Ok(chosen);
        }
    }
}

/// The image that an attestation beside it is about.
pub(crate) fn subject(child: &Descriptor) -> Option<Digest> {
    annotation(child, SUBJECT)?.parse().ok()
}

pub(crate) fn annotation<'a>(descriptor: &'a Descriptor, key: &str) -> Option<&'a str> {
    descriptor.annotations().as_ref()?.get(key).map(String::as_str)
}

/// What is taken of an index.
pub(crate) struct Part {
    /// The index of what is taken; itself when all of it is.
    pub(crate) root: RawManifest,
    /// Indexes within it that list less, too, by their new digests.
    pub(crate) rewritten: HashMap<Digest, RawManifest>,
    /// What the original index lists, and is not taken.
    pub(crate) left_out: Vec<Digest>,
}

/// The part of `root` that is `chosen`.
pub(crate) async fn part(
    from: &dyn ImageRegistry,
    image: &Reference,
    root: &RawManifest,
    chosen: &HashSet<Digest>,
) -> Result<Part> {
    let mut part = Part { root: root.clone(), rewritten: HashMap::new(), left_out: Vec::new() };
    // What is chosen is not empty, so something is left of the root.
    if let Some(root) = part.take(from, image, root, chosen).await? {
        part.root = root;
    }
    Ok(part)
}

impl Part {
    fn take<'s>(
        &'s mut self,
        from: &'s dyn ImageRegistry,
        image: &'s Reference,
        raw: &'s RawManifest,
        chosen: &'s HashSet<Digest>,
    ) -> BoxFuture<'s, Result<Option<RawManifest>>> {
        Box::pin(async move {
            let Document::Index(index) = raw.document() else { return Ok(Some(raw.clone())) };
            let mut kept = Vec::with_capacity(index.manifests().len());
            for child in index.manifests() {
                if !chosen.contains(child.digest()) {
                    self.left_out.push(child.digest().clone());
                    kept.push(None);
                    continue;
                }
                let mut own = child.clone();
                if is_index(child.media_type()) {
                    // Those on the way were read to choose: they are no deeper than a choice may be.
                    let nested = select::child(from, image, child).await?;
                    let Some(left) = self.take(from, image, &nested, chosen).await? else {
                        kept.push(None);
                        continue;
                    };
                    if left.digest() != nested.digest() {
                        own.set_digest(left.digest().clone());
                        own.set_size(left.descriptor().size());
                        self.rewritten.insert(left.digest().clone(), left);
                    }
                }
                kept.push(Some(own));
            }
            with_children(raw, index.manifests(), kept)
        })
    }
}

/// The index with `kept` in place of its children, in their order; `None` when nothing is left.
pub(crate) fn with_children(
    raw: &RawManifest,
    children: &[Descriptor],
    kept: Vec<Option<Descriptor>>,
) -> Result<Option<RawManifest>> {
    if children.iter().zip(&kept).all(|(child, kept)| Some(child) == kept.as_ref()) {
        return Ok(Some(raw.clone()));
    }
    let mut document: Value = serde_json::from_slice(raw.bytes()).map_err(invalid)?;
    let Some(Value::Array(list)) = document.get_mut("manifests") else {
        return Err(invalid("there is no list \"manifests\""));
    };
    let left = std::mem::take(list).into_iter().zip(children.iter().zip(kept));
    *list = left.filter_map(|(entry, (child, kept))| Some(with_content(entry, child, &kept?))).collect();
    if list.is_empty() {
        return Ok(None);
    }
    let media_type = raw.descriptor().media_type();
    RawManifest::new(canonical_json(&document), Some(media_type)).map(Some)
}

/// The entry for `child`, with the content of `kept`. Fields that plyfold does not know stay.
fn with_content(mut entry: Value, child: &Descriptor, kept: &Descriptor) -> Value {
    if let Value::Object(entry) = &mut entry
        && child.digest() != kept.digest()
    {
        entry.insert("digest".to_owned(), json!(kept.digest()));
        entry.insert("size".to_owned(), json!(kept.size()));
        if child.media_type() != kept.media_type() {
            entry.insert("mediaType".to_owned(), json!(kept.media_type()));
        }
        entry.remove("data");
    }
    entry
}
