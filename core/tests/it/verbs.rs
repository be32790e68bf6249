//! The verbs that every cache has.

use std::fmt;

use async_trait::async_trait;
use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::oci_spec::image::Platform as PlatformDocument;
use plyfold_core::{
    Blob, BlobRange, CacheProvider, CacheProviderExt, CopyOptions, Descriptor, Digest, Document, Error,
    ErrorKind, ImageRegistry, ImageRegistryExt, ImageSourceExt, LoadOptions, MediaType, Opened, Platform,
    Platforms, PullOptions, RawManifest, Reference, Result, Sparse, digest,
};
use proptest::prelude::{ProptestConfig, Strategy, proptest};
use serde_json::{Value, json};

use crate::fixture::{AMD64, index_of, layer, name, put_image};

const INDEX: &str = "example.com/app:multi";

/// A cache with one-layer images for linux, by name, in the order of `names`; with their descriptors.
async fn filled(names: &[(&str, &str)]) -> (MemoryCache, Vec<Descriptor>) {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let mut descriptors = Vec::new();
    for (tag, architecture) in names {
        let image = name(&format!("example.com/app:{tag}"));
        put_image(&registry, &image, ("linux", architecture), &[layer(tag, 10)]);
        let platform = format!("linux/{architecture}").parse().unwrap();
        let options = PullOptions { platform, ..PullOptions::default() };
        descriptors.push(cache.image_pull(&registry, &image, &options).await.unwrap().descriptor);
    }
    (cache, descriptors)
}

/// An attestation manifest in the cache, and its descriptor as `BuildKit` puts it into an index.
async fn attestation(cache: &MemoryCache, subject: &Digest, note: &str) -> Descriptor {
    let mut parts = Vec::new();
    for content in ["{}", note] {
        let blob = Descriptor::new(
            "application/json".into(),
            content.len() as u64,
            digest::sha256(content.as_bytes()),
        );
        let content = Blob::from_bytes(&blob, BlobRange::FULL, &content.to_owned().into()).unwrap();
        cache.put(content).await.unwrap();
        parts.push(blob);
    }
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::ImageManifest.as_ref(), "config": parts[0], "layers": [parts[1]],
    });
    let raw = RawManifest::new(manifest.to_string(), None).unwrap();
    cache.put(Blob::from_bytes(raw.descriptor(), BlobRange::FULL, raw.bytes()).unwrap()).await.unwrap();
    let descriptor = json!({
        "mediaType": MediaType::ImageManifest.as_ref(), "digest": raw.digest(), "size": raw.bytes().len(),
        "platform": { "os": "unknown", "architecture": "unknown" },
        "annotations": { "vnd.docker.reference.digest": subject, "vnd.docker.reference.type": "attestation-manifest" },
    });
    serde_json::from_value(descriptor).unwrap()
}

/// The descriptor for linux/amd64, made more special.
fn on(descriptor: &Descriptor, special: impl Fn(&mut PlatformDocument)) -> Descriptor {
    let mut platform = PlatformDocument::from(&AMD64.parse::<Platform>().unwrap());
    special(&mut platform);
    let mut descriptor = descriptor.clone();
    descriptor.set_platform(Some(platform));
    descriptor
}

/// What the index lists, in its order.
async fn digests(cache: &MemoryCache) -> Vec<Digest> {
    let index = cache.as_registry().fetch_index(&name(INDEX)).await.unwrap();
    index.manifests().iter().map(|child| child.digest().clone()).collect()
}

#[tokio::test]
async fn an_index_is_created_updated_and_replaced_by_full_platform() {
    let (cache, found) = filled(&[("a", "amd64"), ("b", "arm64"), ("c", "amd64")]).await;
    let index = name(INDEX);
    let created = cache.index_write(&index, &found[..1]).await.unwrap();
    assert_eq!(cache.find_descriptor(&index).await.unwrap(), Some(created.clone()));
    let image = cache.new_source(&index, &AMD64.parse().unwrap()).await.unwrap();
    assert_eq!(image.descriptor().digest(), found[0].digest());

    let updated = cache.index_write(&index, &found[1..2]).await.unwrap();
    assert_eq!(digests(&cache).await, [found[0].digest(), found[1].digest()].map(Clone::clone));
    // An image without a platform has the one of its config, and takes the place of what was for it.
    let replaced = cache.index_write(&index, &found[2..]).await.unwrap();
    assert_eq!(digests(&cache).await, [found[2].digest(), found[1].digest()].map(Clone::clone));
    assert!(created != updated && updated != replaced);
    assert_eq!(
        cache.index_write(&index, &found[1..]).await.unwrap(),
        replaced,
        "nothing new, nothing written"
    );

    // Every part of a platform tells it from others.
    let second = |platform: &mut PlatformDocument| {
        platform.set_os_version(Some("10.0.2".into()));
    };
    let many = [
        on(&found[0], |platform| {
            platform.set_variant(Some("v2".into()));
        }),
        on(&found[0], |platform| {
            platform.set_os_version(Some("10.0.1".into()));
        }),
        on(&found[0], second),
        on(&found[0], |platform| {
            platform.set_os_features(Some(vec!["win32k".into()]));
        }),
        on(&found[0], |platform| {
            platform.set_features(Some(vec!["sse4".into()]));
        }),
    ];
    cache.index_write(&index, &many).await.unwrap();
    assert_eq!(digests(&cache).await.len(), 7);
    let replaced = cache.index_write(&index, &[on(&found[2], second)]).await.unwrap();
    let of_c = digests(&cache).await.into_iter().filter(|digest| digest == found[2].digest());
    assert_eq!((of_c.count(), digests(&cache).await.len()), (2, 7));
    let document: Value = serde_json::from_slice(&cache.content(&replaced, 1 << 20).await.unwrap()).unwrap();
    let versions: Vec<&Value> = document["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["platform"]["os.version"])
        .collect();
    assert_eq!(
        versions.iter().filter(|version| version.is_string()).count(),
        2,
        "as the specification spells it"
    );
    // amd64 and amd64/v1, arm64 and arm64/v8 are one platform each.
    let spelled = on(&found[0], |platform| {
        platform.set_architecture("x86_64".into());
        platform.set_variant(Some("v1".into()));
    });
    cache.index_write(&index, &[spelled]).await.unwrap();
    assert_eq!(digests(&cache).await.len(), 7);
}

#[tokio::test]
async fn attestations_go_with_their_subject() {
    let (cache, found) = filled(&[("a", "amd64"), ("b", "arm64"), ("c", "amd64")]).await;
    let mut all = vec![found[0].clone(), found[1].clone()];
    for subject in &found[..2] {
        all.push(attestation(&cache, subject.digest(), subject.digest().as_ref()).await);
    }
    let of_attestation = attestation(&cache, all[2].digest(), "an attestation of an attestation").await;
    all.push(of_attestation.clone());
    cache.index_write(&name(INDEX), &all).await.unwrap();
    assert_eq!(digests(&cache).await.len(), 5);
    let fresh = attestation(&cache, found[2].digest(), "new").await;
    cache.index_write(&name(INDEX), &[found[2].clone(), fresh.clone()]).await.unwrap();
    let mut expected = vec![found[2].digest().clone(), found[1].digest().clone()];
    let mut attestations = [all[3].digest().clone(), fresh.digest().clone()];
    attestations.sort_by_key(ToString::to_string);
    expected.extend(attestations);
    assert_eq!(digests(&cache).await, expected);
    // One that comes without its subject is dropped, too.
    cache.index_write(&name(INDEX), std::slice::from_ref(&of_attestation)).await.unwrap();
    assert_eq!(digests(&cache).await, expected);
}

#[tokio::test]
async fn what_an_index_says_beside_its_manifests_survives() {
    let (cache, found) = filled(&[("a", "amd64"), ("b", "arm64")]).await;
    let mut entry = serde_json::to_value(on(&found[0], |_| {})).unwrap();
    entry["platform"]["os.version"] = json!("10.0");
    entry["org.example.unknown"] = json!([1, 2]);
    let document = json!({ "schemaVersion": 2, "x-unknown": { "a": 1 }, "annotations": { "k": "v" }, "manifests": [entry] });
    let raw = RawManifest::new(document.to_string(), None).unwrap();
    cache.put(Blob::from_bytes(raw.descriptor(), BlobRange::FULL, raw.bytes()).unwrap()).await.unwrap();
    cache.descriptor_write(&name(INDEX), raw.descriptor()).await.unwrap();
    let updated = cache.index_write(&name(INDEX), &found[1..]).await.unwrap();
    let after: Value = serde_json::from_slice(&cache.content(&updated, 1 << 20).await.unwrap()).unwrap();
    assert_eq!(
        (&after["x-unknown"], &after["annotations"]),
        (&document["x-unknown"], &document["annotations"])
    );
    assert_eq!(after["manifests"][0], entry);
    assert_eq!(after["mediaType"], MediaType::ImageIndex.as_ref());
}

#[tokio::test]
async fn an_index_of_others_keeps_its_digest_while_nothing_is_new() {
    let (registry, cache) = half_pulled().await;
    let index = registry.fetch_index(&name(INDEX)).await.unwrap();
    let written = cache.index_write(&name(INDEX), &index.manifests()[..1]).await.unwrap();
    assert_eq!(written, *registry.fetch_raw(&name(INDEX)).await.unwrap().descriptor());
}

#[tokio::test]
async fn an_index_that_cannot_be_written_changes_nothing() {
    let (cache, found) = filled(&[("a", "amd64"), ("b", "amd64")]).await;
    let index = name(INDEX);
    cache.index_write(&index, &found[..1]).await.unwrap();
    let before = cache.list().await.unwrap();
    let absent = Descriptor::new(MediaType::ImageManifest, 2, digest::sha256(b"no"));
    let blob = Descriptor::new("text/plain".into(), 2, digest::sha256(b"no"));
    let cases = [
        (index.clone(), vec![absent.clone()], ErrorKind::NotFound),
        (index.clone(), found.clone(), ErrorKind::Ambiguous),
        (index.clone(), vec![], ErrorKind::Config),
        (name(&format!("example.com/app@{}", found[0].digest())), found[..1].to_vec(), ErrorKind::Config),
        (name("example.com/app:a"), found[1..].to_vec(), ErrorKind::Unsupported),
        (index.clone(), vec![blob], ErrorKind::Unsupported),
        (index.clone(), vec![found[1].clone(); 4097], ErrorKind::Limit),
    ];
    for (index, manifests, kind) in cases {
        let error = cache.index_write(&index, &manifests).await.unwrap_err();
        assert_eq!((error.kind(), error.context("image")), (&kind, Some(index.whole().as_str())), "{error}");
    }
    let layers = cache.new_source(&name("example.com/app:b"), &AMD64.parse().unwrap()).await.unwrap();
    let layer = layers.layers().unwrap()[0].digest().clone();
    cache.quarantine(&layer).await.unwrap();
    for error in [
        cache.index_write(&index, &found[1..]).await.unwrap_err(),
        cache.descriptor_write(&index, &found[1]).await.unwrap_err(),
    ] {
        assert_eq!(
            (error.kind(), error.context("blob")),
            (&ErrorKind::NotFound, Some(layer.as_ref())),
            "{error}"
        );
    }
    let mut damaged = cache.content(&found[0], 1 << 20).await.unwrap().to_vec();
    damaged[5] ^= 1;
    cache.insert_blob(found[0].digest().clone(), damaged);
    for error in [
        cache.index_write(&index, &found[..1]).await.unwrap_err(),
        cache.descriptor_write(&index, &found[0]).await.unwrap_err(),
    ] {
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    }
    assert_eq!(cache.list().await.unwrap(), before);
}

#[tokio::test]
async fn a_name_is_written_for_what_is_here() {
    let (cache, found) = filled(&[("a", "amd64"), ("b", "arm64")]).await;
    let other = name("example.com/other:1");
    for descriptor in &found {
        cache.descriptor_write(&other, descriptor).await.unwrap();
        assert_eq!(cache.find_descriptor(&other).await.unwrap().as_ref(), Some(descriptor));
    }
    let by_digest = name(&format!("example.com/other@{}", found[0].digest()));
    cache.descriptor_write(&by_digest, &found[0]).await.unwrap();
    let error = cache.descriptor_write(&by_digest, &found[1]).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn concurrent_writers_of_one_index_lose_nothing() {
    let architectures = ["amd64", "arm64", "riscv64", "s390x", "ppc64le", "386"];
    let images: Vec<_> = architectures.iter().map(|architecture| (*architecture, *architecture)).collect();
    let (cache, found) = filled(&images).await;
    let cache = crate::events::Watched::over(cache);
    let writers = found.iter().map(|descriptor| {
        let (cache, descriptor) = (cache.clone(), descriptor.clone());
        tokio::spawn(async move { cache.index_write(&name(INDEX), &[descriptor]).await.unwrap() })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(digests(cache.inner()).await.len(), architectures.len());
    assert_eq!(cache.leases(), 0);
}

/// Two platforms, of which amd64 is in the cache, and all of it in the registry.
async fn half_pulled() -> (MemoryRegistry, MemoryCache) {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    index_of(&registry, &name(INDEX), &[("amd64", &[layer("a", 10)]), ("arm64", &[layer("b", 10)])]).await;
    let options = PullOptions { platform: AMD64.parse().unwrap(), ..PullOptions::default() };
    cache.image_pull(&registry, &name(INDEX), &options).await.unwrap();
    (registry, cache)
}

#[tokio::test]
async fn a_whole_image_is_pushed_with_its_digest() {
    let (registry, cache) = half_pulled().await;
    let options = PullOptions { platform: "linux/arm64".parse().unwrap(), ..PullOptions::default() };
    let pulled = cache.image_pull(&registry, &name(INDEX), &options).await.unwrap();
    let (to, target) = (MemoryRegistry::new("b"), name("other.org/x:2"));
    let pushed = cache.push(&name(INDEX), &to, &target, &CopyOptions::default()).await.unwrap().descriptor;
    assert_eq!(pushed, pulled.descriptor);
    for platform in [AMD64, "linux/arm64"] {
        let image = to.image(&target, &platform.parse().unwrap()).await.unwrap();
        assert_eq!(image.config().await.unwrap().platform_or(None).to_string(), platform);
        for layer in image.layers().unwrap() {
            to.fetch_blob(&target, layer, BlobRange::FULL).await.unwrap().bytes(1 << 20).await.unwrap();
        }
    }
    let absent = cache.push(&name("example.com/absent"), &to, &target, &CopyOptions::default()).await;
    assert_eq!(*absent.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_sparse_index_is_refused_or_rewritten_or_pushed_for_one_platform() {
    let (registry, cache) = half_pulled().await;
    let (to, target) = (MemoryRegistry::new("b"), name("other.org/x:2"));
    let original = registry.fetch_index(&name(INDEX)).await.unwrap();
    let error = cache.push(&name(INDEX), &to, &target, &CopyOptions::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
    let arm64 = &original.manifests()[1];
    let missing = format!("missing: linux/arm64 ({})", arm64.digest());
    assert!(error.message().ends_with(&missing), "{error}");
    assert!(!to.exists(&target).await.unwrap());

    let rewrite = CopyOptions { sparse: Sparse::Rewrite, ..CopyOptions::default() };
    let pushed = cache.push(&name(INDEX), &to, &target, &rewrite).await.unwrap().descriptor;
    let index = to.fetch_index(&target).await.unwrap();
    assert_eq!(index.manifests().as_slice(), &original.manifests()[..1]);
    assert_eq!(*to.fetch_raw(&target).await.unwrap().descriptor(), pushed);
    assert!(to.image(&target, &AMD64.parse().unwrap()).await.is_ok());

    let copy = CopyOptions { platforms: Platforms::One(AMD64.parse().unwrap()), ..CopyOptions::default() };
    let one = copy;
    let pushed = cache.push(&name(INDEX), &to, &target, &one).await.unwrap().descriptor;
    assert_eq!(pushed.digest(), original.manifests()[0].digest());
}

#[tokio::test]
async fn rewriting_reaches_nested_indexes_and_attestations() {
    let (cache, found) = filled(&[("a", "amd64"), ("b", "arm64"), ("c", "s390x")]).await;
    let of_b = attestation(&cache, found[1].digest(), "of what goes").await;
    let of_a = attestation(&cache, found[0].digest(), "of what stays").await;
    let inner = cache.index_write(&name("example.com/app:inner"), &found[..2]).await.unwrap();
    let outer =
        [inner.clone(), found[0].clone(), found[1].clone(), found[2].clone(), of_a.clone(), of_b.clone()];
    cache.index_write(&name(INDEX), &outer).await.unwrap();
    let gone = cache.new_source(&name("example.com/app:b"), &"linux/arm64".parse().unwrap()).await.unwrap();
    cache.quarantine(gone.layers().unwrap()[0].digest()).await.unwrap();
    cache.quarantine(found[2].digest()).await.unwrap();

    let (to, target) = (MemoryRegistry::new("b"), name("other.org/x:2"));
    let error = cache.push(&name(INDEX), &to, &target, &CopyOptions::default()).await.unwrap_err();
    for missing in [&found[1], &found[2]] {
        assert!(error.message().contains(missing.digest().as_ref()), "{error}");
    }
    let rewrite = CopyOptions { sparse: Sparse::Rewrite, ..CopyOptions::default() };
    cache.push(&name(INDEX), &to, &target, &rewrite).await.unwrap();
    let index = to.fetch_index(&target).await.unwrap();
    let kept: Vec<&Digest> = index.manifests().iter().map(Descriptor::digest).collect();
    assert_eq!((kept[0], kept[2], kept.len()), (found[0].digest(), of_a.digest(), 3));
    assert_ne!(kept[1], inner.digest());
    let nested = to.fetch_child(&target, &index.manifests()[1]).await.unwrap();
    let Document::Index(nested) = nested.document() else { panic!("an index stays one") };
    assert_eq!(nested.manifests().iter().map(Descriptor::digest).collect::<Vec<_>>(), [found[0].digest()]);

    // With nothing left there is nothing to rewrite.
    for descriptor in &found {
        cache.quarantine(descriptor.digest()).await.unwrap();
    }
    let error = cache.push(&name(INDEX), &to, &target, &rewrite).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn every_image_of_a_place_is_loaded() {
    let registry = MemoryRegistry::new("a");
    let names = ["example.com/a:1", "example.com/a:2", "example.com/b:1"].map(name);
    for (size, image) in names.iter().enumerate() {
        put_image(&registry, image, ("linux", "amd64"), &[layer("a", size)]);
    }
    let options = LoadOptions::default();
    let cache = MemoryCache::new().unwrap();
    let one = Opened { registry: Box::new(registry.clone()), reference: Some(names[1].clone()) };
    assert_eq!(cache.image_load(&one, &options).await.unwrap().len(), 1);
    // What stands in the file wins over what the name stood for.
    put_image(&registry, &names[1], ("linux", "amd64"), &[layer("newer", 5)]);
    let all = Opened { registry: Box::new(registry.clone()), reference: None };
    let loaded = cache.image_load(&all, &options).await.unwrap();
    assert_eq!(loaded.iter().map(|image| image.reference.clone()).collect::<Vec<_>>(), names);
    for image in &names {
        let there = registry.resolve(image).await.unwrap();
        assert_eq!(cache.find_descriptor(image).await.unwrap().unwrap().digest(), there.digest());
        assert!(cache.image_in_cache(image, &AMD64.parse().unwrap()).await.unwrap());
    }
    let empty = Opened { registry: Box::new(MemoryRegistry::new("empty")), reference: None };
    assert_eq!(*cache.image_load(&empty, &options).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// A registry that answers everything with one error.
#[derive(Clone, Debug)]
struct Failing(ErrorKind);

#[async_trait]
impl ImageRegistry for Failing {
    async fn manifest(&self, _: &Reference) -> Result<RawManifest> {
        Err(Error::new(self.0.clone(), "scripted"))
    }

    async fn blob(&self, _: &Reference, _: &Descriptor, _: BlobRange) -> Result<Blob> {
        Err(Error::new(self.0.clone(), "scripted"))
    }
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failing:")
    }
}

#[tokio::test]
async fn an_outage_is_no_absence() {
    let (registry, cache) = half_pulled().await;
    let (amd64, s390x) = (AMD64.parse().unwrap(), "linux/s390x".parse().unwrap());
    assert!(cache.image_in_registry(&registry, &name(INDEX), &amd64).await.unwrap());
    assert!(!cache.image_in_registry(&registry, &name(INDEX), &s390x).await.unwrap());
    assert!(!cache.image_in_registry(&registry, &name("example.com/absent"), &amd64).await.unwrap());
    for kind in
        [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Auth, ErrorKind::Denied, ErrorKind::Corrupt]
    {
        let answer = cache.image_in_registry(&Failing(kind.clone()), &name(INDEX), &amd64).await;
        assert_eq!(*answer.unwrap_err().kind(), kind);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_manifests_has_no_part_in_the_bytes(
        order in proptest::sample::subsequence((0..5).collect::<Vec<usize>>(), 1..=5).prop_shuffle(),
        cut in 0_usize..6,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(assert_one_index(&order, cut));
    }
}

/// The same manifests, each with an attestation, sorted and at once or in an order of their own and in two steps.
async fn assert_one_index(order: &[usize], cut: usize) {
    let (cache, mut found) = filled(&[("a", "amd64"), ("b", "arm64"), ("c", "s390x"), ("d", "386")]).await;
    found.push(cache.index_write(&name("example.com/app:nested"), &found[..2]).await.unwrap());
    let mut manifests = Vec::new();
    for at in order {
        manifests.push(found[*at].clone());
        manifests.push(attestation(&cache, found[*at].digest(), "sbom").await);
    }
    let cut = (2 * cut).min(manifests.len());
    for part in [&manifests[..cut], &manifests[cut..]].into_iter().filter(|part| !part.is_empty()) {
        cache.index_write(&name(INDEX), part).await.unwrap();
    }
    let stepwise = cache.find_descriptor(&name(INDEX)).await.unwrap().unwrap();
    manifests.sort_by_key(|descriptor| descriptor.digest().to_string());
    let at_once = cache.index_write(&name("example.com/app:sorted"), &manifests).await.unwrap();
    assert_eq!(at_once.digest(), stepwise.digest());
}
