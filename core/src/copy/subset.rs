//! What of an index is for some platforms.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;

use super::ends::of_source;
use super::rewrite::{self, Child, Entries, Rewrite, with_entries};
use crate::manifest::{Document, RawManifest, is_document, is_index};
use crate::progress::Event;
use crate::registry::ImageRegistry;
use crate::{Descriptor, Digest, Error, Platform, Reference, Result, select};

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
    let about = children.flatten().filter_map(|child| Some((child.digest().clone(), subject(child)?)));
    rewrite::add_about(&mut chosen, about.collect::<Vec<_>>());
    Ok(chosen)
}

/// The image that an attestation beside it is about.
pub(crate) fn subject(child: &Descriptor) -> Option<Digest> {
    annotation(child, SUBJECT)?.parse().ok()
}

/// Attestations that indexes list of an image.
pub(crate) fn attestations_of(image: &Digest, indexes: &[RawManifest]) -> usize {
    let children = indexes.iter().filter_map(|raw| match raw.document() {
        Document::Index(index) => Some(index.manifests()),
        Document::Manifest(_) => None,
    });
    let about: HashSet<&Digest> = children
        .flatten()
        .filter(|child| subject(child).as_ref() == Some(image))
        .map(Descriptor::digest)
        .collect();
    about.len()
}

/// The warning that an image is taken without the index that its attestations stand in; `None` when it has none there.
pub(crate) fn without_attestations(
    image: &Reference,
    taken: &RawManifest,
    indexes: &[RawManifest],
) -> Option<Event> {
    let count = attestations_of(taken.digest(), indexes);
    let message = format!("{image}: {count} attestations stand in the index, and are left out with it");
    (count > 0).then_some(Event::Warning { message })
}

pub(crate) fn annotation<'a>(descriptor: &'a Descriptor, key: &str) -> Option<&'a str> {
    descriptor.annotations().as_ref()?.get(key).map(String::as_str)
}

/// What is taken of an index.
pub(crate) struct Part {
    /// The index of what is taken; itself when all of it is.
    pub(crate) root: RawManifest,
    /// It and indexes within it that list less, too, by their new digests.
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
    let mut taking = Taking { from, image, chosen, left_out: Vec::new() };
    let (left, made) = rewrite::rewrite(&mut taking, root).await?;
    let rewritten = made.into_iter().map(|raw| (raw.digest().clone(), raw)).collect();
    // What is chosen is not empty, so something is left of the root.
    Ok(Part { root: left.unwrap_or_else(|| root.clone()), rewritten, left_out: taking.left_out })
}

/// The part of `root` that the source has, without attestations of what it lacks.
///
/// # Errors
/// `NotFound` when it has nothing of it; those of the source.
pub(crate) async fn there(from: &dyn ImageRegistry, image: &Reference, root: &RawManifest) -> Result<Part> {
    let mut having = Having { from, image, left_out: Vec::new() };
    let (left, made) = rewrite::rewrite(&mut having, root).await?;
    let rewritten = made.into_iter().map(|raw| (raw.digest().clone(), raw)).collect();
    match (left, having.left_out.first()) {
        (Some(root), _) => Ok(Part { root, rewritten, left_out: having.left_out }),
        (None, None) => Ok(Part { root: root.clone(), rewritten, left_out: Vec::new() }),
        (None, Some(lacking)) => {
            let error = Error::not_found("none of the images of the index is in the source");
            Err(of_source(error, lacking).with_image(image).with_endpoint(from))
        }
    }
}

struct Having<'a> {
    from: &'a dyn ImageRegistry,
    image: &'a Reference,
    left_out: Vec<Digest>,
}

#[async_trait]
impl Rewrite for Having<'_> {
    async fn child(&mut self, entry: &Descriptor) -> Result<Child> {
        if !is_document(entry.media_type()) {
            return Ok(Child::Kept);
        }
        let child = Error::found(select::child(self.from, self.image, entry).await)?;
        if child.is_none() {
            self.left_out.push(entry.digest().clone());
        }
        Ok(child.map_or(Child::LeftOut, |child| Child::Document(Box::new(child))))
    }

    fn index(&mut self, raw: &RawManifest, entries: Entries<'_>) -> Result<Option<RawManifest>> {
        without_attestations_of_others(raw, entries)
    }
}

/// The index with these entries, without attestations of what it does not list.
pub(crate) fn without_attestations_of_others(
    raw: &RawManifest,
    mut entries: Entries<'_>,
) -> Result<Option<RawManifest>> {
    let subjects: Vec<Option<Digest>> = entries.old.iter().map(subject).collect();
    let kept = entries.old.iter().zip(&entries.new).filter(|(_, new)| new.is_some());
    let kept: HashSet<&Digest> = kept.map(|(old, _)| old.digest()).collect();
    let gone = subjects.iter().flatten().filter(|subject| !kept.contains(subject)).cloned().collect();
    entries.leave_out_about(gone, &subjects);
    with_entries(raw, entries)
}

struct Taking<'a> {
    from: &'a dyn ImageRegistry,
    image: &'a Reference,
    chosen: &'a HashSet<Digest>,
    left_out: Vec<Digest>,
}

#[async_trait]
impl Rewrite for Taking<'_> {
    async fn child(&mut self, entry: &Descriptor) -> Result<Child> {
        if !self.chosen.contains(entry.digest()) {
            self.left_out.push(entry.digest().clone());
            return Ok(Child::LeftOut);
        }
        if !is_index(entry.media_type()) {
            return Ok(Child::Kept);
        }
        Ok(Child::Document(Box::new(select::child(self.from, self.image, entry).await?)))
    }
}
