//! Verification: read the content again and compare digests and sizes.

use std::collections::HashMap;

use super::report::{Damage, DamagedPart, Verified, Verify};
use super::{CacheProvider, Need, Needs, content};
use crate::block_sums::BlockSums;
use crate::blocking::{Stop, blocking};
use crate::digest::Hasher;
use crate::progress::Event;
use crate::{
    ArtifactHandle, ArtifactKey, ArtifactReader, Descriptor, Digest, Error, ErrorKind, Reference, Result,
};

/// The blobs of [`CacheProvider::verify`] for caches that cannot list them: reads everything that names need. It reads
/// no blob that no name leads to, and no artifact: see [`verify_artifacts`].
///
/// # Errors
/// As [`CacheProvider::verify`].
pub async fn verify_names(cache: &dyn CacheProvider, what: &Verify) -> Result<Verified> {
    let operation = what.progress.operation();
    let progress = operation.progress().clone();
    let read = async {
        let mut verified = Verified::default();
        let mut wanted: Vec<_> = needed(cache, what.images.as_deref()).await?.into_iter().collect();
        wanted.sort_by_cached_key(|(digest, _)| digest.to_string());
        let total = wanted.iter().map(|(_, (need, _))| need.descriptor.size()).fold(0, u64::saturating_add);
        let mut read = 0_u64;
        for (digest, (need, images)) in wanted {
            read = read.saturating_add(need.descriptor.size());
            progress.emit(Event::VerifyProgress { read, total });
            let (part, error) = match content::verify(cache, &need.descriptor).await {
                Ok(()) => {
                    verified.checked += 1;
                    verified.bytes += need.descriptor.size();
                    continue;
                }
                Err(e) if *e.kind() == ErrorKind::NotFound && !need.required => continue,
                Err(e) if *e.kind() == ErrorKind::NotFound => (DamagedPart::Missing(digest.clone()), e),
                Err(e) if *e.kind() == ErrorKind::Corrupt => (DamagedPart::Blob(digest.clone()), e),
                Err(e) => return Err(e),
            };
            verified.checked += 1;
            let repaired = what.repair
                && matches!(part, DamagedPart::Blob(_))
                && content::quarantine_damaged(cache, &need.descriptor).await?;
            verified.damage.push(Damage { part, reason: error.message().to_owned(), images, repaired });
        }
        Ok(verified)
    };
    operation.end(read.await)
}

/// An artifact as a cache keeps it.
#[derive(Clone, Debug)]
pub struct KeptArtifact {
    /// What it was made from, and how.
    pub key: ArtifactKey,
    /// The file, with the size that it has now and the bytes that are there, damaged or not.
    pub file: Box<dyn ArtifactHandle>,
    /// What shows that the bytes are those that were committed.
    pub proof: ArtifactProof,
}

/// What a cache keeps of the bytes of an artifact, to find damage in them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ArtifactProof {
    /// The checksums of their blocks, as a [`SummedFile`](crate::block_sums::SummedFile) computes them while it is written.
    Blocks(BlockSums),
    /// Their digest: for a place whose owner may want other bytes there.
    Digest(Digest),
}

impl ArtifactProof {
    /// The bytes that were read, and what is wrong with them.
    fn check(&self, file: &dyn ArtifactHandle, stop: &Stop) -> Result<(u64, Option<String>)> {
        let reader = stop.reader(ArtifactReader::open(file)?);
        let failed = |e| Error::io("reading an artifact", e);
        Ok(match self {
            Self::Blocks(sums) => {
                let found = BlockSums::read_all(reader).map_err(failed)?;
                (found.size(), sums.differences(&found))
            }
            Self::Digest(expected) => {
                let mut hasher = Hasher::like(expected)?;
                let size = hasher.read_all(reader).map_err(failed)?;
                let actual = hasher.finish();
                let wrong = || format!("digest mismatch: expected {expected}, actual {actual}");
                (size, (actual != *expected).then(wrong))
            }
        })
    }
}

/// The artifacts of [`CacheProvider::verify`]: reads those of `kept` that are verified, and adds to the report what was
/// found. The keys of those that are to be removed: where [`Verify::repair`] asks for it, all that are damaged.
///
/// # Errors
/// As [`CacheProvider::verify`].
pub async fn verify_artifacts(
    cache: &dyn CacheProvider,
    what: &Verify,
    mut kept: Vec<KeptArtifact>,
    verified: &mut Verified,
) -> Result<Vec<ArtifactKey>> {
    kept.sort_by_cached_key(|kept| (kept.key.content.to_string(), kept.key.format.to_string()));
    let mut needed: HashMap<Digest, Vec<Reference>> = HashMap::new();
    for (name, top) in selected(cache, what.images.as_deref()).await? {
        for content in Needs::of(cache, &top).await.map_err(|e| e.with_image(&name))?.contents {
            needed.entry(content).or_default().push(name.clone());
        }
    }
    let mut damaged = Vec::new();
    for KeptArtifact { key, file, proof } in kept {
        let images = needed.get(&key.content).cloned().unwrap_or_default();
        if what.images.is_some() && images.is_empty() {
            continue;
        }
        let (size, reason) = match blocking(move |stop| proof.check(&*file, stop)).await {
            Err(e) if *e.kind() == ErrorKind::Corrupt => (0, Some(e.message().to_owned())),
            checked => checked?,
        };
        verified.checked += 1;
        verified.bytes += size;
        if let Some(reason) = reason {
            let part = DamagedPart::Artifact(key.format.to_string(), key.content.clone());
            verified.damage.push(Damage { part, reason, images, repaired: what.repair });
            damaged.extend(what.repair.then_some(key));
        }
    }
    Ok(damaged)
}

/// Every blob that these images need, all images if none are given, with the names that need it.
///
/// # Errors
/// [`NotFound`](crate::ErrorKind::NotFound) for an image that is not here; otherwise as [`Needs::of`].
pub async fn needed(
    cache: &dyn CacheProvider,
    images: Option<&[Reference]>,
) -> Result<HashMap<Digest, (Need, Vec<Reference>)>> {
    let mut needed: HashMap<Digest, (Need, Vec<Reference>)> = HashMap::new();
    for (name, top) in selected(cache, images).await? {
        let needs = Needs::of(cache, &top).await.map_err(|e| e.with_image(&name))?;
        for (digest, need) in needs.blobs {
            let (known, names) = needed.entry(digest).or_insert_with(|| (need.clone(), Vec::new()));
            known.required |= need.required;
            names.push(name.clone());
        }
    }
    Ok(needed)
}

/// The images that a verification is of: all of the cache, unless it names some.
///
/// # Errors
/// [`NotFound`](crate::ErrorKind::NotFound) when the cache has no such name; those of the cache.
pub async fn selected(
    cache: &dyn CacheProvider,
    images: Option<&[Reference]>,
) -> Result<Vec<(Reference, Descriptor)>> {
    let Some(images) = images else { return cache.list().await };
    let mut selected = Vec::with_capacity(images.len());
    for image in images {
        let found = cache.find_descriptor(image).await?;
        let missing = || Error::not_found("not in the store").with_image(image).with_endpoint(cache);
        selected.push((image.clone(), found.ok_or_else(missing)?));
    }
    Ok(selected)
}
