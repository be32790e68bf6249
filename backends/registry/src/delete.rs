//! Deletes (distribution specification, "Content Management").

use plyfold_core::{Advice, Digest, Error, ErrorKind, Reference, Result, digest, reference};
use reqwest::Method;

use crate::auth::Access;
use crate::client::{Client, Target};
use crate::manifests::{manifest_path, name_of};
use crate::policy::origin;
use crate::upload::expect_success;

impl Client {
    /// Removes a tag, or with a digest the manifest and all its tags.
    pub(crate) async fn remove(&self, reference: &Reference) -> Result<()> {
        let digest = reference::digest_of(reference)?;
        let subject = match &digest {
            Some(_) => match self.read_manifest(reference).await {
                Ok(raw) => raw.subject().cloned(),
                Err(e) if e.is_retryable() => return Err(e),
                // A document that is not a valid manifest can be deleted too.
                Err(_) => None,
            },
            None => None,
        };
        let (target, name) = self.target(reference, Access::Delete)?;
        self.send_delete(&target, &manifest_path(&name), &name_of(&name)).await.map_err(|e| {
            match (e.kind(), &digest) {
                // docker-registry calls the tag an invalid digest; others say 405.
                (ErrorKind::Corrupt | ErrorKind::Unsupported, None) => {
                    Error::unsupported("the registry deletes by digest only")
                        .with_endpoint(origin(&target.base))
                        .with_advice(Advice::DeleteByDigest { image: reference.to_string() })
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
        let (target, _) = self.target(reference, Access::Delete)?;
        self.send_delete(&target, &format!("blobs/{digest}"), &format!("blob {digest}")).await
    }

    async fn send_delete(&self, target: &Target, path: &str, what: &str) -> Result<()> {
        let response = self.send(target, target.request(Method::DELETE, path)).await?;
        expect_success(response, what).await
    }
}
