//! Documents that refer to an image of a cache: kept under the name that the distribution specification gives the list of
//! them ("Referrers Tag Schema").

use bytes::Bytes;
use serde_json::json;

use super::{CacheProvider, NameChange, Needs, content, index};
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
    list(cache, name, &raw).await?;
    Ok(entry)
}

/// The body of `list_referrer`. What else the list has stays.
pub(super) async fn list(cache: &dyn CacheProvider, name: &Reference, referrer: &RawManifest) -> Result<()> {
    let Some(subject) = referrer.subject() else { return Ok(()) };
    let name = &reference::referrers_of(name, subject.digest());
    let at = |e: Error| e.with_image(name).with_endpoint(cache);
    // Other writers of this list wait: none reads one that another is about to replace.
    let _turn = index::turn(cache, name).await?;
    let given = referrer.descriptor();
    for _ in 0..index::ATTEMPTS {
        let before = index::existing(cache, name).await.map_err(at)?;
        let Some(bytes) = changed(before.as_ref(), &Change::Add(referrer)).map_err(at)? else {
            return Ok(());
        };
        let list = RawManifest::new(bytes, Some(&MediaType::ImageIndex)).map_err(at)?;
        let mut others = vec![list.digest().clone()];
        if let Some(before) = &before {
            others.extend(Needs::of(cache, before.descriptor()).await?.digests());
        }
        let _lease = index::present(cache, std::slice::from_ref(given), &others).await.map_err(at)?;
        // Content of the list may have been removed before the lease was taken. Check again now that the lease is held.
        if index::existing(cache, name).await.map_err(at)? != before {
            continue;
        }
        content::put(cache, Blob::from_bytes(list.descriptor(), BlobRange::FULL, list.bytes())?).await?;
        let set = NameChange::Set(name.clone(), list.descriptor().clone());
        return cache.update(&[NameChange::Require(given.clone()), set]).await;
    }
    Err(at(Error::new(ErrorKind::Unavailable, "concurrent writers keep changing the list of referrers")))
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
    let mut found: Vec<Descriptor> = Vec::new();
    for (name, top) in cache.list().await?.into_iter().filter(|(name, _)| name.tag() == list.tag()) {
        let at = |e: Error| e.with_image(&name).with_endpoint(cache);
        let raw = content::read(cache, &top, limits::MANIFEST).await.map_err(at)?;
        for entry in RawManifest::described(raw, &top).and_then(|raw| listed(&raw)).map_err(at)? {
            if found.iter().all(|known| known.digest() != entry.digest()) {
                found.push(entry);
            }
        }
    }
    found.retain(|entry| is_of_type(entry, artifact_type));
    Ok(found)
}
