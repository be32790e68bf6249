//! Artifacts: found, or to be made.

use futures_util::future::BoxFuture;
use plyfold_core::{Artifact, ArtifactKey, Error, Result};

use crate::artifact_writer::ArtifactUpload;
use crate::claim::{Claim, Claimed};
use crate::record::{self, Found};
use crate::shared::Shared;
use crate::stored_artifact::{StoredArtifact, find, present};

/// An artifact, or the right to make it.
pub(crate) async fn artifact(shared: &Shared, key: &ArtifactKey) -> Result<Artifact> {
    if let Some(present) = find(shared, key).await? {
        return Ok(Artifact::Present(Box::new(present)));
    }
    shared.check_writable()?;
    let path = record::of_artifact(&shared.bucket, key)?;
    let (of, record) = (shared.clone(), path.clone());
    let is_sound = move |found: &Found| -> BoxFuture<'static, Result<bool>> {
        let (shared, path, found) = (of.clone(), record.clone(), found.clone());
        Box::pin(async move { Ok(present(&shared, &path, &found).await?.is_some()) })
    };
    match Claim::take(shared, &path, &is_sound).await? {
        Claimed::Granted(claim) => Ok(Artifact::Vacant(Box::new(ArtifactUpload::new(shared, key, claim)?))),
        Claimed::Present(found) => match StoredArtifact::new(&shared.bucket, &path, &found) {
            Some(present) => Ok(Artifact::Present(Box::new(present))),
            None => {
                Err(Error::corrupt("the checksums of an artifact are damaged").with_endpoint(&shared.bucket))
            }
        },
    }
}
