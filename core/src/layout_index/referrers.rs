//! What refers to a subject in a layout: what the lists have that are named after it, and the entries without a name,
//! because oras writes each document as one, and no list.

use std::collections::{HashMap, HashSet};

use super::LayoutIndex;
use crate::cache::MissingBlob;
use crate::manifest::{RawManifest, is_document};
use crate::{Descriptor, Digest, Error, Reference, Result, referrers};

/// The entries without a name of an `index.json` that have a subject. Each of them is read once for it, however many
/// subjects are asked for.
///
/// The functions that read a document give `None` for one that is missing.
#[derive(Debug, Default)]
pub struct IndexReferrers {
    by_subject: HashMap<Digest, Vec<Descriptor>>,
    referrers: HashSet<Digest>,
    /// What is damaged or missing: it may refer to anything.
    unread: Vec<Descriptor>,
}

impl IndexReferrers {
    /// Those of an index.
    pub fn read(index: &LayoutIndex, document: impl Fn(&Descriptor) -> Result<Option<RawManifest>>) -> Self {
        let mut found = Self::default();
        for (entry, has_name) in index.nameless() {
            if has_name || !is_document(entry.media_type()) {
                continue;
            }
            let entry = Descriptor::new(entry.media_type().clone(), entry.size(), entry.digest().clone());
            match document(&entry) {
                Ok(Some(raw)) => {
                    let Some(subject) = raw.subject() else { continue };
                    found.referrers.insert(entry.digest().clone());
                    found.by_subject.entry(subject.digest().clone()).or_default().push(entry);
                }
                Ok(None) | Err(_) => found.unread.push(entry),
            }
        }
        found
    }

    /// Orders names that are digests: what refers to others comes last.
    pub fn sort(&self, untagged: &mut [Reference]) {
        let is_referrer = |digest: &str| digest.parse().is_ok_and(|digest| self.referrers.contains(&digest));
        untagged.sort_by_cached_key(|name| name.digest().is_some_and(is_referrer));
    }

    /// What refers to a subject by the same index, each document once. `list` is the name that a list of them has in some
    /// repository.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) with a [`MissingBlob`] for a list that is missing, and for an entry without a
    /// name that is: it may refer to the subject. [`Corrupt`](crate::ErrorKind::Corrupt) for what is no list, and those of
    /// `document`.
    pub fn of(
        &self,
        index: &LayoutIndex,
        (list, subject): (&Reference, &Digest),
        document: impl Fn(&Descriptor) -> Result<Option<RawManifest>>,
    ) -> Result<Vec<Descriptor>> {
        let mut found = Vec::new();
        for (name, top) in index.tagged(list.tag().unwrap_or_default()) {
            let at = |e: Error| e.with_image(&name);
            let raw = document(&top).map_err(at)?.ok_or_else(|| at(missing(&top)))?;
            found.extend(referrers::listed(&raw).map_err(at)?);
        }
        for entry in self.by_subject.get(subject).into_iter().flatten().chain(&self.unread) {
            let raw = document(entry)?.ok_or_else(|| missing(entry))?;
            if raw.subject().is_some_and(|of| of.digest() == subject) {
                found.push(referrers::descriptor(&raw));
            }
        }
        let mut known = HashSet::new();
        found.retain(|entry| known.insert(entry.digest().clone()));
        Ok(found)
    }
}

fn missing(entry: &Descriptor) -> Error {
    MissingBlob(entry.digest().clone()).into()
}
