//! Damage that a verb has met: whose it is, and what can be done about it.

use crate::{
    Advice, BlobRange, CacheProvider, Descriptor, Digest, Error, ErrorKind, MediaType, Mismatch, Result,
};

/// The error with a hint: to repair the store, if that has the damaged content, and otherwise the place that it comes from.
pub(crate) async fn explained(error: Error, store: Option<&dyn CacheProvider>) -> Error {
    let Some(mismatch) = error.detail::<Mismatch>().cloned() else { return error };
    match store {
        Some(store) if is_damaged(store, &mismatch.expected).await => {
            error.with_advice(Advice::RepairContent)
        }
        _ => error
            .with_hint("where it comes from are other bytes than the digest says: bring a good copy there"),
    }
}

/// Whether content is in the store, and is damaged.
async fn is_damaged(store: &dyn CacheProvider, digest: &Digest) -> bool {
    let Ok(Some(size)) = store.stat(digest).await else { return false };
    let blob = Descriptor::new(MediaType::ImageLayer, size, digest.clone());
    read(store, &blob).await.is_err_and(|e| *e.kind() == ErrorKind::Corrupt)
}

async fn read(store: &dyn CacheProvider, blob: &Descriptor) -> Result<()> {
    let mut blob = store.open(blob, BlobRange::FULL).await?;
    while blob.chunk().await?.is_some() {}
    Ok(())
}
