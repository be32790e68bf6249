//! Indexes that a cache writes, and indexes of which it has a part.

use bytes::Bytes;
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{
    Blob, BlobRange, CacheProvider, CacheProviderExt, CopyOptions, Descriptor, Digest, ErrorKind,
    ImageRegistryExt, ImageSource, MediaType, Platform, PullPolicy, Sparse, digest,
};
use serde_json::{Value, json};

use super::setup::{name, names, pull_for, pulled, registry_with, set};
use crate::rule::rules;
use crate::rules::probe::{NAME, assert_kind, at, sound};
use crate::samples;
use crate::{CacheFixture, CacheUnderTest};

rules! {
    $ __cache_indexes_rules of dyn CacheFixture;
    "C 55" index_write_create_update_replace_by_full_platform:
        "an index grows image by image; one takes another's place when os, architecture and variant are the same",
    "C 56" index_write_drops_dangling_attestations:
        "with an image goes what attests to it, and nothing else does",
    "C 57" index_write_is_deterministic:
        "the same manifests make the same index, in any order and however often they are written",
    "C 75" index_lists_platform_subset_modes_sparse_vs_rewritten:
        "an index whose images are not all here is pushed rewritten or not at all; a whole one as it is",
}

const V6: &str = "linux/arm/v6";
const V7: &str = "linux/arm/v7";
const AMD64: &str = "linux/amd64";

async fn index_write_create_update_replace_by_full_platform(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let cache = &subject.cache;
    let (old, v6, amd64) =
        (image(&**cache, V7, "old").await, image(&**cache, V6, "").await, image(&**cache, AMD64, "").await);
    let mut expected = Vec::new();
    for (added, platform) in [(&old, V7), (&amd64, AMD64), (&v6, V6)] {
        let top = sound(write(&subject, NAME, &[added]).await);
        assert_eq!(names(&**cache).await, [(NAME.to_owned(), top.digest().clone())]);
        expected.push((platform.to_owned(), added.digest().to_string()));
        expected.sort();
        assert_eq!(listed(&subject, &top).await, expected);
    }
    let new = image(&**cache, V7, "new").await;
    let top = sound(write(&subject, NAME, &[&new]).await);
    let mut replaced = [(AMD64, amd64.digest()), (V6, v6.digest()), (V7, new.digest())]
        .map(|(platform, digest)| (platform.to_owned(), digest.to_string()));
    replaced.sort();
    assert_eq!(listed(&subject, &top).await, replaced, "one variant does not take another's place");
    for (platform, manifest) in [(V7, &new), (V6, &v6), (AMD64, &amd64)] {
        let platform: Platform = sound(platform.parse());
        assert!(sound(cache.image_in_cache(&name(NAME), &platform).await));
        let found = sound(cache.find_descriptor(&at(&name(NAME), manifest.digest())).await);
        assert_eq!(found.expect("a child is found").digest(), manifest.digest());
    }

    // What cannot be written changes nothing.
    let absent = described(MediaType::ImageManifest, b"absent");
    assert_kind(write(&subject, NAME, &[&absent]).await, &ErrorKind::NotFound);
    assert_kind(write(&subject, NAME, &[]).await, &ErrorKind::Config);
    assert_kind(write(&subject, NAME, &[&old, &new]).await, &ErrorKind::Ambiguous);
    let by_digest = at(&name(NAME), top.digest()).whole();
    assert_kind(write(&subject, &by_digest, &[&amd64]).await, &ErrorKind::Config);
    let single = "registry.example/single:1";
    set(&**cache, single, &amd64).await;
    assert_kind(write(&subject, single, &[&v6]).await, &ErrorKind::Unsupported);
    let kept = [(NAME.to_owned(), top.digest().clone()), (single.to_owned(), amd64.digest().clone())];
    assert_eq!(names(&**cache).await, kept);
}

async fn index_write_drops_dangling_attestations(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let cache = &subject.cache;
    let (old, amd64) = (image(&**cache, V7, "old").await, image(&**cache, AMD64, "").await);
    let (about_old, about_amd64) = (attestation(&**cache, &old).await, attestation(&**cache, &amd64).await);
    let top = sound(write(&subject, NAME, &[&old, &about_old, &amd64, &about_amd64]).await);
    assert_eq!(digests(&subject, &top).await, sorted([&old, &about_old, &amd64, &about_amd64]));
    let new = image(&**cache, V7, "new").await;
    let top = sound(write(&subject, NAME, &[&new]).await);
    assert_eq!(digests(&subject, &top).await, sorted([&new, &amd64, &about_amd64]));
    let about_new = attestation(&**cache, &new).await;
    let top = sound(write(&subject, NAME, &[&about_new]).await);
    assert_eq!(digests(&subject, &top).await, sorted([&new, &about_new, &amd64, &about_amd64]));
}

async fn index_write_is_deterministic(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let cache = &subject.cache;
    let (v6, v7) = (image(&**cache, V6, "").await, image(&**cache, V7, "").await);
    let amd64 = image(&**cache, AMD64, "").await;
    let about = attestation(&**cache, &amd64).await;
    let all = [&v6, &v7, &amd64, &about];
    let expected = sound(write(&subject, NAME, &all).await);
    for (number, order) in [[3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]].into_iter().enumerate() {
        let text = format!("registry.example/app:{number}");
        let in_order = order.map(|place| all[place]);
        assert_eq!(sound(write(&subject, &text, &in_order).await).digest(), expected.digest());
    }
    // Again, one of them again, and one after the other.
    for again in [&all[..], &all[1..2]] {
        assert_eq!(sound(write(&subject, NAME, again).await).digest(), expected.digest());
    }
    for one in [&amd64, &about, &v7, &v6] {
        sound(write(&subject, "registry.example/one:1", &[one]).await);
    }
    let found = sound(cache.find_descriptor(&name("registry.example/one:1")).await).expect("it is written");
    assert_eq!(found.digest(), expected.digest());
}

async fn index_lists_platform_subset_modes_sparse_vs_rewritten(fixture: &dyn CacheFixture) {
    let sample = samples::nested_index();
    let subject = pulled(fixture, &sample, NAME).await;
    let target = name("elsewhere.example/app:1");
    // In the cache the index is the one that was pulled, whole images or not.
    let here = sound(subject.cache.find_descriptor(&name(NAME)).await).expect("it was pulled");
    assert_eq!(here.digest(), sample.top.digest());

    let (registry, missing) = (MemoryRegistry::new("elsewhere"), sample.image_for("linux/arm64/v8"));
    let error = assert_kind(push(&subject, &registry, Sparse::Refuse).await, &ErrorKind::NotFound);
    assert!(error.to_string().contains(missing.manifest.digest().as_ref()), "{error}");
    assert!(!sound(registry.exists(&target).await), "nothing has the name");
    let pushed = sound(push(&subject, &registry, Sparse::Rewrite).await);
    assert_ne!(pushed.digest(), sample.top.digest(), "it says something else");
    let image = sound(registry.image(&target, &sound(AMD64.parse())).await);
    assert_eq!(image.raw().digest(), sample.image_for(AMD64).manifest.digest(), "images are what they were");
    let available = vec![AMD64.to_owned()];
    let arm = registry.image(&target, &sound("linux/arm64/v8".parse())).await;
    assert_kind(arm, &ErrorKind::PlatformNotFound { available });

    let origin = registry_with(&sample, NAME);
    let arm: Platform = sound("linux/arm64/v8".parse());
    drop(sound(pull_for(&subject, &origin, &name(NAME), PullPolicy::IfMissing, &arm).await));
    for sparse in [Sparse::Refuse, Sparse::Rewrite] {
        let registry = MemoryRegistry::new("elsewhere");
        let pushed = sound(push(&subject, &registry, sparse).await);
        assert_eq!(pushed.digest(), sample.top.digest(), "a whole index is not rewritten");
        assert_eq!(sound(registry.fetch_raw(&target).await).digest(), sample.top.digest());
    }
}

async fn write(
    subject: &CacheUnderTest,
    text: &str,
    manifests: &[&Descriptor],
) -> plyfold_core::Result<Descriptor> {
    let manifests: Vec<Descriptor> = manifests.iter().map(|manifest| (*manifest).clone()).collect();
    subject.client.index_write(&*subject.cache, &name(text), &manifests).await
}

async fn push(
    subject: &CacheUnderTest,
    registry: &MemoryRegistry,
    sparse: Sparse,
) -> plyfold_core::Result<Descriptor> {
    let options = CopyOptions { sparse, ..CopyOptions::default() };
    let target = name("elsewhere.example/app:1");
    subject.client.push(&*subject.cache, &name(NAME), registry, &target, &options).await
}

/// Stores an image of no layers for a platform.
async fn image(cache: &dyn CacheProvider, platform: &str, note: &str) -> Descriptor {
    let parts: Vec<_> = platform.split('/').collect();
    let mut config = json!({
        "os": parts[0], "architecture": parts[1], "config": { "Labels": { "note": note } },
        "rootfs": { "type": "layers", "diff_ids": [] },
    });
    if let Some(variant) = parts.get(2) {
        config["variant"] = json!(variant);
    }
    manifest(cache, MediaType::ImageConfig, &config).await
}

/// Stores what `BuildKit` puts beside an image, with the annotations by which it is found.
async fn attestation(cache: &dyn CacheProvider, subject: &Descriptor) -> Descriptor {
    let config = json!({
        "os": "unknown", "architecture": "unknown", "config": { "Labels": { "about": subject.digest() } },
        "rootfs": { "type": "layers", "diff_ids": [] },
    });
    let stored = manifest(cache, MediaType::ImageConfig, &config).await;
    let described = json!({
        "mediaType": stored.media_type(), "digest": stored.digest(), "size": stored.size(),
        "platform": { "os": "unknown", "architecture": "unknown" },
        "annotations": {
            "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": subject.digest(),
        },
    });
    serde_json::from_value(described).expect("a descriptor")
}

async fn manifest(cache: &dyn CacheProvider, media_type: MediaType, config: &Value) -> Descriptor {
    let config = document(cache, media_type, config).await;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config, "layers": [],
    });
    document(cache, MediaType::ImageManifest, &manifest).await
}

async fn document(cache: &dyn CacheProvider, media_type: MediaType, document: &Value) -> Descriptor {
    let bytes = Bytes::from(document.to_string());
    let descriptor = described(media_type, &bytes);
    sound(cache.put(sound(Blob::from_bytes(&descriptor, BlobRange::FULL, &bytes))).await);
    descriptor
}

fn described(media_type: MediaType, content: &[u8]) -> Descriptor {
    Descriptor::new(media_type, content.len() as u64, digest::sha256(content))
}

/// The entries of an index that was written.
async fn entries(subject: &CacheUnderTest, index: &Descriptor) -> Vec<Value> {
    let bytes = sound(subject.cache.content(index, u64::MAX).await);
    let document: Value = serde_json::from_slice(&bytes).expect("an index is JSON");
    document["manifests"].as_array().expect("an index has manifests").clone()
}

/// Platform and digest of each entry, sorted.
async fn listed(subject: &CacheUnderTest, index: &Descriptor) -> Vec<(String, String)> {
    let entries = entries(subject, index).await;
    let pairs = entries.iter().map(|entry| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let platform = &entry["platform"];
        let parts = ["os", "architecture", "variant"].map(|part| text(&platform[part]));
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        (parts.join("/"), text(&entry["digest"]))
    });
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort();
    pairs
}

async fn digests(subject: &CacheUnderTest, index: &Descriptor) -> Vec<String> {
    let mut digests: Vec<_> = listed(subject, index).await.into_iter().map(|(_, digest)| digest).collect();
    digests.sort();
    digests
}

fn sorted<const N: usize>(manifests: [&Descriptor; N]) -> Vec<String> {
    let mut digests: Vec<_> = manifests.iter().map(|manifest| Digest::to_string(manifest.digest())).collect();
    digests.sort();
    digests
}
