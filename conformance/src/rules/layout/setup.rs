//! What the rules about layouts begin with.

use bytes::Bytes;
use plyfold_core::{
    Blob, BlobRange, BlobWriter, CacheProvider, CacheProviderExt, Descriptor, Ingest, NameChange, Reference,
    digest, reference,
};

use crate::rules::probe::sound;

/// Why a rule about the layout as a registry is not judged.
pub(super) const NO_REGISTRY: &str = "no backend reads the layout as a registry";

pub(super) fn name(text: &str) -> Reference {
    sound(reference::parse(text))
}

pub(super) fn described(content: &[u8]) -> Descriptor {
    let media_type = "application/octet-stream".into();
    Descriptor::new(media_type, content.len() as u64, digest::sha256(content))
}

pub(super) fn whole(descriptor: &Descriptor, content: &Bytes) -> Blob {
    sound(Blob::from_bytes(descriptor, BlobRange::FULL, content))
}

/// A blob that no buffer holds whole.
pub(super) fn large() -> (Descriptor, Bytes) {
    let content: Vec<u8> = (0..3_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    (described(&content), content.into())
}

pub(super) async fn stored(cache: &dyn CacheProvider, content: &'static [u8]) -> Descriptor {
    let descriptor = described(content);
    sound(cache.put(whole(&descriptor, &Bytes::from_static(content))).await);
    descriptor
}

pub(super) async fn set(cache: &dyn CacheProvider, text: &str, descriptor: &Descriptor) {
    sound(cache.update(&[NameChange::Set(name(text), descriptor.clone())]).await);
}

pub(super) async fn vacant(cache: &dyn CacheProvider, blob: &Descriptor) -> Box<dyn BlobWriter> {
    match sound(cache.ingest(blob).await) {
        Ingest::Vacant(writer) => writer,
        Ingest::Present => panic!("{} was never stored", blob.digest()),
    }
}
