//! Referrers (distribution specification, "Listing Referrers"), and where a registry has no API for them: the index under
//! the fallback tag ("Pushing Manifests with Subject" and "Deleting Manifests").

use std::collections::HashSet;
use std::time::Duration;

use plyfold_core::manifest::limits;
use plyfold_core::reference::referrers_of;
use plyfold_core::referrers::{Change, changed, is_of_type, listed};
use plyfold_core::{Descriptor, Digest, Error, ErrorKind, MediaType, RawManifest, Reference, Result, digest};
use reqwest::header::{ACCEPT, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, Request, StatusCode};
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
        found.retain(|entry| is_of_type(entry, artifact_type));
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
        let (mut found, mut known) = (Vec::new(), HashSet::new());
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
            let before = found.len();
            let entries = listed(&RawManifest::new(bytes, Some(&MediaType::ImageIndex))?)?;
            let is_empty = entries.is_empty();
            found.extend(entries.into_iter().filter(|entry| known.insert(entry.digest().clone())));
            if found.len() > limits::INDEX_ENTRIES {
                return Err(Error::limit(format!("more than {} referrers", limits::INDEX_ENTRIES)));
            }
            let Some(next) = next? else { return Ok(Some(found)) };
            // A registry may leave a page empty that has nothing of the type.
            if found.len() == before && !is_empty {
                return Err(Error::corrupt(
                    "a page of referrers repeats those before, and links to one more",
                ));
            }
            request = Request::new(Method::GET, next);
        }
        Err(Error::limit(format!("more than {PAGES} pages of referrers")))
    }

    async fn referrers_tag(&self, reference: &Reference, subject: &Digest) -> Result<Vec<Descriptor>> {
        let name = referrers_of(reference, subject);
        let raw = Error::found(self.read_manifest(&name).await).map_err(|e| e.with_image(&name))?;
        raw.map_or_else(|| Ok(Vec::new()), |raw| listed(&raw))
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
