//! Mutants of a registry's answers.

use plyfold_core::{Error, ImageRegistry, RawManifest, Reference, Result, digest, reference};

use super::base::{BrokenRegistry, Fault};

/// The answer to a manifest request as the mutant gives it.
pub(super) async fn break_answer(
    registry: &BrokenRegistry,
    name: &Reference,
    sound: Result<RawManifest>,
) -> Result<RawManifest> {
    match registry.fault {
        Fault::LibraryForgotten
            if name.registry() == "docker.io" && name.repository().starts_with("library/") =>
        {
            Err(Error::not_found("no such repository"))
        }
        Fault::ManifestNotVerifiedByDigest => match name.digest() {
            Some(text) => unverified(registry, text).unwrap_or(sound),
            None => sound,
        },
        Fault::ManifestNotVerifiedByTag => match registry.tops.get(&name.whole()) {
            Some(digest) => unverified(registry, digest.as_ref()).unwrap_or(sound),
            None => sound,
        },
        Fault::ManifestReserialised if name.digest().is_none() => sound.map(|raw| reserialised(&raw)),
        Fault::ReferenceNotChecked => match name.digest() {
            Some(text) if digest::parse(text).is_err() => Err(Error::not_found(format!("no file {text}"))),
            _ => sound,
        },
        Fault::TagsMixed if name.tag() == Some("2") => {
            let (host, repository) = (name.registry().to_owned(), name.repository().to_owned());
            registry.inner.manifest(&Reference::with_tag(host, repository, "1".to_owned())).await
        }
        Fault::TagWins => match (name.tag(), name.digest()) {
            (Some(tag), Some(_)) => {
                let (host, repository) = (name.registry().to_owned(), name.repository().to_owned());
                let by_tag = Reference::with_tag(host, repository, tag.to_owned());
                registry.inner.manifest(&by_tag).await
            }
            _ => sound,
        },
        _ => sound,
    }
}

/// What is stored under a digest, whatever it is.
fn unverified(registry: &BrokenRegistry, digest: &str) -> Option<Result<RawManifest>> {
    let (media_type, bytes) = registry.content.get(&digest::parse(digest).ok()?)?;
    Some(RawManifest::new(bytes.clone(), Some(media_type)))
}

/// The same document as a serialiser writes it.
pub(super) fn reserialised(raw: &RawManifest) -> RawManifest {
    let value: serde_json::Value = serde_json::from_slice(raw.bytes()).unwrap();
    RawManifest::new(value.to_string(), Some(raw.descriptor().media_type())).unwrap()
}

/// The name of a child.
pub(super) fn child(name: &Reference, descriptor: &plyfold_core::Descriptor) -> Reference {
    reference::by_digest(name, descriptor.digest())
}
