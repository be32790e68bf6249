//! Archives of images, and statements about images.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use plyfold_archive::{Archive, Config};
use plyfold_conformance::samples::{self, Sample};
use plyfold_conformance::{Fixture as _, FixtureImage, fixtures::Memory};
use plyfold_core::memory::MemoryCache;
use plyfold_core::{
    Blob, BlobRange, CacheProvider as _, CacheProviderExt as _, CopyOptions, Descriptor, Digest, Error,
    ImageAttestations as _, ImageRegistry as _, LoadOptions, Opened, RawManifest, Reference, RegistrySource,
    copy, digest, reference,
};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use super::outcome::{Outcome, of, refused};
use crate::result::Result;

const NAME: &str = "registry.example/org/app:1";

/// Archives of every form, of one image and of several.
pub(super) fn archives() -> Vec<Vec<u8>> {
    let named = |number: usize, sample| (format!("registry.example/org/app:{number}"), sample);
    let samples = [samples::image(), samples::index(), samples::zstandard(), samples::docker_image()];
    let all: Vec<_> = samples.iter().enumerate().map(|(number, sample)| named(number, sample)).collect();
    let sets: [&[(String, &Sample)]; 3] = [&all[..1], &all[1..3], &all];
    sets.iter()
        .flat_map(|set| {
            [samples::oci_archive(set), samples::hybrid_archive(set), samples::docker_archive(set)]
        })
        .collect()
}

/// Makes the checksums of a tar's headers right.
pub(super) fn sums(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = bytes.get_mut(at..at + 512) {
        let digits: String = header[124..136].iter().map(|byte| *byte as char).collect();
        let Ok(size) = usize::from_str_radix(digits.trim_matches(['\0', ' ']), 8) else { return };
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        at = at.saturating_add(512).saturating_add(size.next_multiple_of(512));
    }
}

fn runtime() -> std::result::Result<Runtime, String> {
    Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())
}

/// An archive is loaded, and gets an image more: what was in it stays.
pub(super) fn archive(input: &[u8]) -> Outcome {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = folder.path().join("archive.tar");
    fs::write(&path, input).map_err(|e| e.to_string())?;
    runtime()?.block_on(async {
        let loaded = load(&path).await;
        let before = names(&path).await;
        let pushed = pushed(&path).await;
        let after = names(&path).await;
        let is_refused = of(loaded, |()| Ok(false))?;
        match (before, pushed, after) {
            (Ok(before), Ok(own), Ok(after)) => {
                let lost = before.iter().find(|name| name.0 != own && !after.contains(name));
                lost.map_or(Ok(is_refused), |lost| Err(format!("{lost:?} is lost by a push")))
            }
            (Ok(_), Ok(_), Err(e)) => Err(format!("it cannot be read after a push: {e:?}")),
            (_, Err(e), _) | (Err(e), _, _) => refused(&e),
        }
    })
}

async fn load(path: &Path) -> plyfold_core::Result<()> {
    let cache = MemoryCache::new()?;
    let opened = Opened { registry: Box::new(Archive::new(path, Config::default())), reference: None };
    for image in cache.image_load(&opened, &LoadOptions::default()).await? {
        if cache.find_descriptor(&image.reference).await?.as_ref().map(|one| one.digest().clone())
            != Some(image.descriptor.digest().clone())
        {
            let message = format!("{} was loaded and is another image", image.reference);
            return Err(Error::new(plyfold_core::ErrorKind::Internal, message));
        }
    }
    Ok(())
}

/// The names of an archive whose documents can be read, and what they stand for.
async fn names(path: &Path) -> plyfold_core::Result<Vec<(Reference, Digest)>> {
    let opened = Opened { registry: Box::new(Archive::new(path, Config::default())), reference: None };
    let mut names = Vec::new();
    for name in opened.references().await? {
        if let Ok(raw) = opened.registry.manifest(&name).await {
            names.push((name, raw.digest().clone()));
        }
    }
    Ok(names)
}

async fn pushed(path: &Path) -> plyfold_core::Result<Reference> {
    let sample = samples::no_layers();
    let (from, name) = (Memory.open(&[FixtureImage::new(NAME, &sample)]).await, reference::parse(NAME)?);
    let target = reference::parse("registry.example/org/new:1")?;
    let archive = Archive::new(path, Config::default());
    copy(&*from.registry, &name, &archive, &target, &CopyOptions::default()).await?;
    Ok(target)
}

/// What is attested of an image, in every wrapping.
pub(super) fn statements() -> Result<Vec<Vec<u8>>> {
    let mut statements = Vec::new();
    for referrer in samples::attestation_referrers() {
        let raw = RawManifest::new(referrer.top_bytes().clone(), Some(referrer.top.media_type()))?;
        let layers = raw.image()?.layers().iter().filter_map(|layer| referrer.blob(layer.digest()));
        statements.extend(layers.map(|bytes| bytes.to_vec()));
    }
    Ok(statements)
}

/// A statement under every media type that says what it may be.
pub(super) fn statement(input: &[u8]) -> Outcome {
    let mut is_refused = true;
    for kind in [
        "application/vnd.in-toto+json",
        "application/vnd.dsse.envelope.v1+json",
        "application/vnd.dev.sigstore.bundle.v0.3+json",
        "application/spdx+json",
    ] {
        is_refused &= of(runtime()?.block_on(attested(kind, input)), |found| Ok(found == 0))?;
    }
    Ok(is_refused)
}

/// How many predicates there are.
async fn attested(kind: &str, input: &[u8]) -> plyfold_core::Result<usize> {
    let image = samples::attested_image();
    let (subject, name) = (Memory.open(&[FixtureImage::new(NAME, &image)]).await, reference::parse(NAME)?);
    let registry = &subject.registry;
    let (content, empty) = (digest::sha256(input), digest::sha256(b"{}"));
    for (digest, bytes) in [(&content, Bytes::copy_from_slice(input)), (&empty, Bytes::from_static(b"{}"))] {
        let blob = Descriptor::new(kind.into(), bytes.len() as u64, digest.clone());
        registry.push_blob(&name, Blob::from_bytes(&blob, BlobRange::FULL, &bytes)?).await?;
    }
    let top = &image.top;
    let referrer = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": kind,
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2 },
        "layers": [{ "mediaType": kind, "digest": content, "size": input.len() }],
        "subject": { "mediaType": top.media_type(), "digest": top.digest(), "size": top.size() },
    });
    let referrer = RawManifest::new(referrer.to_string(), None)?;
    registry.push_manifest(&reference::by_digest(&name, referrer.digest()), &referrer).await?;
    let source = RegistrySource::open(registry.clone(), &name, &"linux/amd64".parse()?).await?;
    let found = [source.sboms().await?, source.provenance().await?].concat();
    for one in &found {
        one.predicate().await?;
    }
    Ok(found.len())
}
