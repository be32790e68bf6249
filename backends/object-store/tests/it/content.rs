//! What tests store.

use bytes::Bytes;
use plyfold_core::{
    Artifact, ArtifactHandle, ArtifactKey, ArtifactWriter, Blob, BlobRange, CacheProvider as _,
    CacheProviderExt as _, Descriptor, Format, Made, NameChange, Reference, Result, digest, reference,
};
use plyfold_object_store::ObjectStoreCache;

pub(crate) fn name(text: &str) -> Reference {
    reference::parse(text).unwrap()
}

pub(crate) fn blob(content: &[u8]) -> Descriptor {
    Descriptor::new("application/octet-stream".into(), content.len() as u64, digest::sha256(content))
}

pub(crate) async fn put(cache: &ObjectStoreCache, content: &[u8]) -> Result<Descriptor> {
    let wanted = blob(content);
    cache.put(Blob::from_bytes(&wanted, BlobRange::FULL, &Bytes::copy_from_slice(content))?).await?;
    Ok(wanted)
}

/// Names and the digests that they stand for.
pub(crate) async fn names(cache: &ObjectStoreCache) -> Vec<(String, String)> {
    let listed = cache.list().await.unwrap();
    listed.into_iter().map(|(name, image)| (name.whole(), image.digest().to_string())).collect()
}

/// Lets a name stand for content.
pub(crate) async fn set(cache: &ObjectStoreCache, text: &str, to: &Descriptor) -> Result<()> {
    cache.update(&[NameChange::Set(name(text), to.clone())]).await
}

/// The key of an artifact.
pub(crate) fn artifact_key() -> ArtifactKey {
    let format = Format { name: "test", version: 1, options: String::new(), extension: "test" };
    ArtifactKey::layer(format, digest::sha256(b"a layer"))
}

/// The right to make it, with some of its content.
pub(crate) async fn make(cache: &ObjectStoreCache, content: &[u8]) -> Box<dyn ArtifactWriter> {
    let Artifact::Vacant(mut writer) = cache.artifact(&artifact_key()).await.unwrap() else {
        panic!("it was never made")
    };
    writer.output().write_all(content).unwrap();
    writer
}

/// The end of that, on a thread that may block.
pub(crate) async fn commit(writer: Box<dyn ArtifactWriter>) -> Result<Box<dyn ArtifactHandle>> {
    tokio::task::spawn_blocking(move || writer.commit(&Made::default())).await.unwrap()
}

/// The first bytes of an artifact.
pub(crate) async fn read(made: Box<dyn ArtifactHandle>) -> std::io::Result<Vec<u8>> {
    let read = move || {
        let mut buffer = vec![0; 64];
        let count = made.read_at(0, &mut buffer)?;
        buffer.truncate(count);
        Ok(buffer)
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}
