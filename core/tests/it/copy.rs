//! The copy engine.

use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::{
    Advice, CacheProviderExt, CopyFault, CopyJob, CopyOptions, Descriptor, Document, ErrorKind,
    ImageRegistry, ImageRegistryExt, ImageSourceExt, MediaType, Platforms, RawManifest, Sparse, copy,
    copy_all, digest, reference,
};
use serde_json::json;

use crate::fixture::{AMD64, descriptor, index_of, layer, name, put_document, put_image};

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

/// An index of three images, of which two have an attestation.
async fn attested() -> (MemoryRegistry, Vec<Descriptor>) {
    let registry = MemoryRegistry::new("a");
    let image = name("example.com/app:1");
    let mut children = Vec::new();
    for architecture in ["arm64", "amd64", "riscv64"] {
        put_image(&registry, &image, ("linux", architecture), &[layer(architecture, 10)]);
        let raw = registry.manifest(&image).await.unwrap();
        let mut child = descriptor(MediaType::ImageManifest.as_ref(), raw.bytes());
        child["platform"] = json!({ "os": "linux", "architecture": architecture });
        children.push(child);
    }
    for subject in [0, 1] {
        let note = layer(&format!("note {subject}"), 5);
        put_image(&registry, &image, ("unknown", "unknown"), &[note]);
        let raw = registry.manifest(&image).await.unwrap();
        let mut child = descriptor(MediaType::ImageManifest.as_ref(), raw.bytes());
        child["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
        child["annotations"] = json!({
            "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": children[subject]["digest"],
        });
        children.push(child);
    }
    let index =
        json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex.as_ref(), "manifests": children });
    put_document(&registry, &image, MediaType::ImageIndex, &index);
    let children = registry.fetch_index(&image).await.unwrap().manifests().clone();
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
