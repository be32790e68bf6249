//! What the server holds: repositories of blobs, manifests and tags.

use std::collections::BTreeMap;

use bytes::Bytes;
use plyfold_core::Digest;
use plyfold_core::digest::{self, Hasher};
use serde_json::Value;

/// A manifest with the media type it was stored under.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) media_type: String,
    pub(super) bytes: Bytes,
}

/// One repository. Keys are digests as text, so that a test can store what does not match.
#[derive(Debug, Default)]
pub(super) struct Repository {
    pub(super) blobs: BTreeMap<String, Bytes>,
    pub(super) manifests: BTreeMap<String, Stored>,
    pub(super) tags: BTreeMap<String, String>,
}

impl Repository {
    /// The manifest that a tag or digest names, with its digest.
    pub(super) fn manifest(&self, reference: &str) -> Option<(String, Stored)> {
        let digest = self.tags.get(reference).map_or(reference, String::as_str);
        Some((digest.to_owned(), self.manifests.get(digest)?.clone()))
    }

    /// The index of the manifests whose subject is `digest` ("Listing Referrers").
    pub(super) fn referrers(&self, digest: &str, artifact_type: Option<&str>) -> Bytes {
        let mut found = Vec::new();
        for (own_digest, stored) in &self.manifests {
            let Ok(document) = serde_json::from_slice::<Value>(&stored.bytes) else { continue };
            if document["subject"]["digest"] != digest {
                continue;
            }
            let own_type = document["artifactType"].as_str().or(document["config"]["mediaType"].as_str());
            let own_type = own_type.unwrap_or_default();
            if artifact_type.is_some_and(|wanted| wanted != own_type) {
                continue;
            }
            let mut annotations = String::new();
            if let Some(map) = document["annotations"].as_object() {
                annotations = format!(r#","annotations":{}"#, Value::Object(map.clone()));
            }
            let (media_type, size) = (&stored.media_type, stored.bytes.len());
            found.push(format!(
                r#"{{"mediaType":"{media_type}","digest":"{own_digest}","size":{size},"artifactType":"{own_type}"{annotations}}}"#
            ));
        }
        let manifests = found.join(",");
        let index = "application/vnd.oci.image.index.v1+json";
        format!(r#"{{"schemaVersion":2,"mediaType":"{index}","manifests":[{manifests}]}}"#).into()
    }
}

/// The subject that a pushed manifest names.
pub(super) fn subject(manifest: &[u8]) -> Option<String> {
    let document: Value = serde_json::from_slice(manifest).ok()?;
    Some(document["subject"]["digest"].as_str()?.to_owned())
}

/// Whether `bytes` are what `digest` says; `None` when that is no digest at all.
pub(super) fn verified(digest: &str, bytes: &[u8]) -> Option<bool> {
    let digest = digest::parse(digest).ok()?;
    let mut hasher = Hasher::like(&digest).ok()?;
    hasher.update(bytes);
    Some(hasher.finish() == digest)
}

/// The tag under which referrers are listed where there is no API for them ("Referrers Tag Schema"): of the digest no
/// more than 64 characters.
pub(super) fn fallback_tag(digest: &str) -> String {
    let (algorithm, hex) = digest.split_once(':').unwrap_or_default();
    format!("{algorithm}-{}", hex.get(..64).unwrap_or(hex))
}

/// The text of a digest, as the keys of [`Repository`] are written.
pub(super) fn key(digest: &Digest) -> String {
    digest.to_string()
}
