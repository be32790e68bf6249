//! Lists of what refers to a subject, as the index that the distribution specification describes ("Referrers Tag
//! Schema", "Pushing Manifests with Subject", "Deleting Manifests").

use std::collections::HashSet;

use serde_json::json;

use crate::manifest::{Document, RawManifest, descriptor_json};
use crate::{Descriptor, Digest, Error, ErrorKind, MediaType, Result};

/// What happens to a list of referrers.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Change<'a> {
    /// These manifests are in it.
    Add(&'a [&'a RawManifest]),
    /// This one is not.
    Remove(&'a Digest),
}

/// Refuses a document of the list of a subject that refers to something else, or to nothing: it would come to other images, or
/// seem to be about this one.
///
/// # Errors
/// [`Corrupt`](ErrorKind::Corrupt).
pub(crate) fn check_subject(raw: &RawManifest, subject: &Digest) -> Result<()> {
    let of = match raw.subject() {
        Some(of) if of.digest() == subject => return Ok(()),
        Some(of) => of.digest().to_string(),
        None => "nothing".to_owned(),
    };
    let message = format!("{} is listed as a document about {subject}, and refers to {of}", raw.digest());
    Err(Error::corrupt(message).with_context("document", raw.digest()))
}

/// The list after a change, or `None` when it is so already. What others have written into it stays.
///
/// # Errors
/// [`Corrupt`](ErrorKind::Corrupt) when the old one is not an index.
pub fn changed(old: Option<&RawManifest>, change: &Change<'_>) -> Result<Option<Vec<u8>>> {
    let empty = json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex.as_ref(), "manifests": [] });
    let mut list = match old {
        None => empty,
        Some(raw) if matches!(raw.document(), Document::Manifest(_)) => {
            return Err(Error::corrupt("the tag for the list of referrers names no index"));
        }
        Some(raw) => serde_json::from_slice(raw.bytes())
            .map_err(|e| Error::corrupt("the list of referrers is not JSON").with_source(e))?,
    };
    if list["manifests"].is_null() {
        // Go's tools write an empty list as `null`.
        list["manifests"] = json!([]);
    }
    let entries = list["manifests"].as_array_mut();
    let entries = entries.ok_or_else(|| Error::corrupt("the list of referrers has no entries"))?;
    let before = entries.len();
    match change {
        Change::Add(manifests) => {
            let listed = entries.iter().filter_map(|entry| entry["digest"].as_str().map(str::to_owned));
            let mut listed: HashSet<String> = listed.collect();
            let fresh = manifests.iter().filter(|manifest| listed.insert(manifest.digest().to_string()));
            entries.extend(fresh.map(|manifest| descriptor_json(&descriptor(manifest))));
        }
        Change::Remove(digest) => {
            let at = entries.iter().position(|entry| entry["digest"] == digest.as_ref());
            at.map(|index| entries.remove(index));
        }
    }
    if entries.len() == before {
        return Ok(None);
    }
    let written = serde_json::to_vec(&list);
    written.map(Some).map_err(|e| Error::new(ErrorKind::Internal, "writing an index").with_source(e))
}

/// The entries of a list.
///
/// # Errors
/// [`Corrupt`](crate::ErrorKind::Corrupt) when it is not an index.
pub fn listed(raw: &RawManifest) -> Result<Vec<Descriptor>> {
    match raw.document() {
        Document::Index(index) => Ok(index.manifests().clone()),
        Document::Manifest(_) => Err(Error::corrupt("the list of referrers is not an index")),
    }
}

/// Whether an entry of a list has the artifact type that is asked for. Without one, each does.
pub fn is_of_type(entry: &Descriptor, artifact_type: Option<&MediaType>) -> bool {
    artifact_type.is_none_or(|wanted| entry.artifact_type().as_ref() == Some(wanted))
}

/// A manifest as lists of referrers have it ("Listing Referrers").
pub fn descriptor(manifest: &RawManifest) -> Descriptor {
    // An empty one is as good as none.
    let given = |kind: &Option<MediaType>| kind.clone().filter(|kind| !kind.as_ref().is_empty());
    let (artifact_type, annotations) = match manifest.document() {
        Document::Index(index) => (given(index.artifact_type()), index.annotations()),
        Document::Manifest(manifest) => {
            let own = given(manifest.artifact_type());
            (own.or_else(|| Some(manifest.config().media_type().clone())), manifest.annotations())
        }
    };
    let own = manifest.descriptor();
    let mut entry = Descriptor::new(own.media_type().clone(), own.size(), own.digest().clone());
    entry.set_artifact_type(artifact_type);
    entry.set_annotations(annotations.clone());
    entry
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::reference::{self, referrers_of};
    use crate::{Reference, digest};

    fn signature(name: &str) -> RawManifest {
        let config = r#"{"mediaType":"application/vnd.example.sig","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#;
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{config},"layers":[],"annotations":{{"name":"{name}"}}}}"#
        );
        RawManifest::new(text, None).unwrap()
    }

    #[test]
    fn entries_of_others_and_fields_of_the_future_stay() {
        let old = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","future":[1],"manifests":[
            {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"theirs":true}]}"#;
        let old = RawManifest::new(old, None).unwrap();
        let ours = signature("ours");
        let new = changed(Some(&old), &Change::Add(&[&ours])).unwrap().unwrap();
        let list: Value = serde_json::from_slice(&new).unwrap();
        assert_eq!(list["future"], json!([1]));
        assert_eq!(list["manifests"][0]["theirs"], json!(true));
        assert_eq!(list["manifests"][1]["digest"], ours.digest().as_ref());
        assert_eq!(list["manifests"][1]["artifactType"], "application/vnd.example.sig");
        assert_eq!(list["manifests"][1]["annotations"], json!({ "name": "ours" }));

        let new = RawManifest::new(new, None).unwrap();
        assert_eq!(changed(Some(&new), &Change::Add(&[&ours])).unwrap(), None);
        let back = changed(Some(&new), &Change::Remove(ours.digest())).unwrap().unwrap();
        let back = RawManifest::new(back, None).unwrap();
        assert_eq!(changed(Some(&back), &Change::Remove(ours.digest())).unwrap(), None);
        assert_eq!(changed(None, &Change::Remove(ours.digest())).unwrap(), None);
        assert!(changed(Some(&ours), &Change::Add(&[&ours])).is_err());
    }

    /// "If the artifactType is empty or missing in the image manifest" it is the config's type.
    #[test]
    fn an_empty_artifact_type_is_none() {
        let plain = signature("x");
        let text = String::from_utf8(plain.bytes().to_vec()).unwrap();
        let empty = text.replacen('{', r#"{"artifactType":"","#, 1);
        let empty = RawManifest::new(empty, None).unwrap();
        assert_eq!(descriptor(&empty).artifact_type(), descriptor(&plain).artifact_type());
    }

    #[test]
    fn fallback_tags_are_tags() {
        let name: Reference = reference::parse("r.example/a:1").unwrap();
        for (algorithm, length) in [("sha256", 64), ("sha512", 128)] {
            let digest = digest::parse(&format!("{algorithm}:{}", "a".repeat(length))).unwrap();
            let tag = format!("{algorithm}-{}", "a".repeat(64));
            assert_eq!(referrers_of(&name, &digest).tag(), Some(tag.as_str()));
        }
    }
}
