//! What is stored becomes the archive.

use std::collections::{BTreeMap, HashSet};

use plyfold_core::blocking::Stop;
use plyfold_core::layout_index::{LAYOUT, blob_name};
use plyfold_core::manifest::limits;
use plyfold_core::save::{DELTA, link_header};
use plyfold_core::{Digest, Error, RawManifest, Reference, Result, reference};

use super::content::{Content, Needs};
use super::delta::Delta;
use super::lists::Lists;
use super::part::Part;
use super::place::there_is;
use crate::Config;
use crate::images::Images;
use crate::members::MemberKind;

/// Documents of the archive that was there which the new one has anew, or not: `repositories` is a list of names that only
/// Docker before 1.10 reads.
const REPLACED: [&str; 4] = ["index.json", "manifest.json", "oci-layout", "repositories"];

/// What the archive is to have beside blobs.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// What each name is to stand for; without a tag it is listed by its digest.
    pub(crate) names: Vec<(Reference, RawManifest)>,
    /// What refers to others, and the repository that lists it.
    pub(crate) referrers: Vec<(Reference, RawManifest)>,
    /// What indexes list, and is not there.
    pub(crate) absent: Vec<Digest>,
}

/// # Errors
/// `NotFound` when a name leads to what is not there, those of reading the archive that is there, and of writing. What is
/// stored stays for another attempt, and the archive is as it was.
pub(super) fn publish(part: &mut Part, change: &Change, config: &Config, stop: &Stop) -> Result<()> {
    let there = there_is(&part.target)?;
    let old = there.as_ref().map(|_| Images::read(&part.target, config, stop)).transpose()?;
    let pushed = part.pushed.clone();
    let content = Content { old: old.as_ref(), pushed: &pushed, stop };
    let mut needs = Needs::new(&content, &change.absent);
    for (name, raw) in &change.names {
        let at = |e: Error| e.with_image(name);
        needs.visit(raw, limits::NESTING + 1).map_err(at)?;
        needs.check().map_err(at)?;
    }
    for (blob, member) in needs.renamed {
        stop.check()?;
        part.blob(&blob, member.reader(0))?;
    }
    for (_, raw) in change.names.iter().chain(&change.referrers) {
        if content.document(raw.descriptor())?.is_none() {
            part.document(raw)?;
        }
    }
    let mut lists = Lists::of(&content, &part.target, config.docker_list)?;
    for (list, referrers) in lists_of(change) {
        if let Some(raw) = lists.referrers(&list, &referrers, &content)? {
            part.document(&raw)?;
            lists.set(&list, &raw, &content)?;
        }
    }
    for (name, raw) in &change.names {
        lists.set(name, raw, &content)?;
    }
    let (documents, is_changed) = lists.documents();
    let stored = pushed.digests();
    if !is_changed && stored.is_empty() {
        return Ok(());
    }
    let known: HashSet<String> = stored.iter().map(blob_name).collect();
    let delta = old.as_ref().map_or(Ok(Delta::Kept), |old| Delta::of(old, &known))?;
    let mut tail = part.tail(stop)?;
    if let Some(old) = &old {
        for (name, kind) in old.members().sorted() {
            stop.check()?;
            let is_old_delta = name == DELTA && !matches!(delta, Delta::Kept);
            if REPLACED.contains(&name) || known.contains(name) || is_old_delta {
                continue;
            }
            match kind {
                MemberKind::File(member) => tail.member(name, member)?,
                MemberKind::Link { target, hard } => tail.raw(&link_header(name, target, *hard)?)?,
                MemberKind::Other => {}
            }
        }
    }
    for (name, bytes) in documents {
        tail.bytes(name, &bytes)?;
    }
    if let Delta::Rewritten(bytes) = delta {
        tail.bytes(DELTA, &bytes)?;
    }
    tail.bytes("oci-layout", LAYOUT.as_bytes())?;
    tail.publish(there.as_ref())
}

/// What each list of referrers is to have in addition.
fn lists_of(change: &Change) -> Vec<(Reference, Vec<&RawManifest>)> {
    let mut lists: BTreeMap<String, (Reference, Vec<&RawManifest>)> = BTreeMap::new();
    for (name, raw) in change.names.iter().chain(&change.referrers) {
        let Some(subject) = raw.subject() else { continue };
        let list = reference::referrers_of(name, subject.digest());
        lists.entry(list.whole()).or_insert_with(|| (list, Vec::new())).1.push(raw);
    }
    lists.into_values().collect()
}
