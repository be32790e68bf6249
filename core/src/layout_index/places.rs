//! Look-ups in `index.json`: with tens of thousands of entries, each look-up is to take the same time.

use std::collections::HashMap;

use super::entry::Entry;
use crate::{Digest, Reference, reference};

/// Where entries are, by what they are asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// The first entry of each digest.
    pub(super) digests: HashMap<Digest, usize>,
    pub(super) names: HashMap<Reference, Vec<usize>>,
    /// Names that have a tag and a digest, by their tags alone.
    pub(super) names_with_digest: HashMap<Reference, Vec<usize>>,
    /// The tag of a name, and a bare tag.
    pub(super) tags: HashMap<String, Vec<usize>>,
}

impl Places {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut places = Self::default();
        for (place, entry) in entries.iter().enumerate() {
            places.digests.entry(entry.descriptor.digest().clone()).or_insert(place);
            let tag = entry.name.as_ref().and_then(Reference::tag);
            let bare = entry.tag.as_deref().filter(|bare| Some(*bare) != tag);
            for tag in tag.into_iter().chain(bare) {
                places.tags.entry(tag.to_owned()).or_default().push(place);
            }
            let Some(name) = &entry.name else { continue };
            places.names.entry(name.clone()).or_default().push(place);
            if let Some(tagged) = without_digest(name) {
                places.names_with_digest.entry(tagged).or_default().push(place);
            }
        }
        places
    }
}

/// A name that has a tag and a digest, by its tag alone.
pub(super) fn without_digest(name: &Reference) -> Option<Reference> {
    let (tag, _) = name.tag().zip(name.digest())?;
    reference::parse(&format!("{}:{tag}", reference::repository_of(name))).ok()
}
