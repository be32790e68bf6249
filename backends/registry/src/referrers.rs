//! Referrers (distribution specification, "Listing Referrers"), and where a registry has no API for them: the index under
//! the fallback tag ("Pushing Manifests with Subject" and "Deleting Manifests").

use std::time::Duration;

use plyfold_core::manifest::{Document, limits};
use plyfold_core::reference::referrers_of;
use plyfold_core::{Descriptor, Digest, Error, ErrorKind, MediaType, RawManifest, Reference, Result, digest};
use reqwest::header::{ACCEPT, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::auth::Access;
use crate::client::{Client, Target};
use crate::error;
use crate::link::next_link;
use crate::manifests::{manifest_put, manifest_request, name_of};
use crate::response::media_type;
use crate::upload::expect_success;

/// Pages of referrers that are put together.
const PAGES: usize = 64;
/// How often a list is written again after a concurrent write. Each round one writer succeeds, so this many writers can
/// write at the same time.
const TRIES: usize = 10;
/// The longest wait for concurrent writers.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What happens to a list of referrers.
pub(crate) enum Change<'a> {
    Add(&'a RawManifest),
    Remove(&'a Digest),
}

impl Client {
    /// The API where there is one, else the index under the fallback tag ("Referrers Tag Schema"); filtered here,
    /// because a registry may ignore the filter.
    pub(crate) async fn list_referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        digest::supported(subject)?;
        let (target, reference) = self.target(reference, Access::Pull)?;
        let mut found = match self.referrers_api(&target, subject, artifact_type).await? {
            Some(found) => found,
            None => self.referrers_tag(&reference, subject).await?,
        };
        let wanted = |descriptor: &Descriptor| {
            artifact_type.is_none_or(|wanted| descriptor.artifact_type().as_ref() == Some(wanted))
        };
        found.retain(wanted);
        Ok(found)
    }

    /// The answer of the referrers API; `None` when the registry has no such API.
    async fn referrers_api(
        &self,
        target: &Target,
        subject: &Digest,
        artifact_type: Option<&MediaType>,
    ) -> Result<Option<Vec<Descriptor>>> {
        let mut request = target.request(Method::GET, &format!("referrers/{subject}"));
        if let Some(artifact_type) = artifact_type {
            request.url_mut().query_pairs_mut().append_pair("artifactType", artifact_type.as_ref());
        }
        let mut found = Vec::new();
        for page in 0..PAGES {
            let accept = HeaderValue::from_static("application/vnd.oci.image.index.v1+json");
            request.headers_mut().insert(ACCEPT, accept);
            let response = self.send(target, request).await?;
            // A front end that answers every path with an HTML page has no such API.
            let is_other =
                response.status() == StatusCode::OK && media_type(&response) != Some(MediaType::ImageIndex);
            // A registry with a first page has the API: an error of a later page is an error.
            if page == 0 && (error::is_lack(response.status()) || is_other) {
                return Ok(None);
            }
            let next = next_link(&response);
            let bytes = self.document(response, limits::MANIFEST, "list of referrers").await?;
            found.extend(children(&RawManifest::new(bytes, Some(&MediaType::ImageIndex))?)?);
            if found.len() > limits::INDEX_ENTRIES {
                return Err(Error::limit(format!("more than {} referrers", limits::INDEX_ENTRIES)));
            }
            let Some(next) = next? else { return Ok(Some(found)) };
            request = Request::new(Method::GET, next);
        }
        Err(Error::limit(format!("more than {PAGES} pages of referrers")))
    }

    async fn referrers_tag(&self, reference: &Reference, subject: &Digest) -> Result<Vec<Descriptor>> {
        let name = referrers_of(reference, subject);
        let raw = Error::found(self.read_manifest(&name).await).map_err(|e| e.with_image(&name))?;
        raw.map_or_else(|| Ok(Vec::new()), |raw| children(&raw))
    }

    /// Takes a manifest that has just been deleted out of the list, where the registry does not do so itself.
    pub(crate) async fn unlist(
        &self,
        reference: &Reference,
        digest: &Digest,
        subject: &Digest,
    ) -> Result<()> {
        let (target, reference) = self.target(reference, Access::Delete)?;
        if self.referrers_api(&target, subject, None).await?.is_some() {
            return Ok(());
        }
        self.change_list(&target, &referrers_of(&reference, subject), &Change::Remove(digest)).await
    }

    /// Reads, changes and writes a list until it is as it should be. Other processes do not share our lock: a registry
    /// with conditional writes refuses a write based on an old list; without them, the list is read again after
    /// the write.
    pub(crate) async fn change_list(
        &self,
        target: &Target,
        list: &Reference,
        change: &Change<'_>,
    ) -> Result<()> {
        let _turn = self.site.lists.lock().await;
        for _ in 0..TRIES {
            let start = Instant::now();
            let (old, condition) = self.read_list(target, list).await?;
            let Some(new) = changed(old.as_ref(), change)? else { return Ok(()) };
            let new = RawManifest::new(new, Some(&MediaType::ImageIndex))?;
            let mut request = manifest_put(target, list, &new)?;
            request.headers_mut().extend(condition);
            let response = self.send(target, request).await?;
            if response.status() != StatusCode::PRECONDITION_FAILED {
                expect_success(response, &name_of(list)).await?;
            }
            // A concurrent writer that has read the same list and is not slower has written it by then.
            tokio::time::sleep(start.elapsed().min(LONGEST_WAIT)).await;
        }
        Err(Error::new(ErrorKind::Unavailable, "concurrent writers keep changing the list of referrers")
            .with_context("list", list))
    }

    /// A list where it is written, for mirrors may be behind; and what has to hold for it to be overwritten.
    async fn read_list(
        &self,
        target: &Target,
        list: &Reference,
    ) -> Result<(Option<RawManifest>, Option<(HeaderName, HeaderValue)>)> {
        let request = manifest_request(target, Method::GET, list);
        let response = self.send(target, request).await?;
        // A weak entity tag never matches (RFC 9110 13.1.1).
        let version = response.headers().get(ETAG).filter(|version| version.as_bytes().starts_with(b"\""));
        let version = version.cloned();
        Ok(match Error::found(self.verified_manifest(response, None, &name_of(list)).await)? {
            Some(raw) => (Some(raw), version.map(|version| (IF_MATCH, version))),
            None => (None, Some((IF_NONE_MATCH, HeaderValue::from_static("*")))),
        })
    }
}

/// The list after a change, or `None` when it is so already. What others have written into it stays.
fn changed(old: Option<&RawManifest>, change: &Change<'_>) -> Result<Option<Vec<u8>>> {
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
    let at = |digest: &Digest| entries.iter().position(|entry| entry["digest"] == digest.as_ref());
    match change {
        Change::Add(manifest) if at(manifest.digest()).is_some() => return Ok(None),
        Change::Add(manifest) => entries.push(entry(manifest)),
        Change::Remove(digest) => match at(digest) {
            Some(index) => drop(entries.remove(index)),
            None => return Ok(None),
        },
    }
    let written = serde_json::to_vec(&list);
    written.map(Some).map_err(|e| Error::new(ErrorKind::Internal, "writing an index").with_source(e))
}

fn children(raw: &RawManifest) -> Result<Vec<Descriptor>> {
    match raw.document() {
        Document::Index(index) => Ok(index.manifests().clone()),
        Document::Manifest(_) => Err(Error::corrupt("the list of referrers is not an index")),
    }
}

/// A manifest as lists of referrers have it ("Listing Referrers").
fn entry(manifest: &RawManifest) -> Value {
    let descriptor = manifest.descriptor();
    let mut entry = json!({
        "mediaType": descriptor.media_type().as_ref(),
        "digest": descriptor.digest().as_ref(),
        "size": descriptor.size(),
    });
    // An empty one is as good as none.
    let given = |kind: &Option<MediaType>| kind.clone().filter(|kind| !kind.as_ref().is_empty());
    let (artifact_type, annotations) = match manifest.document() {
        Document::Index(index) => (given(index.artifact_type()), index.annotations()),
        Document::Manifest(manifest) => {
            let own = given(manifest.artifact_type());
            (own.or_else(|| Some(manifest.config().media_type().clone())), manifest.annotations())
        }
    };
    if let Some(artifact_type) = artifact_type {
        entry["artifactType"] = artifact_type.as_ref().into();
    }
    if let Some(annotations) = annotations {
        entry["annotations"] = json!(annotations);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let new = changed(Some(&old), &Change::Add(&ours)).unwrap().unwrap();
        let list: Value = serde_json::from_slice(&new).unwrap();
        assert_eq!(list["future"], json!([1]));
        assert_eq!(list["manifests"][0]["theirs"], json!(true));
        assert_eq!(list["manifests"][1]["digest"], ours.digest().as_ref());
        assert_eq!(list["manifests"][1]["artifactType"], "application/vnd.example.sig");
        assert_eq!(list["manifests"][1]["annotations"], json!({ "name": "ours" }));

        let new = RawManifest::new(new, None).unwrap();
        assert_eq!(changed(Some(&new), &Change::Add(&ours)).unwrap(), None);
        let back = changed(Some(&new), &Change::Remove(ours.digest())).unwrap().unwrap();
        let back = RawManifest::new(back, None).unwrap();
        assert_eq!(changed(Some(&back), &Change::Remove(ours.digest())).unwrap(), None);
        assert_eq!(changed(None, &Change::Remove(ours.digest())).unwrap(), None);
        assert!(changed(Some(&ours), &Change::Add(&ours)).is_err());
    }

    /// "If the artifactType is empty or missing in the image manifest" it is the config's type.
    #[test]
    fn an_empty_artifact_type_is_none() {
        let plain = signature("x");
        let text = String::from_utf8(plain.bytes().to_vec()).unwrap();
        let empty = text.replacen('{', r#"{"artifactType":"","#, 1);
        let empty = RawManifest::new(empty, None).unwrap();
        assert_eq!(entry(&empty)["artifactType"], entry(&plain)["artifactType"]);
    }

    #[test]
    fn fallback_tags_are_tags() {
        let name: Reference = plyfold_core::reference::parse("r.example/a:1").unwrap();
        for (algorithm, length) in [("sha256", 64), ("sha512", 128)] {
            let digest = digest::parse(&format!("{algorithm}:{}", "a".repeat(length))).unwrap();
            let tag = format!("{algorithm}-{}", "a".repeat(64));
            assert_eq!(referrers_of(&name, &digest).tag(), Some(tag.as_str()));
        }
    }
}
