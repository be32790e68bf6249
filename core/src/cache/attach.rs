//! Documents that refer to an image of a cache: kept under the name that the distribution specification gives the list of
//! them ("Referrers Tag Schema").

use bytes::Bytes;
use serde_json::json;

use super::{CacheProvider, content, index};
use crate::manifest::{Document, RawManifest, canonical_json, limits};
use crate::{Blob, BlobRange, Descriptor, Digest, Error, MediaType, Reference, Result, digest, reference};

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
    let mut entry = raw.descriptor().clone();
    entry.set_artifact_type(Some(media_type.clone()));
    // Nothing of it is collected until the list has it.
    let parts = [config.digest(), layer.digest(), entry.digest()].map(Clone::clone);
    let _lease = cache.lease(&parts).await?;
    for (of, bytes) in [(&config, EMPTY.1), (&layer, document), (&entry, &manifest[..])] {
        content::put(cache, Blob::from_bytes(of, BlobRange::FULL, &Bytes::copy_from_slice(bytes))?).await?;
    }
    index::write(cache, &reference::referrers_of(name, subject.digest()), std::slice::from_ref(&entry))
        .await?;
    Ok(entry)
}

/// What refers to a subject, of one type or of all.
pub(super) async fn referrers(
    cache: &dyn CacheProvider,
    image: &Reference,
    subject: &Digest,
    artifact_type: Option<&MediaType>,
) -> Result<Vec<Descriptor>> {
    let name = reference::referrers_of(image, subject);
    let Some(list) = cache.find_descriptor(&name).await? else { return Ok(Vec::new()) };
    let at = |e: Error| e.with_image(&name).with_endpoint(cache);
    let raw = RawManifest::described(content::read(cache, &list, limits::MANIFEST).await.map_err(at)?, &list);
    let raw = raw.map_err(at)?;
    let Document::Index(index) = raw.document() else {
        return Err(at(Error::corrupt("the list of referrers is not an index")));
    };
    let is_wanted = |entry: &&Descriptor| {
        artifact_type.is_none_or(|wanted| entry.artifact_type().as_ref() == Some(wanted))
    };
    Ok(index.manifests().iter().filter(is_wanted).cloned().collect())
}
