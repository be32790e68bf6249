//! Loads: all of them or none.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use plyfold_core::cache::{MissingContent, list_images};
use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::progress::{Event, Progress};
use plyfold_core::{
    Advice, Blob, BlobRange, CacheProvider, CacheProviderExt, Capabilities, Collect, CopyOptions, Descriptor,
    Digest, ErrorKind, ImageRegistry, ImageRegistryExt as _, LoadOptions, MediaType, Names, Opened, Page,
    Platforms, PullPolicy, RawManifest, Reference, Result, copy, digest, reference,
};
use serde_json::json;

use crate::fixture::{AMD64, descriptor, index_of, layer, name, options, put_document, put_image};

const IMAGE: &str = "example.com/app:1";

fn of(registry: &MemoryRegistry, image: Option<&str>) -> Opened {
    Opened { registry: Box::new(registry.clone()), reference: image.map(name) }
}

/// An index of two images.
async fn two_platforms() -> MemoryRegistry {
    let registry = MemoryRegistry::new("a");
    let (arm64, amd64) = ([layer("arm64", 10)], [layer("amd64", 10)]);
    index_of(&registry, &name(IMAGE), &[("arm64", &arm64), ("amd64", &amd64)]).await;
    registry
}

/// What a registry holds, without some of its blobs, and made against something else.
#[derive(Clone, Debug)]
struct Without {
    inner: MemoryRegistry,
    lost: Vec<Digest>,
    bases: Vec<String>,
    /// How many blobs were opened.
    opened: Arc<AtomicUsize>,
}

impl Without {
    fn new(inner: &MemoryRegistry, lost: &[Digest]) -> Self {
        Self { inner: inner.clone(), lost: lost.to_vec(), bases: Vec::new(), opened: Arc::default() }
    }

    fn opened(&self) -> Opened {
        Opened { registry: Box::new(self.clone()), reference: None }
    }

    fn check(&self, digest: &Digest) -> Result<()> {
        if self.lost.contains(digest) { Err(plyfold_core::Error::not_found("not here")) } else { Ok(()) }
    }
}

#[async_trait]
impl ImageRegistry for Without {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        if let Some(digest) = reference::digest_of(reference)? {
            self.check(&digest)?;
        }
        self.inner.manifest(reference).await
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.check(blob.digest())?;
        self.inner.blob(reference, blob, range).await
    }

    async fn has_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<bool> {
        let is_lost = self.lost.contains(blob.digest());
        Ok(!is_lost && self.inner.blob(reference, blob, BlobRange::FULL).await.is_ok())
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn tags(&self, repository: &str, page: Page) -> Result<Names> {
        self.inner.tags(repository, page).await
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        self.inner.repositories(page).await
    }

    async fn bases(&self) -> Result<Vec<String>> {
        Ok(self.bases.clone())
    }

    async fn referrers(
        &self,
        of: &Reference,
        subject: &Digest,
        kind: Option<&MediaType>,
    ) -> Result<Vec<Descriptor>> {
        self.inner.referrers(of, subject, kind).await
    }
}

impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

async fn named(cache: &MemoryCache) -> Vec<String> {
    cache.list().await.unwrap().into_iter().map(|(name, _)| name.whole()).collect()
}

#[tokio::test]
async fn all_platforms_come_that_are_there_or_those_that_are_asked_for() {
    let registry = two_platforms().await;
    let children = registry.fetch_index(&name(IMAGE)).await.unwrap().manifests().clone();
    let platforms = ["linux/arm64", AMD64];
    let here = async |cache: &MemoryCache| {
        let mut here = Vec::new();
        for platform in platforms {
            here.push(cache.image_in_cache(&name(IMAGE), &platform.parse().unwrap()).await.unwrap());
        }
        here
    };
    let cache = MemoryCache::new().unwrap();
    let loaded = cache.image_load(&of(&registry, None), &LoadOptions::default()).await.unwrap();
    assert_eq!(loaded[0].descriptor, *registry.fetch_raw(&name(IMAGE)).await.unwrap().descriptor());
    assert_eq!(here(&cache).await, [true, true]);

    // The digest of the name stays that of the index, whatever of it is here.
    let one = LoadOptions { platforms: Platforms::One(AMD64.parse().unwrap()), ..LoadOptions::default() };
    let arm64 = registry.fetch_child(&name(IMAGE), &children[0]).await.unwrap();
    let layer = arm64.image().unwrap().layers()[0].digest().clone();
    for (lost, options, expected) in [
        (children[0].digest(), LoadOptions::default(), [false, true]),
        (children[0].digest(), one.clone(), [false, true]),
        (&layer, one.clone(), [false, true]),
    ] {
        let (cache, from) =
            (MemoryCache::new().unwrap(), Without::new(&registry, std::slice::from_ref(lost)));
        let again = cache.image_load(&from.opened(), &options).await.unwrap();
        assert_eq!(again[0].descriptor, loaded[0].descriptor);
        assert_eq!(here(&cache).await, expected, "{lost}");
    }
    for (lost, options) in [
        (vec![layer.clone()], LoadOptions::default()),
        (children.iter().map(|child| child.digest().clone()).collect(), LoadOptions::default()),
        (vec![children[1].digest().clone()], one),
    ] {
        let (cache, from) = (MemoryCache::new().unwrap(), Without::new(&registry, &lost));
        let error = cache.image_load(&from.opened(), &options).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
        assert!(lost.iter().any(|lost| error.to_string().contains(lost.as_ref())), "{error}");
        assert_eq!((named(&cache).await, cache.usage().await.unwrap().blobs), (vec![], 0));
    }
    let other =
        LoadOptions { platforms: Platforms::One("linux/s390x".parse().unwrap()), ..LoadOptions::default() };
    let error = cache.image_load(&of(&registry, None), &other).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PlatformNotFound { .. }), "{error}");
}

#[tokio::test]
async fn what_is_missing_is_named_before_anything_is_stored_and_may_be_here() {
    let registry = MemoryRegistry::new("a");
    let mut layers = Vec::new();
    for (text, path) in [("example.com/a:1", "one"), ("example.com/b:1", "two"), ("example.com/c:1", "three")]
    {
        layers.extend(put_image(&registry, &name(text), ("linux", "amd64"), &[layer(path, 10)]).1);
    }
    let mut from = Without::new(&registry, &layers[1..]);
    from.bases = vec!["example.com/base@sha256:00".to_owned()];
    let cache = MemoryCache::new().unwrap();
    let error = cache.image_load(&from.opened(), &LoadOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), from.opened.load(Ordering::Relaxed)), (&ErrorKind::NotFound, 2), "{error}");
    let missing = &error.detail::<MissingContent>().unwrap().0;
    assert_eq!(missing.iter().map(Descriptor::digest).collect::<Vec<_>>(), [&layers[1], &layers[2]]);
    assert_eq!(error.advice(), Some(&Advice::LoadBase { bases: from.bases.clone() }));
    assert_eq!((named(&cache).await, cache.usage().await.unwrap().blobs), (vec![], 0));

    // The cache has what the archive lacks.
    for (path, layer_digest) in [("two", &layers[1]), ("three", &layers[2])] {
        let content = layer(path, 10);
        let blob = Descriptor::new(MediaType::ImageLayer, content.len() as u64, layer_digest.clone());
        cache.put(Blob::from_bytes(&blob, BlobRange::FULL, &content.into()).unwrap()).await.unwrap();
    }
    let loaded = cache.image_load(&from.opened(), &LoadOptions::default()).await.unwrap();
    assert_eq!(loaded.len(), 3);
    for image in loaded {
        assert!(cache.image_in_cache(&image.reference, &AMD64.parse().unwrap()).await.unwrap());
    }
}

#[tokio::test]
async fn a_load_that_fails_half_way_changes_no_name() {
    let registry = MemoryRegistry::new("a");
    let texts = ["example.com/a:1", "example.com/b:1", "example.com/c:1"];
    for text in texts {
        put_image(&registry, &name(text), ("linux", "amd64"), &[layer(text, 10)]);
    }
    let cache = MemoryCache::new().unwrap();
    let old = MemoryRegistry::new("old");
    put_image(&old, &name(texts[0]), ("linux", "amd64"), &[layer("old", 10)]);
    drop(cache.image_pull(&old, &name(texts[0]), &options(PullPolicy::Always)).await.unwrap());
    let (names, blobs) = (cache.list().await.unwrap(), cache.usage().await.unwrap().blobs);
    // It is there, and it is something else.
    let content = layer(texts[2], 10);
    registry.insert_blob(&name(texts[2]), digest::sha256(&content), vec![0; content.len()]);
    let error = cache.image_load(&of(&registry, None), &LoadOptions::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(cache.list().await.unwrap(), names);
    assert!(cache.usage().await.unwrap().blobs > blobs, "what was stored waits for the next load");
    cache.collect(&Collect::default()).await.unwrap();
    assert_eq!((cache.list().await.unwrap(), cache.usage().await.unwrap().blobs), (names, blobs));
}

#[tokio::test]
async fn a_load_says_what_it_replaces_and_keeps() {
    let (old, new) = (MemoryRegistry::new("old"), MemoryRegistry::new("new"));
    let other = "example.com/app:2";
    put_image(&old, &name(IMAGE), ("linux", "amd64"), &[layer("old", 10)]);
    for (image, path) in [(IMAGE, "new"), (other, "other")] {
        put_image(&new, &name(image), ("linux", "amd64"), &[layer(path, 10)]);
    }
    let descriptors = [old.resolve(&name(IMAGE)).await.unwrap(), new.resolve(&name(IMAGE)).await.unwrap()];
    let cache = MemoryCache::new().unwrap();
    cache.image_load(&of(&old, None), &LoadOptions::default()).await.unwrap();
    let keeping = LoadOptions { keep_names: true, ..LoadOptions::default() };
    let loaded = cache.image_load(&of(&new, None), &keeping).await.unwrap();
    let said = |at: usize| (loaded[at].replaced.clone(), loaded[at].kept.clone());
    assert_eq!((said(0), said(1)), ((None, Some(descriptors[0].clone())), (None, None)));
    assert_eq!(cache.find_descriptor(&name(IMAGE)).await.unwrap().unwrap().digest(), descriptors[0].digest());
    let by_digest = reference::by_digest(&name(IMAGE), descriptors[1].digest());
    assert!(cache.image_in_cache(&by_digest, &AMD64.parse().unwrap()).await.unwrap());
    drop(loaded);
    cache.collect(&Collect::default()).await.unwrap();
    assert!(cache.image_in_cache(&by_digest, &AMD64.parse().unwrap()).await.unwrap());

    let loaded = cache.image_load(&of(&new, None), &LoadOptions::default()).await.unwrap();
    let said = |at: usize| (loaded[at].replaced.clone(), loaded[at].kept.clone());
    assert_eq!((said(0), said(1)), ((Some(descriptors[0].clone()), None), (None, None)));
    assert_eq!(cache.find_descriptor(&name(IMAGE)).await.unwrap().unwrap().digest(), descriptors[1].digest());
}

/// A lease that a load yields keeps what it has brought.
#[tokio::test]
async fn what_was_loaded_stays_while_it_is_held() {
    let (registry, cache) = (two_platforms().await, MemoryCache::new().unwrap());
    let loaded = cache.image_load(&of(&registry, None), &LoadOptions::default()).await.unwrap();
    cache.remove(&name(IMAGE)).await.unwrap();
    assert_eq!(cache.collect(&Collect::default()).await.unwrap().blobs, []);
    drop(loaded);
    assert!(!cache.collect(&Collect::default()).await.unwrap().blobs.is_empty());
}

#[tokio::test]
async fn one_image_comes_with_the_tags_of_cosign_beside_it() {
    let registry = two_platforms().await;
    put_image(&registry, &name("example.com/other:1"), ("linux", "amd64"), &[layer("other", 5)]);
    let top = registry.resolve(&name(IMAGE)).await.unwrap();
    let signature = format!("example.com/app:{}.sig", top.digest().as_ref().replace(':', "-"));
    put_image(&registry, &name(&signature), ("linux", "amd64"), &[layer("signature", 5)]);
    for (from, images) in [(of(&registry, Some(IMAGE)), vec![]), (of(&registry, None), vec![name(IMAGE)])] {
        let cache = MemoryCache::new().unwrap();
        let options = LoadOptions { images, ..LoadOptions::default() };
        let loaded = cache.image_load(&from, &options).await.unwrap();
        assert_eq!(
            loaded.iter().map(|image| image.reference.whole()).collect::<Vec<_>>(),
            [IMAGE, &signature]
        );
        let mut expected = vec![IMAGE.to_owned(), signature.clone()];
        expected.sort();
        assert_eq!(named(&cache).await, expected);
    }
}

/// A layer that may not be redistributed need not be there; one that is there comes along.
#[tokio::test]
async fn foreign_layers_come_from_the_archive_alone() {
    let registry = MemoryRegistry::new("a");
    let kind = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    let (foreign, config) = (layer("foreign", 10), b"{}".to_vec());
    let mut blob = descriptor(kind, &foreign);
    blob["urls"] = json!(["http://127.0.0.1:9/layer"]);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::ImageManifest.to_string(),
        "config": descriptor("application/vnd.example.config", &config), "layers": [blob],
    });
    registry.insert_blob(&name(IMAGE), digest::sha256(&config), config);
    put_document(&registry, &name(IMAGE), MediaType::ImageManifest, &manifest);
    for is_there in [false, true] {
        if is_there {
            registry.insert_blob(&name(IMAGE), digest::sha256(&foreign), foreign.clone());
        }
        let cache = MemoryCache::new().unwrap();
        let (progress, mut events) = Progress::channel();
        let options = LoadOptions { progress, ..LoadOptions::default() };
        cache.image_load(&of(&registry, None), &options).await.unwrap();
        drop(options);
        assert_eq!(cache.stat(&digest::sha256(&foreign)).await.unwrap().is_some(), is_there);
        let mut is_told = false;
        while let Some(event) = events.next().await {
            is_told |= matches!(event, Event::Warning { .. });
        }
        assert_eq!(is_told, !is_there);
    }
}

#[tokio::test]
async fn images_are_listed_before_a_load() {
    let registry = two_platforms().await;
    let children = registry.fetch_index(&name(IMAGE)).await.unwrap().manifests().clone();
    put_image(&registry, &name("example.com/b:1"), ("linux", "s390x"), &[layer("b", 5)]);
    let listed = list_images(&of(&registry, None)).await.unwrap();
    let platforms: Vec<_> = listed.iter().map(|image| image.platforms.join(" ")).collect();
    assert_eq!(platforms, ["linux/amd64 linux/arm64", "linux/s390x"]);
    assert_eq!(listed[0].descriptor, registry.resolve(&name(IMAGE)).await.unwrap());
    let raws = [name(IMAGE), reference::by_digest(&name(IMAGE), children[0].digest())];
    let lost = children[1].digest().clone();
    let from = Without::new(&registry, std::slice::from_ref(&lost));
    let one = list_images(&from.opened()).await.unwrap();
    assert_eq!(one[0].platforms, ["linux/arm64"]);
    let mut size = 0;
    for raw in raws {
        let raw = registry.fetch_raw(&raw).await.unwrap();
        size += raw.descriptor().size() + raw.requirements().iter().map(Descriptor::size).sum::<u64>();
    }
    assert_eq!(one[0].size, size);
}

/// A cache is a place to copy to, as any other.
#[tokio::test]
async fn a_cache_is_the_target_of_a_copy() {
    let (registry, cache) = (two_platforms().await, MemoryCache::new().unwrap());
    let (target, image) = (name("other.org/x:2"), name(IMAGE));
    let copied = copy(&registry, &image, &cache.as_target(), &target, &CopyOptions::default()).await.unwrap();
    assert_eq!(cache.find_descriptor(&target).await.unwrap().unwrap().digest(), copied.digest());
    for platform in ["linux/arm64", AMD64] {
        assert!(cache.image_in_cache(&target, &platform.parse().unwrap()).await.unwrap());
    }
}
