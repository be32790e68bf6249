//! The copy engine.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::pull::Retry;
use plyfold_core::{
    Advice, Blob, BlobRange, CacheProviderExt, Capabilities, CopyFault, CopyFrom, CopyJob, CopyOptions,
    Descriptor, Digest, Document, Error, ErrorKind, ImageRegistry, ImageRegistryExt, ImageSourceExt,
    MediaType, Platforms, RawManifest, Reference, Result, Sparse, copied_descriptor, copy, copy_all,
    copy_from, digest, reference,
};
use serde_json::json;

use crate::fixture::{AMD64, child, index_of, layer, name, put_attested, put_document, put_image};

/// An index of two images under `example.com/app:1`.
async fn two_platforms() -> MemoryRegistry {
    let registry = MemoryRegistry::new("a");
    let image = name("example.com/app:1");
    let (arm64, amd64) = ([layer("arm64", 10)], [layer("amd64", 10)]);
    index_of(&registry, &image, &[("arm64", &arm64), ("amd64", &amd64)]).await;
    registry
}

#[tokio::test]
async fn an_index_keeps_its_digest_and_one_platform_has_its_own() {
    let (from, to) = (two_platforms().await, MemoryRegistry::new("b"));
    let (image, target) = (name("example.com/app:1"), name("other.org/x:2"));
    let copied = copy(&from, &image, &to, &target, &CopyOptions::default()).await.unwrap();
    assert_eq!(copied, *from.fetch_raw(&image).await.unwrap().descriptor());
    let platform = AMD64.parse().unwrap();
    for platform in ["linux/arm64", AMD64] {
        let source = to.image(&target, &platform.parse().unwrap()).await.unwrap();
        assert_eq!(source.config().await.unwrap().platform_or(None).to_string(), platform);
        assert_eq!(source.layers().unwrap().len(), 1);
    }
    let one = name("other.org/one:2");
    let options = CopyOptions { platforms: Platforms::One(platform), ..CopyOptions::default() };
    let copied = copy(&from, &image, &to, &one, &options).await.unwrap();
    let source = from.image(&image, &AMD64.parse().unwrap()).await.unwrap();
    assert_eq!(copied.digest(), source.descriptor().digest());
}

#[tokio::test]
async fn damage_and_read_only_targets_leave_no_name() {
    let (from, to) = (MemoryRegistry::new("a"), MemoryRegistry::new("b"));
    let (image, target) = (name("example.com/app:1"), name("other.org/x:2"));
    let content = layer("a", 10);
    put_image(&from, &image, ("linux", "amd64"), std::slice::from_ref(&content));
    from.insert_blob(&image, digest::sha256(&content), vec![0; content.len()]);
    let error = copy(&from, &image, &to, &target, &CopyOptions::default()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.detail::<plyfold_core::Mismatch>().is_some()),
        (&ErrorKind::Corrupt, true)
    );
    assert!(!to.exists(&target).await.unwrap());

    let read_only = MemoryCache::new().unwrap().as_registry();
    let error = copy(&from, &image, &read_only, &target, &CopyOptions::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported);
    assert!(!read_only.capabilities().push);
}

/// The layer of which [`Overtaken`] has a part.
fn overtaken() -> Digest {
    digest::sha256(&layer("a", 10))
}

/// A target with a part of one blob, which another writer completes, or gives up, before the copy goes on with it.
#[derive(Clone, Debug)]
struct Overtaken {
    inner: MemoryRegistry,
    is_completed: bool,
    pushed: Arc<AtomicBool>,
}

impl fmt::Display for Overtaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ImageRegistry for Overtaken {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        self.inner.manifest(reference).await
    }

    async fn blob(&self, reference: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.inner.blob(reference, blob, range).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { partial_blobs: true, ..self.inner.capabilities() }
    }

    async fn has_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<bool> {
        Ok(self.inner.blob(reference, blob, BlobRange::FULL).await.is_ok())
    }

    async fn partial_blob(&self, _: &Reference, blob: &Descriptor) -> Result<u64> {
        let is_there = *blob.digest() == overtaken() && !self.pushed.load(Ordering::SeqCst);
        Ok(if is_there { 3 } else { 0 })
    }

    async fn push_blob(&self, reference: &Reference, blob: Blob) -> Result<()> {
        if *blob.descriptor().digest() == overtaken() && !self.pushed.swap(true, Ordering::SeqCst) {
            assert_eq!(blob.offset(), 3, "the copy goes on with the part");
            if self.is_completed {
                self.inner.insert_blob(reference, overtaken(), layer("a", 10));
            }
            return Err(Error::new(ErrorKind::Unavailable, "the beginning is no longer there"));
        }
        self.inner.push_blob(reference, blob).await
    }

    async fn push_manifest(&self, reference: &Reference, manifest: &RawManifest) -> Result<()> {
        self.inner.push_manifest(reference, manifest).await
    }
}

/// What a copy before has left may still be at work when the next one begins.
#[tokio::test]
async fn a_part_that_another_writer_completes_or_gives_up_is_no_error() {
    let (from, image) = (MemoryRegistry::new("a"), name("example.com/app:1"));
    put_image(&from, &image, ("linux", "amd64"), &[layer("a", 10)]);
    for is_completed in [true, false] {
        let inner = MemoryRegistry::new("b");
        let to = Overtaken { inner: inner.clone(), is_completed, pushed: Arc::default() };
        let options = CopyOptions {
            retry: Retry { attempts: 1, ..Retry::default() },
            concurrency: 1,
            ..CopyOptions::default()
        };
        copy(&from, &image, &to, &image, &options).await.unwrap();
        let source = inner.image(&image, &AMD64.parse().unwrap()).await.unwrap();
        let content = inner.blob(&image, &source.layers().unwrap()[0], BlobRange::FULL).await.unwrap();
        assert_eq!(content.bytes(1 << 20).await.unwrap(), layer("a", 10));
    }
}

/// All names of a copy are set together, after all content: a target that has no room for the last image has none of the
/// names.
#[tokio::test]
async fn several_images_are_copied_together_or_not_at_all() {
    let (from, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let to = cache.as_target();
    let texts = ["example.com/app:1", "example.com/app:2", "example.com/other:1"];
    let shared = layer("shared", 10);
    for text in texts {
        put_image(&from, &name(text), ("linux", "amd64"), &[shared.clone(), layer(text, 10)]);
    }
    let jobs = texts.map(|text| CopyJob { image: name(text), target: name(text) });
    let content = layer(texts[2], 10);
    from.insert_blob(&name(texts[2]), digest::sha256(&content), vec![0; content.len()]);
    let error = copy_all(&from, &jobs, &to, &CopyOptions::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    for text in texts {
        assert!(!to.exists(&name(text)).await.unwrap(), "{text}");
    }
    from.insert_blob(&name(texts[2]), digest::sha256(&content), content.clone());
    let copied = copy_all(&from, &jobs, &to, &CopyOptions::default()).await.unwrap();
    for (job, copied) in jobs.iter().zip(&copied) {
        assert_eq!(copied.target, job.target);
        assert_eq!(copied.descriptor, to.resolve(&job.target).await.unwrap());
        assert_eq!(copied.descriptor, from.resolve(&job.image).await.unwrap());
    }
    // What was brought for the first image, or before the error, is not moved again.
    let size = |raw: &RawManifest| raw.requirements().iter().map(Descriptor::size).sum::<u64>();
    for copied in &copied {
        let raw = to.fetch_raw(&copied.target).await.unwrap();
        assert_eq!(copied.moved + copied.present, size(&raw));
    }
    assert_eq!(copied[0].moved, 0);
    let twice = [jobs[0].clone(), CopyJob { image: name(texts[1]), target: name(texts[0]) }];
    let error = copy_all(&from, &twice, &to, &CopyOptions::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config, "{error}");
}

/// What gets names together is in memory until then.
#[tokio::test]
async fn documents_that_get_names_together_are_bounded() {
    let (from, to) = (MemoryRegistry::new("a"), MemoryRegistry::new("b"));
    let image = name("example.com/app:1");
    let text = json!({
        "schemaVersion": 2, "mediaType": MediaType::ImageIndex.as_ref(), "manifests": [],
        "annotations": { "org.example.filler": "x".repeat(3 << 20) },
    });
    let raw = RawManifest::new(text.to_string(), None).unwrap();
    from.insert_manifest(&image, MediaType::ImageIndex, raw.digest(), raw.bytes().clone());
    let jobs = |count: usize| -> Vec<CopyJob> {
        let target = |number| name(&format!("example.com/app:{number}"));
        (0..count).map(|number| CopyJob { image: image.clone(), target: target(number) }).collect()
    };
    copy_all(&from, &jobs(21), &to, &CopyOptions::default()).await.unwrap();
    let other = MemoryRegistry::new("c");
    let error = copy_all(&from, &jobs(22), &other, &CopyOptions::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Limit, "{error}");
    assert!(!other.exists(&name("example.com/app:0")).await.unwrap());
}

/// A dry run stores nothing, and counts each blob once.
#[tokio::test]
async fn a_dry_run_counts_what_a_copy_moves() {
    let (from, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let to = cache.as_target();
    let texts = ["example.com/app:1", "example.com/app:2"];
    let shared = layer("shared", 10);
    for text in texts {
        put_image(&from, &name(text), ("linux", "amd64"), &[shared.clone(), layer(text, 10)]);
    }
    let job = |text| CopyFrom::new(&from, CopyJob { image: name(text), target: name(text) });
    copy_from(&[job(texts[0])], &to, &CopyOptions::default()).await.unwrap();
    for dry_run in [true, true, false] {
        let options = CopyOptions { dry_run, ..CopyOptions::default() };
        let copied = copy_from(&texts.map(job), &to, &options).await.unwrap();
        assert_eq!(copied[0].moved, 0, "{dry_run}");
        let size = |text| {
            let content = layer(text, 10);
            u64::try_from(content.len()).unwrap()
        };
        // The config is the other one that is not shared.
        let [own, all] = [copied[1].moved, copied[1].moved + copied[1].present];
        assert!(own >= size(texts[1]) && own < all, "{dry_run}: {copied:?}");
        assert_eq!(copied[1].descriptor, copied_descriptor(&job(texts[1])).await.unwrap().0);
        assert_eq!(to.exists(&name(texts[1])).await.unwrap(), !dry_run);
    }
}

/// What a copy of some platforms stands for is known without one.
#[tokio::test]
async fn the_descriptor_of_a_copy_is_known_before_it() {
    let from = two_platforms().await;
    let image = name("example.com/app:1");
    let amd64 = || AMD64.parse().unwrap();
    for (platforms, sparse) in [
        (Platforms::All, Sparse::Refuse),
        (Platforms::One(amd64()), Sparse::Refuse),
        (Platforms::Some(vec![amd64()]), Sparse::Keep),
        (Platforms::Some(vec![amd64()]), Sparse::Rewrite),
    ] {
        let to = MemoryRegistry::new("b");
        let mut job = CopyFrom::new(&from, CopyJob { image: image.clone(), target: image.clone() });
        (job.platforms, job.sparse) = (platforms, sparse);
        let (known, whole) = copied_descriptor(&job).await.unwrap();
        let copied = copy_from(std::slice::from_ref(&job), &to, &CopyOptions::default()).await.unwrap();
        assert_eq!(copied[0].descriptor.digest(), known.digest(), "{job:?}");
        assert_eq!(whole.digest(), from.resolve(&image).await.unwrap().digest(), "{job:?}");
        assert_eq!(to.resolve(&image).await.unwrap().digest(), known.digest(), "{job:?}");
    }
}

/// An index of three images, of which two have an attestation.
async fn attested() -> (MemoryRegistry, Vec<Descriptor>) {
    let registry = MemoryRegistry::new("a");
    let image = name("example.com/app:1");
    let mut children = Vec::new();
    for architecture in ["arm64", "amd64", "riscv64"] {
        put_image(&registry, &image, ("linux", architecture), &[layer(architecture, 10)]);
        children.push(child(&registry, &image, architecture).await);
    }
    let children = put_attested(&registry, &image, children).await;
    (registry, children)
}

#[tokio::test]
async fn some_platforms_are_copied_with_their_attestations() {
    let (from, children) = attested().await;
    let (image, target) = (name("example.com/app:1"), name("other.org/x:2"));
    let root = from.fetch_raw(&image).await.unwrap();
    let platforms = Platforms::Some(vec![AMD64.parse().unwrap(), "linux/riscv64".parse().unwrap()]);
    let options = |sparse| CopyOptions { platforms: platforms.clone(), sparse, ..CopyOptions::default() };
    let taken = [1, 2, 4];
    let there = async |to: &MemoryRegistry| {
        let mut there = Vec::new();
        for (place, child) in children.iter().enumerate() {
            let is_there = to.exists(&reference::by_digest(&target, child.digest())).await.unwrap();
            there.extend(is_there.then_some(place));
        }
        there
    };
    let to = MemoryRegistry::new("refused");
    let error = copy(&from, &image, &to, &target, &options(Sparse::Refuse)).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.advice()),
        (&ErrorKind::Unsupported, Some(&Advice::RewriteIndex)),
        "{error}"
    );
    assert_eq!(error.detail(), Some(&CopyFault::Sparse));
    assert_eq!((there(&to).await, to.exists(&target).await.unwrap()), (vec![], false));

    let to = MemoryRegistry::new("kept");
    let copied = copy(&from, &image, &to, &target, &options(Sparse::Keep)).await.unwrap();
    assert_eq!((&copied, there(&to).await), (root.descriptor(), taken.to_vec()));
    assert_eq!(to.fetch_raw(&target).await.unwrap().bytes(), root.bytes());
    // A cache takes it as well.
    let cache = MemoryCache::new().unwrap();
    copy(&from, &image, &cache.as_target(), &target, &options(Sparse::Keep)).await.unwrap();
    for (platform, is_here) in [("linux/arm64", false), (AMD64, true), ("linux/riscv64", true)] {
        assert_eq!(cache.image_in_cache(&target, &platform.parse().unwrap()).await.unwrap(), is_here);
    }
    // And gives it on.
    let on = MemoryRegistry::new("on");
    let keeping = CopyOptions { sparse: Sparse::Keep, ..CopyOptions::default() };
    let pushed = cache.push(&target, &on, &target, &keeping).await.unwrap().descriptor;
    assert_eq!((&pushed, there(&on).await), (root.descriptor(), taken.to_vec()));

    let to = MemoryRegistry::new("rewritten");
    let copied = copy(&from, &image, &to, &target, &options(Sparse::Rewrite)).await.unwrap();
    assert_ne!(copied.digest(), root.digest());
    let index = to.fetch_index(&target).await.unwrap();
    assert_eq!(*index.manifests(), taken.map(|place| children[place].clone()));
    assert_eq!(there(&to).await, taken);

    // All of it is no part, and what is not there is no platform of it.
    let all = ["linux/arm64", AMD64, "linux/riscv64"].map(|platform| platform.parse().unwrap()).to_vec();
    let all = CopyOptions { platforms: Platforms::Some(all), ..CopyOptions::default() };
    assert_eq!(copy(&from, &image, &to, &target, &all).await.unwrap(), *root.descriptor());
    let other = Platforms::Some(vec!["linux/s390x".parse().unwrap()]);
    let other = CopyOptions { platforms: other, ..CopyOptions::default() };
    let error = copy(&from, &image, &to, &target, &other).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PlatformNotFound { .. }), "{error}");
}

/// An index within an index is rewritten, too, and kept with the outer one.
#[tokio::test]
async fn a_nested_index_is_copied_in_part() {
    let (from, children) = attested().await;
    let (image, target) = (name("example.com/app:1"), name("other.org/x:2"));
    let inner = from.fetch_raw(&image).await.unwrap();
    let nested = serde_json::to_value(inner.descriptor()).unwrap();
    let outer =
        json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex.as_ref(), "manifests": [nested] });
    put_document(&from, &image, MediaType::ImageIndex, &outer);
    let platforms = Platforms::Some(vec![AMD64.parse().unwrap()]);
    for sparse in [Sparse::Keep, Sparse::Rewrite] {
        let to = MemoryRegistry::new("b");
        let options = CopyOptions { platforms: platforms.clone(), sparse, ..CopyOptions::default() };
        copy(&from, &image, &to, &target, &options).await.unwrap();
        let there = to.image(&target, &AMD64.parse().unwrap()).await.unwrap();
        assert_eq!(there.descriptor().digest(), children[1].digest());
        let index = to.fetch_index(&target).await.unwrap();
        let Document::Index(listed) =
            to.fetch_child(&target, &index.manifests()[0]).await.unwrap().document().clone()
        else {
            panic!("an index stays one")
        };
        assert_eq!(listed.manifests().len(), if sparse == Sparse::Keep { 5 } else { 2 });
    }
}
