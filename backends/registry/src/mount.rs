//! Blobs of one repository in another (distribution specification, "Mounting a blob from another repository").

use plyfold_core::{Descriptor, Reference, Result, digest};
use reqwest::StatusCode;

use crate::auth::Access;
use crate::client::Client;
use crate::error;
use crate::upload::post;

impl Client {
    /// Mounts a blob of another repository; a registry that starts an upload instead has refused.
    pub(crate) async fn mount(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        from: &Reference,
    ) -> Result<bool> {
        digest::supported(blob.digest())?;
        let (source, from) = self.target(from, Access::Pull)?;
        let (target, _) = self.target(reference, Access::Mount(from.repository()))?;
        if source.base != target.base {
            return Ok(false);
        }
        let mut request = post(&target);
        request
            .url_mut()
            .query_pairs_mut()
            .append_pair("mount", blob.digest().as_ref())
            .append_pair("from", from.repository());
        let response = self.send(&target, request).await?;
        match response.status() {
            StatusCode::CREATED => Ok(true),
            StatusCode::ACCEPTED => Ok(false),
            _ => Err(error::status(response, "mount").await),
        }
    }
}
