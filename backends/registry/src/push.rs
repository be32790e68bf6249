//! Storing manifests (distribution specification, "Pushing Manifests").

use plyfold_core::{Error, RawManifest, Reference, Result, reference};

use crate::auth::Access;
use crate::client::{Client, Target};
use crate::manifests::{manifest_put, name_of};
use crate::response::other_digest;
use crate::upload::expect_created;

impl Client {
    /// Stores a manifest byte for byte, under the reference's tag, or else by digest.
    pub(crate) async fn write_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        let media_type = manifest.descriptor().media_type();
        if let Some(wanted) = reference::digest_of(reference)? {
            RawManifest::verified(manifest.bytes().clone(), Some(media_type), &wanted)?;
        }
        let (target, reference) = self.target(reference, Access::Push)?;
        let knows_subject = self.put_manifest(&target, &reference, manifest).await?;
        match manifest.subject() {
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
        let response = self.send(target, request).await?;
        let other = other_digest(&response, manifest.digest());
        let knows_subject = response.headers().contains_key("oci-subject");
        expect_created(response, &name_of(reference)).await?;
        match other {
            Some(other) => {
                Err(Error::corrupt(format!("the registry stored {other} in place of {}", manifest.digest())))
            }
            None => Ok(knows_subject),
        }
    }
}
