//! Storing manifests (distribution specification, "Pushing Manifests").

use plyfold_core::reference::referrers_of;
use plyfold_core::referrers::Change;
use plyfold_core::{Error, RawManifest, Reference, Result, reference};

use crate::auth::Access;
use crate::client::Client;
use crate::manifests::{manifest_put, name_of};
use crate::response::other_digest;
use crate::upload::expect_success;

impl Client {
    /// Stores a manifest byte for byte, under the reference's tag, or else by digest.
    pub(crate) async fn write_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        let media_type = manifest.descriptor().media_type();
        if let Some(wanted) = reference::digest_of(reference)? {
            RawManifest::verified(manifest.bytes().clone(), Some(media_type), &wanted)?;
        }
        let (target, reference) = self.target(reference, Access::Push)?;
        let request = manifest_put(&target, &reference, manifest)?;
        let response = self.send(&target, request).await?;
        let other = other_digest(&response, manifest.digest());
        let knows_subject = response.headers().contains_key("oci-subject");
        expect_success(response, &name_of(&reference)).await?;
        if let Some(other) = other {
            let message = format!("the registry stored {other} in place of {}", manifest.digest());
            return Err(Error::corrupt(message));
        }
        match manifest.subject() {
            Some(subject) if !knows_subject => {
                let list = referrers_of(&reference, subject.digest());
                self.change_list(&target, &list, &Change::Add(&[manifest])).await
            }
            _ => Ok(()),
        }
    }
}
