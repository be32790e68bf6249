//! What refers to a subject in a layout: what the lists have that are named after it, and the entries without a name,
//! because oras writes each document as one, and no list.

use std::collections::{HashMap, HashSet};

use plyfold_core::manifest::{RawManifest, is_document, limits};
use plyfold_core::{Descriptor, Digest, Error, Reference, Result, referrers};

use crate::root::{Names, Root};

/// The entries without a name of one state of `index.json` that have a subject. Each of them is read once for it,
/// however many subjects are asked for.
#[derive(Debug)]
pub(crate) struct Unlisted {
    /// Which state that is.
    pub(crate) names: Names,
    by_subject: HashMap<Digest, Vec<Descriptor>>,
    referrers: HashSet<Digest>,
    /// What cannot be read.
    damaged: Vec<Descriptor>,
}

impl Unlisted {
    pub(crate) fn read(root: &Root, names: Names) -> Self {
        let (mut by_subject, mut damaged) = (HashMap::<Digest, Vec<Descriptor>>::new(), Vec::new());
        let mut referrers = HashSet::new();
        for (entry, has_name) in names.0.nameless() {
            if has_name || !is_document(entry.media_type()) {
                continue;
            }
            let entry = Descriptor::new(entry.media_type().clone(), entry.size(), entry.digest().clone());
            match document(root, &entry) {
                Ok(raw) => {
                    let Some(subject) = raw.as_ref().and_then(RawManifest::subject) else { continue };
                    referrers.insert(entry.digest().clone());
                    by_subject.entry(subject.digest().clone()).or_default().push(entry);
                }
                Err(_) => damaged.push(entry),
            }
        }
        Self { names, by_subject, referrers, damaged }
    }

    /// Whether this entry has a subject.
    pub(crate) fn is_referrer(&self, digest: Option<&str>) -> bool {
        digest.and_then(|digest| digest.parse().ok()).is_some_and(|digest| self.referrers.contains(&digest))
    }

    /// What refers to a subject, each document once. `list` is the name that a list of them has in some repository.
    pub(crate) fn of(&self, root: &Root, list: &Reference, subject: &Digest) -> Result<Vec<Descriptor>> {
        let mut found = Vec::new();
        for (name, top) in self.names.0.tagged(list.tag().unwrap_or_default()) {
            let raw = document(root, &top).map_err(|e| e.with_image(&name))?;
            let missing = || Error::not_found(format!("no blob {}", top.digest())).with_image(&name);
            found.extend(referrers::listed(&raw.ok_or_else(missing)?).map_err(|e| e.with_image(&name))?);
        }
        for entry in self.by_subject.get(subject).into_iter().flatten().chain(&self.damaged) {
            let raw =
                document(root, entry)?.filter(|raw| raw.subject().is_some_and(|of| of.digest() == subject));
            found.extend(raw.map(|raw| referrers::descriptor(&raw)));
        }
        let mut known = HashSet::new();
        found.retain(|entry| known.insert(entry.digest().clone()));
        Ok(found)
    }
}

/// A document that is here.
fn document(root: &Root, entry: &Descriptor) -> Result<Option<RawManifest>> {
    let bytes = root.read_blob(entry.digest(), limits::MANIFEST)?;
    bytes.map(|bytes| RawManifest::described(bytes, entry)).transpose()
}
