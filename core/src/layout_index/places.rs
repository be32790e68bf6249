//! Look-ups in `index.json`: with tens of thousands of entries, each look-up is to take the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::OnceLock;

use super::entry::Entry;
use crate::registry::TagTable;
use crate::{Digest, Reference, reference};

/// Where entries are, by what they are asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    pub(super) digests: HashMap<Digest, Vec<usize>>,
    pub(super) names: HashMap<Reference, Vec<usize>>,
    /// Names that have a tag and a digest, by their tags alone.
    pub(super) names_with_digest: HashMap<Reference, Vec<usize>>,
    /// The tag of a name, and a bare tag.
    pub(super) tags: HashMap<String, Vec<usize>>,
    /// The first names, for a message.
    pub(super) first: OnceLock<Vec<String>>,
    /// The tags of each repository, for listings.
    pub(super) tags_of: OnceLock<TagTable>,
}

impl Places {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut places = Self::default();
        for (place, entry) in entries.iter().enumerate() {
            places.note(place, entry, true);
        }
        places
    }

    /// Notes that an entry is at a place, or is no longer.
    pub(super) fn note(&mut self, place: usize, entry: &Entry, is_there: bool) {
        self.first.take();
        self.tags_of.take();
        note(&mut self.digests, entry.descriptor.digest().clone(), place, is_there);
        let tag = entry.name.as_ref().and_then(Reference::tag);
        let bare = entry.tag.as_deref().filter(|bare| Some(*bare) != tag);
        for tag in tag.into_iter().chain(bare) {
            note(&mut self.tags, tag.to_owned(), place, is_there);
        }
        let Some(name) = &entry.name else { return };
        note(&mut self.names, name.clone(), place, is_there);
        if let Some(tagged) = without_digest(name) {
            note(&mut self.names_with_digest, tagged, place, is_there);
        }
    }
}

/// The places of a key are sorted.
fn note<K: Eq + Hash>(places: &mut HashMap<K, Vec<usize>>, key: K, place: usize, is_there: bool) {
    let places = places.entry(key).or_default();
    match places.binary_search(&place) {
        Err(at) if is_there => places.insert(at, place),
        Ok(at) if !is_there => drop(places.remove(at)),
        _ => {}
    }
}

/// A name that has a tag and a digest, by its tag alone.
pub(super) fn without_digest(name: &Reference) -> Option<Reference> {
    let (tag, _) = name.tag().zip(name.digest())?;
    reference::parse(&format!("{}:{tag}", reference::repository_of(name))).ok()
}
