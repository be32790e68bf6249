//! Writing: mounts, manifests, deletes (distribution specification, "Pushing" and "Content Management").

use plyfold_core::{Descriptor, Digest, Error, ErrorKind, RawManifest, Reference, Result, digest, reference};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, StatusCode};

use crate::auth::Access;
use crate::backend::{manifest_path, name_of, stated_digest};
use crate::client::Target;
use crate::policy::origin;
use crate::subject::subject;
use crate::upload::{expect_created, post};
use crate::{Registry, errors};

impl Registry {
    /// Mounts a blob of another repository; a registry that starts an upload instead has refused.
    pub(crate) async fn mount(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        from: &Reference,
    ) -> Result<bool> {
        digest::supported(blob.digest())?;
        let (source, from) = self.client.target(from, Access::Pull)?;
        let (target, _) = self.client.target(reference, Access::Mount(from.repository()))?;
        if source.base != target.base {
            return Ok(false);
        }
        let mut request = post(&target);
        request
            .url_mut()
            .query_pairs_mut()
            .append_pair("mount", blob.digest().as_ref())
            .append_pair("from", from.repository());
        let response = self.client.send(&target, request).await?;
        match response.status() {
            StatusCode::CREATED => Ok(true),
            StatusCode::ACCEPTED => Ok(false),
            _ => Err(errors::status(response, "mount").await),
        }
    }

    /// Stores a manifest byte for byte, under the reference's tag, or else by digest.
    pub(crate) async fn write_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        let media_type = manifest.descriptor().media_type();
        if let Some(wanted) = reference::digest_of(reference)? {
            RawManifest::verified(manifest.bytes().clone(), Some(media_type), &wanted)?;
        }
        let (target, reference) = self.client.target(reference, Access::Push)?;
        let knows_subject = self.put_manifest(&target, &reference, manifest).await?;
        match subject(manifest) {
            Some(subject) if !knows_subject => {
                self.list_under_subject(&target, &reference, manifest, subject).await
            }
            _ => Ok(()),
        }
    }

    /// Stores a manifest; with whether the registry takes care of its subject.
    async fn put_manifest(
        &self,
        target: &Target,
        reference: &Reference,
        manifest: &RawManifest,
    ) -> Result<bool> {
        let request = manifest_put(target, reference, manifest)?;
        let response = self.client.send(target, request).await?;
        let stated = stated_digest(&response);
        let knows_subject = response.headers().contains_key("oci-subject");
        expect_created(response, &name_of(reference)).await?;
        match stated.filter(|stated| stated.algorithm() == manifest.digest().algorithm()) {
            Some(stated) if stated != *manifest.digest() => {
                Err(Error::corrupt(format!("the registry stored {stated} in place of {}", manifest.digest())))
            }
            _ => Ok(knows_subject),
        }
    }

    /// Removes a tag, or with a digest the manifest and all its tags.
    pub(crate) async fn remove(&self, reference: &Reference) -> Result<()> {
        let digest = reference::digest_of(reference)?;
        let subject = match &digest {
            Some(_) => match self.read_manifest(reference).await {
                Ok(raw) => subject(&raw).cloned(),
                Err(e) if e.is_retryable() => return Err(e),
                // A document that is not a valid manifest can be deleted too.
                Err(_) => None,
            },
            None => None,
        };
        let (target, name) = self.client.target(reference, Access::Delete)?;
        self.send_delete(&target, &manifest_path(&name), &name_of(&name)).await.map_err(|e| {
            match (e.kind(), &digest) {
                // docker-registry calls the tag an invalid digest; others say 405.
                (ErrorKind::Corrupt | ErrorKind::Unsupported, None) => {
                    let hint = format!(
                        "`plyfold inspect --remote {reference}` shows the digest; deleting that takes all tags of it along"
                    );
                    Error::unsupported("the registry deletes by digest only")
                        .with_endpoint(origin(&target.base))
                        .with_hint(hint)
                        .with_source(e)
                }
                _ => e,
            }
        })?;
        match digest.zip(subject) {
            Some((digest, subject)) => self.unlist(&name, &digest, subject.digest()).await,
            None => Ok(()),
        }
    }

    /// Removes a blob.
    pub(crate) async fn remove_blob(&self, reference: &Reference, digest: &Digest) -> Result<()> {
        digest::supported(digest)?;
        let (target, _) = self.client.target(reference, Access::Delete)?;
        self.send_delete(&target, &format!("blobs/{digest}"), &format!("blob {digest}")).await
    }

    async fn send_delete(&self, target: &Target, path: &str, what: &str) -> Result<()> {
        let response = self.client.send(target, target.request(Method::DELETE, path)).await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(errors::status(response, what).await)
    }
}

/// A request that stores a manifest.
pub(crate) fn manifest_put(
    target: &Target,
    reference: &Reference,
    manifest: &RawManifest,
) -> Result<Request> {
    let path = match reference.tag() {
        Some(tag) => format!("manifests/{tag}"),
        None => manifest_path(reference),
    };
    let mut request = target.request(Method::PUT, &path);
    let content_type = HeaderValue::from_str(manifest.descriptor().media_type().as_ref())
        .map_err(|e| Error::corrupt("the manifest's media type is not one").with_source(e))?;
    request.headers_mut().insert(CONTENT_TYPE, content_type);
    *request.body_mut() = Some(manifest.bytes().clone().into());
    Ok(request)
}
