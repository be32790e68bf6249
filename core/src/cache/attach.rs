//! Documents that refer to an image of a cache: kept under the name that the distribution specification gives the list of
//! them ("Referrers Tag Schema").

use std::collections::{BTreeMap, HashSet, VecDeque};

use bytes::Bytes;
use serde_json::json;

use super::{CacheProvider, Lease, NameChange, content, index};
use crate::manifest::{RawManifest, canonical_json, limits};
use crate::referrers::{Change, changed, is_of_type, listed};
use crate::{
    Blob, BlobRange, Descriptor, Digest, Error, ErrorKind, MediaType, Reference, Result, digest, reference,
};

/// What stands in the place of a configuration, and its only content (OCI image spec, `manifest.md`).
const EMPTY: (&str, &[u8]) = ("application/vnd.oci.empty.v1+json", b"{}");

/// The body of `attach`.
pub(super) async fn attach(
    cache: &dyn CacheProvider,
    name: &Reference,
    subject: &Descriptor,
    media_type: &MediaType,
    document: &[u8],
) -> Result<Descriptor> {
    let blob = |media_type: MediaType, bytes: &[u8]| {
        Descriptor::new(media_type, bytes.len() as u64, digest::sha256(bytes))
    };
    let config = blob(MediaType::Other(EMPTY.0.to_owned()), EMPTY.1);
    let layer = blob(media_type.clone(), document);
    let manifest = canonical_json(&json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest.as_ref(),
        "artifactType": media_type.as_ref(),
        "config": config,
        "layers": [layer],
        "subject": Descriptor::new(subject.media_type().clone(), subject.size(), subject.digest().clone()),
    }));
    let raw = RawManifest::new(manifest.clone(), None)?;
    let entry = raw.descriptor().clone();
    // Nothing of it is collected until the list has it.
    let parts = [config.digest(), layer.digest(), entry.digest()].map(Clone::clone);
    let _lease = cache.lease(&parts).await?;
    for (of, bytes) in [(&config, EMPTY.1), (&layer, document), (&entry, &manifest[..])] {
        content::put(cache, Blob::from_bytes(of, BlobRange::FULL, &Bytes::copy_from_slice(bytes))?).await?;
    }
    list(cache, name, std::slice::from_ref(&raw)).await?;
    Ok(entry)
}

/// The body of `list_referrers`. What else the lists have stays.
pub(super) async fn list(
    cache: &dyn CacheProvider,
    name: &Reference,
    referrers: &[RawManifest],
) -> Result<()> {
    set(cache, &referrers.iter().map(|referrer| (name, referrer)).collect::<Vec<_>>(), &[]).await
}

/// As [`list`], for referrers of several repositories, and changes names in one step with the last of the lists: with all
/// of them as far as they together are no larger than one may be.
pub(super) async fn set(
    cache: &dyn CacheProvider,
    referrers: &[(&Reference, &RawManifest)],
    changes: &[NameChange],
) -> Result<()> {
    let mut lists: BTreeMap<String, (Reference, Vec<&RawManifest>)> = BTreeMap::new();
    for (name, referrer) in referrers {
        let Some(subject) = referrer.subject() else { continue };
        let name = reference::referrers_of(name, subject.digest());
        lists.entry(name.whole()).or_insert_with(|| (name, Vec::new())).1.push(referrer);
    }
    let mut lists: VecDeque<_> = lists.into_values().collect();
    // Other writers of lists wait: none reads one that another is about to replace.
    let _turn = if lists.is_empty() { Lease::none() } else { cache.single_flight(index::LISTS).await? };
    let mut attempts = 0;
    loop {
        let mut written = Written::default();
        for (name, referrers) in &lists {
            written.add(cache, name, referrers).await.map_err(|e| e.with_image(name).with_endpoint(cache))?;
            if written.bytes > limits::MANIFEST {
                break;
            }
        }
        let is_last = written.count == lists.len();
        if written.store(cache, if is_last { changes } else { &[] }).await? {
            if is_last {
                return Ok(());
            }
            lists.drain(..written.count);
            attempts = 0;
        } else if attempts == index::ATTEMPTS {
            let what = "concurrent writers keep changing the list of referrers";
            let error = Error::new(ErrorKind::Unavailable, what).with_endpoint(cache);
            return Err(match lists.front() {
                Some((name, _)) => error.with_image(name),
                None => error,
            });
        }
        attempts += 1;
    }
}

/// Some lists, each with what is added to it, in one change of names.
#[derive(Default)]
struct Written {
    /// How many lists were looked at.
    count: usize,
    /// Bytes of the lists that change.
    bytes: u64,
    /// Each with what its name stands for, and what is added.
    changed: Vec<(Reference, RawManifest, Option<RawManifest>)>,
    given: Vec<Descriptor>,
}

impl Written {
    async fn add(&mut self, cache: &dyn CacheProvider, name: &Reference, new: &[&RawManifest]) -> Result<()> {
        self.count += 1;
        let before = index::existing(cache, name).await?;
        let Some(bytes) = changed(before.as_ref(), &Change::Add(new))? else { return Ok(()) };
        let list = RawManifest::new(bytes, Some(&MediaType::ImageIndex))?;
        self.bytes += list.descriptor().size();
        self.given.extend(new.iter().map(|referrer| referrer.descriptor().clone()));
        self.changed.push((name.clone(), list, before));
        Ok(())
    }

    /// Whether all of it is stored, and the names are changed: no list has changed meanwhile.
    async fn store(&self, cache: &dyn CacheProvider, names: &[NameChange]) -> Result<bool> {
        let Some((first, ..)) = self.changed.first() else {
            if !names.is_empty() {
                cache.update(names).await?;
            }
            return Ok(true);
        };
        let at = |e: Error| e.with_image(first).with_endpoint(cache);
        // A document that is here protects what it leads to.
        let documents = self.changed.iter().flat_map(|(_, list, before)| [Some(list), before.as_ref()]);
        let documents: Vec<Digest> = documents.flatten().map(|raw| raw.digest().clone()).collect();
        let _lease = index::present(cache, &self.given, &documents).await.map_err(at)?;
        // Content of the lists may have been removed before the lease was taken. Check again now that the lease is held.
        for (name, _, before) in &self.changed {
            if index::existing(cache, name).await.map_err(at)? != *before {
                return Ok(false);
            }
        }
        let mut changes: Vec<_> = self.given.iter().cloned().map(NameChange::Require).collect();
        for (name, list, _) in &self.changed {
            content::put(cache, Blob::from_bytes(list.descriptor(), BlobRange::FULL, list.bytes())?).await?;
            changes.push(NameChange::Set(name.clone(), list.descriptor().clone()));
        }
        changes.extend_from_slice(names);
        cache.update(&changes).await?;
        Ok(true)
    }
}

/// What refers to a subject, of one type or of all, by the lists of all repositories: an image may have another name here
/// than where it was listed.
pub(super) async fn referrers(
    cache: &dyn CacheProvider,
    image: &Reference,
    subject: &Digest,
    artifact_type: Option<&MediaType>,
) -> Result<Vec<Descriptor>> {
    let list = reference::referrers_of(image, subject);
    let (mut found, mut known) = (Vec::new(), HashSet::new());
    for (name, top) in cache.list().await?.into_iter().filter(|(name, _)| name.tag() == list.tag()) {
        let at = |e: Error| e.with_image(&name).with_endpoint(cache);
        let raw = content::read(cache, &top, limits::MANIFEST).await.map_err(at)?;
        for entry in RawManifest::described(raw, &top).and_then(|raw| listed(&raw)).map_err(at)? {
            if known.insert(entry.digest().clone()) {
                found.push(entry);
            }
        }
    }
    found.retain(|entry| is_of_type(entry, artifact_type));
    Ok(found)
}
